"""What users add from outside this repository: packages of classes, folders of choices, folders of claims.

They are named in environment variables, which every process of a command inherits. The arguments plugins=, claims=,
--config-dir and hydra.searchpath= of a command set these variables.
"""

import importlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from experiments.config.errors import ConfigError, first_line
from experiments.config.overrides import parse

ENTRY_POINTS = "experiments.plugins"  # installed packages with such an entry point are always used
PLUGINS, CHOICES, CLAIMS = "EXPERIMENTS_PLUGINS", "EXPERIMENTS_CONF", "EXPERIMENTS_CLAIMS"
VARIABLES = {
    "plugins": PLUGINS,
    "claims": CLAIMS,
    "--config-dir": CHOICES,
    "-cd": CHOICES,
    "hydra.searchpath": CHOICES,
}


def take(arguments: Sequence[str]) -> list[str]:
    """Set the environment variables that arguments name; returns the other arguments. Raises ConfigError."""
    rest, waiting = list[str](), list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        variable = VARIABLES.get(name)
        if variable is None or not (equals or name.startswith("-")):
            rest.append(argument)
            continue
        follows = not equals and waiting and not waiting[0].startswith("-")
        value = waiting.pop(0) if follows else value
        if value.startswith("["):
            values = [str(each) for each in parse(f"{name.lstrip('-')}={value}").value()]  # type: ignore[union-attr]
        else:
            values = words(value) if variable == PLUGINS else [value] if value else []
        if not values:
            raise ConfigError(f"{argument}: name a {'package' if variable == PLUGINS else 'folder'}")
        sign, new = (",", values) if variable == PLUGINS else (os.pathsep, list(map(path_of, values)))
        os.environ[variable] = sign.join(filter(None, [os.environ.get(variable), *new]))
    return rest


def words(text: str) -> list[str]:
    """The entries of a list such as a,b."""
    return [word.strip() for word in text.split(",") if word.strip()]


def path_of(location: str) -> str:
    """The absolute path of a folder that is given as a path, as file:///path or as pkg://package.folder."""
    if location.startswith("pkg://"):
        package, _, below = location.removeprefix("pkg://").partition(".")
        return str(source(package) / below.replace(".", "/"))
    return str(Path(location.removeprefix("file://")).expanduser().resolve())


def packages() -> tuple[str, ...]:
    """The packages whose classes a `_target_` may name. Raises ConfigError for one that cannot be imported."""
    return imported(os.environ.get(PLUGINS, ""))


@cache
def imported(names: str) -> tuple[str, ...]:
    """The packages with an entry point, and those that are named, all of them imported."""
    installed = [point.module for point in entry_points(group=ENTRY_POINTS)]
    found = tuple(dict.fromkeys([*installed, *words(names)]))
    for name in found:
        source(name)
    return found


def source(package: str) -> Path:
    """The folder of a package, or the file of a module. Raises ConfigError if it cannot be imported."""
    if not package.isidentifier():
        raise ConfigError(f"plugins={package}: name a package as Python imports it, such as mylib")
    try:
        module = importlib.import_module(package)
    except Exception as error:
        hint = (
            "" if importlib.util.find_spec(package) else "; install it, or add the folder that holds it to PYTHONPATH"
        )
        raise ConfigError(f"plugins={package} cannot be imported: {first_line(error)}{hint}") from error
    file = Path(module.__file__ or next(iter(module.__path__)))
    return file.parent if file.name == "__init__.py" else file


def folders(variable: str = CHOICES, name: str = "conf") -> list[Path]:
    """The folders that an environment variable names, and those of this name in the packages. Raises ConfigError."""
    named = [Path(path) for path in os.environ.get(variable, "").split(os.pathsep) if path]
    for folder in named:
        if not folder.is_dir():
            raise ConfigError(f"{folder}, a folder of {'claims' if variable == CLAIMS else 'choices'}: no such folder")
    return [*named, *(folder for package in packages() if (folder := source(package) / name).is_dir())]
