"""Position schemes: how a transformer is told where each token stands."""

from models.positions.base import Position

__all__ = ["Position"]
