"""Position schemes: how a transformer gets the position of each token."""

from models.positions.base import Position, position_ids

__all__ = ["Position", "position_ids"]
