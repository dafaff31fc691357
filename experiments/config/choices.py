"""The config groups in conf/, and in folders from outside, and their options."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.config import plugins
from experiments.config.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
ON_GPUS = ("gpu", "paper")  # scales that need GPUs
MOST = 25  # words that a hint lists


def groups() -> dict[str, list[str]]:
    """The options of every config group. Raises ConfigError for one that two folders have."""
    found: dict[str, dict[str, Path]] = {}
    for folder in (CONF, *plugins.folders()):
        for file in sorted(folder.glob("*/*.yaml")):
            other = found.setdefault(file.parent.name, {}).setdefault(file.stem, file)
            if other != file:
                raise ConfigError(f"{file.parent.name}={file.stem} is in {other} and in {file}: rename one of them")
    return {group: sorted(found[group]) for group in sorted(found)}


def file_of(group: str, option: str) -> Path:
    """The file of an option, in conf/ or else in a folder from outside; it may not exist."""
    files = [folder / group / f"{option}.yaml" for folder in (CONF, *plugins.folders())]
    return next((file for file in files if file.exists()), files[0])


def groups_of(root: str) -> dict[str, list[str]]:
    """The options of the groups that conf/<root>.yaml lists in its defaults."""
    defaults = OmegaConf.load(CONF / f"{root}.yaml").defaults
    named = {name for entry in defaults if isinstance(entry, DictConfig) for name in map(str, entry)}
    return {name: choices for name, choices in groups().items() if name in named}


def named(names: str, known: Sequence[str], option: str) -> list[str]:
    """The names that an option lists, separated by commas; none if it is empty.

    Raises ConfigError for one that is not known, and for an option that has commas and no names.
    """
    found = [name.strip() for name in names.split(",") if name.strip()]
    if names and not found:
        raise ConfigError(f"{option}={names}: no name in it; choose one of {', '.join(known)}")
    for name in found:
        if name not in known:
            raise ConfigError(f"{option}={name}: no such choice; {nearest(name, known)}")
    return found


def nearest(word: str, words: Sequence[str]) -> str:
    """A hint for an error message: those of `words` that end in .word, the most similar one, or else the first ones."""
    similar = [each for each in words if each.endswith(f".{word}")]
    similar = similar or difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if len(similar) > 1:
        return f"the nearest are {', '.join(similar[:-1])} and {similar[-1]}"
    more = f" and {len(words) - MOST} more" if len(words) > MOST else ""
    return f"the nearest is '{similar[0]}'" if similar else f"choose one of {', '.join(words[:MOST])}{more}"
