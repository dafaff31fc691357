"""The search for activation functions by Ramachandran et al. 2017, which found Swish."""
