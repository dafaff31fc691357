"""What is measured without training: costs and exact properties."""
