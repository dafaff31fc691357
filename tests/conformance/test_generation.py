"""Decoding refuses what it cannot do in one line."""

import math
from typing import Any

import pytest
from support import choices, decoder

from experiments.conformance.tiny import SEGMENT, random_tokens
from models.generation import generate, read_prompt


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0: at least one token must be generated"),
        ({"steps": -1}, "steps=-1: at least one token"),
        ({"temperature": -1.0}, r"temperature=-1\.0: it must be 0, .* or a positive number"),
        ({"temperature": math.nan}, "temperature=nan: it must be 0"),
        ({"temperature": math.inf}, "temperature=inf: it must be 0"),
        ({"prompt": random_tokens(2, 0)}, "the prompt is empty"),
    ],
)
def test_what_cannot_be_generated_is_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(decoder("full", "rope"), **{"prompt": random_tokens(2, 3), "steps": 2} | settings)


@pytest.mark.parametrize("attention", choices("attention"))
def test_a_state_of_other_rows_is_refused(attention: str) -> None:
    model = decoder(attention, "rope" if attention == "full" else "none")
    _, state = read_prompt(model, random_tokens(2, SEGMENT + 1))
    for rows in (1, 3):
        with pytest.raises(ValueError, match=f"the state is of 2 sequences and the prompt has {rows}"):
            read_prompt(model, random_tokens(rows, 3), state=state)
