"""Greedy and sampled decoding with carried state."""

from typing import Any

import torch
from torch import Tensor, nn

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
    full attention, constant for the bounded ones.
    """
    logits, state = read_prompt(model, prompt)
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
