"""Position schemes: how a transformer is told where each token stands."""

from models.positions.base import Position, places

__all__ = ["Position", "places"]
