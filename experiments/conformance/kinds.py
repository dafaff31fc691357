"""Which contracts a class must keep, by what it is."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pydantic
from torch import nn

from experiments.config.errors import ConfigError, first_line
from experiments.conformance import contracts
from experiments.conformance.tiny import SEGMENT, SMALL, tiny_decoder
from models.activations import Activation
from models.attention import Attention
from models.positions import Position
from models.positions.rotary import Rotary

KINDS: dict[str, type] = {"attention": Attention, "position": Position, "activation": Activation}
Check = tuple[str, Callable[[], None]]  # what is checked, in words, and the check


def causal(model: Any) -> None:
    """At the start of a segment, inside it and at its end."""
    for changed in (SEGMENT, SEGMENT + 2, 2 * SEGMENT - 1):
        contracts.assert_causal(model, changed)


def generates(model: Any) -> None:
    """From prompts of a token, of a segment, and of more."""
    for length in (1, SEGMENT, SEGMENT + 3):
        contracts.assert_cached_generation_equals_the_whole(model, length)


OF_MODELS: dict[str, Callable[[Any], None]] = {
    "no token changes an earlier logit": causal,
    "rows of a batch do not meet": contracts.assert_rows_do_not_meet,
    **{
        f"fed in {name} with carried state, the result is the same": partial(
            contracts.assert_pieces_equal_the_whole, pieces=pieces
        )
        for name, pieces in contracts.PIECES.items()
    },
    "a call changes no state and no weight": contracts.assert_a_state_is_a_value,
    "generation with a cache is generation without": generates,
    "float32 and bfloat16 stay what they are": contracts.assert_keeps_type,
    "every parameter has a gradient": contracts.assert_trains,
}
OF_ACTIVATIONS: dict[str, Callable[[Callable[..., nn.Module]], None]] = {
    "it is element-wise, and keeps shape and type": contracts.assert_element_wise,
    "its gradient is its slope": contracts.assert_right_gradient,
    "it is finite between -50 and 50": contracts.assert_finite,
}


def kind_of(found: Any, target: str) -> str:
    """Whether a class is an attention, a position scheme or an activation. Raises ConfigError."""
    for kind, base in KINDS.items():
        if inspect.isclass(found) and issubclass(found, base):
            return kind
    bases = ", ".join(f"{base.__module__}.{base.__name__}" for base in KINDS.values())
    raise ConfigError(f"{target} is no subclass of any of {bases}")


def builder(found: type, given: dict[str, Any]) -> Callable[..., nn.Module]:
    """The class with these settings, and with small ones for the lengths that it takes. Raises ConfigError."""
    known = [name for name in inspect.signature(found).parameters]
    settings = {name: value for name, value in SMALL.items() if name in known} | given
    for name in given:
        if name not in known:
            raise ConfigError(f"{name} is not a setting of {found.__name__}, which has {', '.join(known)}")
    return partial(found, **settings)


def checks(kind: str, build: Callable[..., nn.Module]) -> Iterator[Check]:
    """What a part of this kind must keep. Raises ConfigError if it cannot be built."""
    for words, check in OF_ACTIVATIONS.items() if kind == "activation" else ():
        yield words, partial(check, build)
    for name, others in {"": {}, ", with rotary positions": {"position": Rotary}}.items():
        if others and kind != "attention":
            continue
        try:
            model = tiny_decoder(**{kind: build} | others)
        except (TypeError, ValueError, pydantic.ValidationError) as error:
            if others:
                continue  # a mechanism may refuse a scheme of positions
            raise ConfigError(f"it cannot be built: {first_line(error)}; give settings as name=value") from error
        for words, keeps in OF_MODELS.items():
            yield f"{words}{name}", partial(keeps, model)
