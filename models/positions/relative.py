"""Schemes that add a number for the distance between query and key to their score."""

import math

import torch
from torch import Tensor, nn

from models.positions.base import Position


class RelativeBias(Position):
    """T5's relative bias: a trained number per head and bucket of distances (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one distance each, the other half grow logarithmically up to `max_distance`, beyond which
    all distances share the last one. Causal: a key after its query falls into bucket 0.
    """

    def __init__(self, width: int, heads: int, buckets: int = 32, max_distance: int = 128):
        super().__init__(width, heads)
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.zeros(buckets, heads))

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket, from 0 to buckets - 1, of each distance query - key."""
        buckets = self.table.shape[0]
        exact = buckets // 2
        distance = distance.clamp(min=0)
        growth = torch.log(distance.clamp(min=1).double() / exact) / math.log(self.max_distance / exact)
        far = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
        return torch.where(distance < exact, distance, far)

    def bias(self, query: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        # The bias depends on the distance alone: one look-up per distance, then every score picks its own.
        distance = query_positions[:, None] - key_positions[None, :]
        values = self.table[self.bucket(torch.arange(int(distance.max()) + 1, device=query.device))]
        return values.T[:, distance.clamp(min=0)].to(query.dtype)  # (H, Tq, Tk)
