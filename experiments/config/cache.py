"""Compositions that are kept: composing takes Hydra a tenth of a second, and a ledger rests on hundreds of runs."""

import contextlib
import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.config.checks import plain
from experiments.config.choices import CONF, groups
from experiments.config.composition import compose_unchecked
from experiments.config.pool import of_all

SEED, OUTPUTS = -987_654_321, "<outputs>"  # stand for what changes nothing in a composition but itself
FOLDER = CONF.parent / "outputs" / "cache" / "compositions"


def composition(overrides: Sequence[str], seed: int, outputs: str) -> dict[str, Any]:
    """The plain configuration for these overrides, this seed and these outputs. Raises ConfigError."""
    own = shared(overrides)
    kept, key = opened(), " ".join(own)
    if key not in kept:
        known = {"experiment", *groups()}
        choices = tuple(override for override in own if override.split("=")[0] in known)
        values = [override for override in own if override not in choices]
        keep(key, plain(OmegaConf.merge(composed_of(choices), OmegaConf.from_dotlist(values))))  # type: ignore[arg-type]
    return replaced(kept[key], seed, outputs)


def shared(overrides: Sequence[str]) -> tuple[str, ...]:
    """Those that one composition stands for: without seed and outputs, which change nothing in it but themselves."""
    return tuple(override for override in overrides if not override.startswith(("seed=", "outputs=")))


def sweep(experiment: str) -> dict[str, str]:
    """The levels of each factor of an experiment's sweep, as its configuration writes them. Raises ConfigError."""
    key = sweep_key(experiment)
    if key not in opened():
        composed = compose_unchecked([f"experiment={experiment}"], return_hydra_config=True)
        params: Any = OmegaConf.to_container(composed.hydra.sweeper.params)
        keep(key, {name: str(levels) for name, levels in params.items()})
    return opened()[key]


def sweep_key(experiment: str) -> str:
    """What an experiment's sweep is kept by."""
    return f"sweep of {experiment}"


def compose_all(experiments: Iterable[str], wanted: Callable[[str], Iterable[Sequence[str]]]) -> None:
    """Compose what is not kept of all that is wanted of experiments, one of them to a process."""

    def kept(experiment: str) -> bool:
        return sweep_key(experiment) in opened() and all(
            " ".join(shared(own)) in opened() for own in wanted(experiment)
        )

    missing = [experiment for experiment in experiments if not kept(experiment)]
    for found in of_all(partial(composed_anew, wanted), missing):
        opened().update(found)


def composed_anew(wanted: Callable[[str], Iterable[Sequence[str]]], experiment: str) -> dict[str, dict[str, Any]]:
    """What was not kept of an experiment, as it is kept."""
    before = set(opened())
    for own in wanted(experiment):
        composition(own, SEED, OUTPUTS)
    return {key: value for key, value in opened().items() if key not in before}


def keep(key: str, value: dict[str, Any]) -> None:
    """Keep what was composed, a line of a file; where nothing can be written, it is composed again another time."""
    opened()[key] = value
    with contextlib.suppress(OSError):
        if not file().exists():
            FOLDER.mkdir(parents=True, exist_ok=True)
            for earlier in {*FOLDER.iterdir()} - {file()}:  # which another process may just have begun
                earlier.unlink(missing_ok=True)
        with open(file(), "ab", buffering=0) as lines:  # of which every one is written at once, by any process
            lines.write(json.dumps({key: value}).encode() + b"\n")


@cache
def composed_of(choices: tuple[str, ...]) -> DictConfig:
    """What Hydra composes of the choices; values are merged into it afterwards, as Hydra does.

    Of several choices beside the first, the experiment, each is composed alone: where no two of them change the same
    part of the configuration, what they change is put together.
    """
    first, *others = choices
    if len(others) > 1:
        changes = [(name, other) for other in others for name in changed((first,), (first, other))]
        if len(changes) == len({name for name, _ in changes}):
            found = copy.deepcopy(composed_of((first,)))
            for name, other in changes:
                found[name] = composed_of((first, other))._get_node(name)  # as it is written: a value would be resolved
            return found
    return compose_unchecked([*choices, f"seed={SEED}", f"outputs='{OUTPUTS}'"])


def changed(base: tuple[str, ...], choices: tuple[str, ...]) -> list[str]:
    """The parts of the configuration that are composed otherwise of these choices than of those."""
    one, other = as_written(base), as_written(choices)
    return [name for name in one | other if one.get(name) != other.get(name)]


@cache
def as_written(choices: tuple[str, ...]) -> dict[str, Any]:
    """What is composed of the choices, with its interpolations."""
    found: Any = OmegaConf.to_container(composed_of(choices))
    return found


@cache
def file() -> Path:
    """Where what is composed of the configuration as it is now is kept."""
    sources = [*sorted(CONF.rglob("*.yaml")), *sorted(Path(__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(b"".join(str(source).encode() + source.read_bytes() for source in sources)).hexdigest()
    return FOLDER / f"{digest[:16]}.jsonl"


@cache
def opened() -> dict[str, dict[str, Any]]:
    """What was kept for the configuration as it is now."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for line in file().read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # of a line that was cut off
                found |= json.loads(line)
    return found


def replaced(node: Any, seed: int, outputs: str) -> Any:
    """The same configuration with seed and outputs in their places."""
    if isinstance(node, dict):
        return {key: replaced(value, seed, outputs) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, seed, outputs) for value in node]
    if isinstance(node, str):
        return node.replace(OUTPUTS, outputs)
    return seed if type(node) is int and node == SEED else node
