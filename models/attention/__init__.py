"""Attention mechanisms. Each takes a state and returns the next one."""

from models.attention.base import Attention

__all__ = ["Attention"]
