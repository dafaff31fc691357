"""Measurements without training: costs and exact properties."""
