"""Greedy and sampled decoding with a cached state."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.state import for_rows, leaves

PREFILL = 4096  # tokens of a prompt read at once, so that memory does not grow with the prompt


def read_prompt(model: nn.Module, prompt: Tensor, piece: int = PREFILL, state: Any = None) -> tuple[Tensor, Any]:
    """Read a prompt (B, T), `piece` tokens at a time. Returns the logits (B, vocabulary) after it and the state.

    state: the state after the tokens that precede the prompt, if any. Raises ValueError for an empty prompt, and for a
    state of another number of sequences.
    """
    if not prompt.shape[1]:
        raise ValueError("the prompt is empty; it must have at least one token")
    check_rows(state, prompt)
    for tokens in prompt.split(piece, dim=1):
        logits, state = model(tokens, state)
    return logits[:, -1], state


def check_rows(state: Any, tokens: Tensor) -> None:
    """Raise ValueError for a state that is not of as many sequences as tokens (B, T) or their vectors (B, T, width)."""
    rows = {leaf.shape[0] for leaf in leaves(state) if leaf.ndim}
    if rows - {len(tokens)}:
        raise ValueError(
            f"the state is of {max(rows)} sequences and the prompt has {len(tokens)}: pass a state of as many"
        )


def common_length(prompt: Tensor) -> int:
    """Length of the prefix shared by all rows of prompt (B, T), at most T - 1; 0 for a single row."""
    same = (prompt[:, :-1] == prompt[:1, :-1]).all(dim=0)
    return int(same.long().cumprod(dim=0).sum()) if len(prompt) > 1 else 0


@torch.no_grad()
def generate(
    model: nn.Module,
    prompt: Tensor,
    steps: int,
    temperature: float = 0.0,
    end: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Generate at most `steps` tokens after prompt (B, T) and return them, (B, ≤ steps).

    temperature: 0 takes the most likely token; above 0, tokens are sampled. A row that has generated `end` is filled
    with `end`; decoding stops when all rows have. The cache is the model's state: it grows with full attention and has
    constant size for bounded mechanisms. A long prefix that all rows share is read once. Raises ValueError for an empty
    prompt, and for steps or a temperature out of range.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one token must be generated")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature={temperature}: it must be 0, for the likeliest tokens, or a positive number")
    state, shared = None, common_length(prompt) // PREFILL * PREFILL
    if shared:
        _, state = read_prompt(model, prompt[:1, :shared])
        state = for_rows(state, prompt.shape[0])
    logits, state = read_prompt(model, prompt[:, shared:], state=state)
    finished = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    tokens: list[Tensor] = []
    for step in range(steps):
        if temperature:
            drawn = torch.multinomial(torch.softmax(logits.float() / temperature, dim=-1), 1, generator=generator)
            token = drawn.squeeze(1)
        else:
            token = logits.argmax(dim=-1)
        if end is not None:
            token = token.masked_fill(finished, end)
            finished = finished | (token == end)
        tokens.append(token)
        if step + 1 == steps or bool(finished.all()):
            break
        logits, state = model(token[:, None], state)
        logits = logits[:, -1]
    return torch.stack(tokens, dim=1)
