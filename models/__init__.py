"""The models: activations, feed-forward layers, position schemes, attention, transformers and vision networks."""
