"""What holds of every attention, position scheme and activation, tried on a class in a tiny decoder."""
