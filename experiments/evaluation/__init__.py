"""Evaluate pretrained models, repeat finished runs, and give a finished run a single prompt."""
