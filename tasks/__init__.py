"""What models are trained and judged on."""
