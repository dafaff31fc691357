"""Attention within segments, computed for all segments of a sequence at once."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.attention.base import attend
from models.positions import Position, position_ids


def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position: Position,
    segment_length: int,
    opened: int = 0,
    memory_length: int = 0,
    window: int | None = None,
) -> Tensor:
    """Causal attention to the token's own segment and to at most `memory_length` tokens before it.

    query (B, H, T, d) holds the new tokens; key and value (B, H_kv, m + opened + T, d) hold m tokens of earlier
    segments, then the `opened` tokens of the incomplete segment, then the new ones. They must not be rotated: position
    ids count from the first new token here, so that they stay small in a long stream. Returns (B, H, T, d).
    """
    length = query.shape[2]
    before = key.shape[2] - length
    query_positions, positions = position_ids(0, length, query.device), position_ids(-before, length, query.device)
    query = position.rotate(query, query_positions)
    key = position.rotate(key, positions)
    if opened + length <= segment_length:
        return attend(query, key, value, position, query_positions, positions, window)

    segments = -(-(opened + length) // segment_length)
    missing = segments * segment_length - opened - length  # tokens that the last segment lacks
    remembered = before - opened
    lacking = memory_length - remembered  # tokens that the memory lacks, at the start of the stream
    batch, heads, _, width = query.shape
    query = F.pad(query, (0, 0, opened, missing)).view(batch, heads, segments, segment_length, width)
    key, value = (
        F.pad(x, (0, 0, lacking, missing)).unfold(2, memory_length + segment_length, segment_length).transpose(3, 4)
        for x in (key, value)
    )
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))  # (B · segments, H, …, d)

    inside = position_ids(-memory_length, segment_length, query.device)
    valid = None
    if lacking:
        starts = torch.arange(segments, device=query.device)[:, None] * segment_length
        valid = (starts + inside >= -remembered).repeat(batch, 1)[:, None, None]  # (B · segments, 1, 1, memory + S)
    y = attend(query, key, value, position, inside[memory_length:], inside, window, valid)
    y = y.view(batch, segments, heads, segment_length, width).transpose(1, 2).flatten(2, 3)
    return y[:, :, opened : opened + length]
