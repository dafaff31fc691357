"""What is trained: activations, feed-forwards, positions, attention, decoders and vision networks."""
