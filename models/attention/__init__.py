"""Attention mechanisms: state in, state out."""

from models.attention.base import Attention

__all__ = ["Attention"]
