"""Schemes that add to the score of a query with a key something for their distance."""

import math

import torch
from torch import Tensor, nn

from models.positions.absolute import waves
from models.positions.base import Position


def distances(query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """Every distance query - key that occurs, the greatest first: (Tq + Tk - 1,)."""
    count = len(query_positions) + len(key_positions) - 1
    return query_positions[-1] - key_positions[0] - torch.arange(count, device=query_positions.device)


def spread(values: Tensor, queries: int, keys: int) -> Tensor:
    """A value for every distance (…, Tq + Tk - 1), the greatest distance first, at its queries and keys (…, Tq, Tk)."""
    return values.unfold(-1, keys, 1)[..., -queries:, :].flip(-2)


def skew(values: Tensor, keys: int) -> Tensor:
    """The same where every query has its own values: (…, Tq, Tq + Tk - 1) to (…, Tq, Tk), without a copy by index.

    One column of padding moves every row of the flattened matrix one place further than the row before it (the
    relative shift of Dai et al. 2019, appendix B).
    """
    *outer, queries, count = values.shape
    padded = nn.functional.pad(values, (1, 0)).reshape(*outer, count + 1, queries)
    return padded[..., 1:, :].reshape(*outer, queries, count)[..., :keys]


class Relative(Position):
    """What the schemes have in common: something that depends on distances alone, computed once for all layers."""

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__(width, heads, causal)
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None  # positions of queries and keys, and what follows

    def by_distance(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """`prepare` for every distance between these queries and keys."""
        if self.kept is None or self.kept[0] is not query_positions or self.kept[1] is not key_positions:
            prepared = self.prepare(distances(query_positions, key_positions))
            self.kept = query_positions, key_positions, prepared
        return self.kept[2]

    def prepare(self, distance: Tensor) -> Tensor:
        """What a scheme makes of distances query - key (D,), before anything that is trained."""
        return distance


class RelativeBias(Relative):
    """T5's relative bias: a trained number per head and bucket of distances (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one distance each, the other half grow logarithmically up to `max_distance`, beyond which
    all distances share the last one. Causal, a key after its query falls into bucket 0; otherwise half of the buckets
    are for the keys after their query.
    """

    def __init__(self, width: int, heads: int, buckets: int = 32, max_distance: int = 128, causal: bool = True):
        super().__init__(width, heads, causal)
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
    """Attention with linear biases: -slope · |distance|, with a slope per head (Press et al. 2022, section 3).

    Slopes are the powers 2^(-8/H), 2^(-16/H), … 2^-8; for a number of heads that is no power of two, those of the
    nearest smaller power, then every second one of twice as many.
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
    """A trained vector per distance, clipped at `max_distance`, that is added to the key (Shaw et al. 2018, eq. 4).

    All heads share the vectors. Those that the paper also adds to the values are left out: its ablation finds them
    without effect (BLEU 25.8 with and without).
    """

    def __init__(self, width: int, heads: int, max_distance: int = 16, causal: bool = True):
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

    u, v and, unlike in the paper, W_R too are shared by all layers.
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
