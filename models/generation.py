"""Greedy and sampled decoding with carried state."""

from typing import Any

import torch
from torch import Tensor, nn

from models.state import for_rows

PREFILL = 4096  # tokens of a prompt read at once: memory stays constant however long the prompt


def read_prompt(model: nn.Module, prompt: Tensor, piece: int = PREFILL, state: Any = None) -> tuple[Tensor, Any]:
    """Logits (B, vocabulary) after a prompt (B, T), read `piece` tokens at a time, and the state to go on from.

    state: where to start, if not at the first token.
    """
    if not prompt.shape[1]:
        raise ValueError("a prompt must hold at least one token")
    for tokens in prompt.split(piece, dim=1):
        logits, state = model(tokens, state)
    return logits[:, -1], state


def common_length(prompt: Tensor) -> int:
    """How many tokens at the start of prompt (B, T) are the same in all of several rows, the last one left out."""
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
    """Continue prompt (B, T) by at most `steps` tokens and return them, (B, ≤ steps).

    temperature 0 takes the most likely token, above it one is drawn. A row that has reached `end` goes on with `end`;
    decoding stops when all have. The carried state is whatever the attention needs: a key-value cache that grows with
    full attention, constant for the bounded ones. A long beginning that all rows have in common is read once.
    """
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
