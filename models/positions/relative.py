"""Schemes that add a bias for the distance between query and key to their score."""

import math
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from models.positions.absolute import waves
from models.positions.base import Position


def distances(query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """All distances query - key that occur, the greatest first: (Tq + Tk - 1,)."""
    count = len(query_positions) + len(key_positions) - 1
    return query_positions[-1] - key_positions[0] - torch.arange(count, device=query_positions.device)


def spread(values: Tensor, queries: int, keys: int) -> Tensor:
    """Expand values per distance (…, Tq + Tk - 1), greatest distance first, to queries and keys (…, Tq, Tk)."""
    return values.unfold(-1, keys, 1)[..., -queries:, :].flip(-2)


def skew(values: Tensor, keys: int) -> Tensor:
    """`spread` where every query has its own values: (…, Tq, Tq + Tk - 1) to (…, Tq, Tk), without indexing.

    One column of padding shifts every row of the flattened matrix one index further than the row before (the relative
    shift of Dai et al. 2019, appendix B).
    """
    *outer, queries, count = values.shape
    padded = nn.functional.pad(values, (1, 0)).reshape(*outer, count + 1, queries)
    return padded[..., 1:, :].reshape(*outer, queries, count)[..., :keys]


class Relative(Position):
    """The base of the schemes here: computes what depends only on distances once, and caches it for all layers."""

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__(width, heads, causal)
        self.cached: tuple[Tensor, Tensor, Tensor] | None = None  # positions of queries and keys, `prepare`'s result

    def by_distance(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """`prepare` of all distances between these queries and keys, cached."""
        if self.cached is None or self.cached[0] is not query_positions or self.cached[1] is not key_positions:
            prepared = self.prepare(distances(query_positions, key_positions))
            self.cached = query_positions, key_positions, prepared
        return self.cached[2]

    def prepare(self, distance: Tensor) -> Tensor:
        """The part of the bias that depends on the distances query - key (D,) alone and not on parameters."""
        return distance


Buckets = Annotated[int, Field(ge=4)]  # two for either direction


class RelativeBias(Relative):
    """T5's relative bias: one trained scalar per head and bucket of distances (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one distance each; the sizes of the others grow logarithmically up to `max_distance`, and
    all longer distances share the last bucket. If causal, a key after its query falls into bucket 0; otherwise half of
    the buckets are for the keys after their query. Raises ValueError for a `max_distance` within half of the buckets.
    """

    def __init__(
        self, width: int, heads: int, buckets: Buckets = 32, max_distance: PositiveInt = 128, causal: bool = True
    ):
        super().__init__(width, heads, causal)
        if max_distance <= buckets // 2:
            raise ValueError(
                f"position.max_distance={max_distance} must be above {buckets // 2}, half of position.buckets"
            )
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.zeros(buckets, heads))

    def prepare(self, distance: Tensor) -> Tensor:
        """The bucket, from 0 to buckets - 1, of each distance query - key, (D,)."""
        buckets, first = self.table.shape[0], torch.zeros_like(distance)
        if self.causal:
            distance = distance.clamp(min=0)
        else:
            buckets //= 2
            first = buckets * (distance < 0)
            distance = distance.abs()
        exact = buckets // 2
        growth = torch.log(distance.clamp(min=1).double() / exact) / math.log(self.max_distance / exact)
        far = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
        return first + torch.where(distance < exact, distance, far)

    def bias(self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        values = self.table[self.by_distance(query_positions, key_positions)].T.to(query.dtype)
        return spread(values, query.shape[2], key.shape[2])  # (H, Tq, Tk)


class ALiBi(Relative):
    """Attention with linear biases: -slope · |distance|, with one slope per head (Press et al. 2022, section 3).

    The slopes are 2^(-8/H), 2^(-16/H), …, 2^-8. If H is not a power of two: the slopes of the next smaller power of
    two, then every second slope of twice that power.
    """

    def slopes(self) -> Tensor:
        """The slope of each head, (H,), in float64."""
        power = 2 ** math.floor(math.log2(self.heads))
        first = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        between = [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (self.heads - power), 2)]
        return torch.tensor(first + between, dtype=torch.float64)

    def prepare(self, distance: Tensor) -> Tensor:
        return -self.slopes().to(distance.device)[:, None] * distance.abs()  # (H, D)

    def bias(self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        values = self.by_distance(query_positions, key_positions)
        return spread(values.to(query.dtype), query.shape[2], key.shape[2])  # (H, Tq, Tk)


class Shaw(Relative):
    """Adds a trained vector per distance, clipped at `max_distance`, to the key (Shaw et al. 2018, eq. 4).

    All heads share the vectors. The paper also adds vectors to the values; they are omitted here because its ablation
    finds no effect (BLEU 25.8 with and without).
    """

    def __init__(self, width: int, heads: int, max_distance: PositiveInt = 16, causal: bool = True):
        super().__init__(width, heads, causal)
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.zeros((1 if causal else 2) * max_distance + 1, self.head_width))

    def prepare(self, distance: Tensor) -> Tensor:
        lowest = 0 if self.causal else -self.max_distance
        return distance.clamp(lowest, self.max_distance) - lowest  # rows of the table

    def bias(self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        rows = self.by_distance(query_positions, key_positions)
        return skew(query @ self.table[rows].T.to(query.dtype), key.shape[2]) * self.head_width**-0.5


class TransformerXLRelative(Relative):
    """Transformer-XL's scheme: (q + u) · k + (q + v) · W_R R(distance), R the sinusoids (Dai et al. 2019, section 3.3).

    All layers share u and v and, unlike in the paper, W_R.
    """

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__(width, heads, causal)
        self.relative = nn.Linear(width, width, bias=False)  # W_R
        self.content_bias = nn.Parameter(torch.zeros(width))  # u
        self.distance_bias = nn.Parameter(torch.zeros(width))  # v

    def prepare(self, distance: Tensor) -> Tensor:
        return waves(distance, self.width)

    def bias(self, query: Tensor, key: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        encoded = self.by_distance(query_positions, key_positions).to(self.relative.weight.dtype)
        encoded = self.relative(encoded).to(query.dtype)
        encoded = encoded.view(-1, self.heads, self.head_width).permute(1, 2, 0)  # (H, d, Tq + Tk - 1)
        u, v = (
            bias.view(self.heads, 1, self.head_width).to(query.dtype)
            for bias in (self.content_bias, self.distance_bias)
        )
        by_distance = skew((query + v) @ encoded, key.shape[2])
        return (u @ key.transpose(-1, -2) + by_distance) * self.head_width**-0.5
