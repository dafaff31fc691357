"""The search for activation functions that found Swish."""
