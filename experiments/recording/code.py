"""The fingerprint of the code that a run's numbers depend on.

It covers definitions: the functions, classes and constants in `FOLDERS`, and in packages from outside, that the run
reaches by name, starting from the function that executes it and the classes that its configuration names. Comments,
docstrings and definitions that the run does not reach have no effect.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from experiments.config.cache import DiskCache
from experiments.config.plugins import packages, source

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "models",
    "tasks",
    "experiments.training",
    "experiments.measurements",
    "experiments.activation_search",
    "experiments.evaluation",
)
TRAINING = "experiments.training.execute.execute"
MEASUREMENTS = "experiments.measurements."

Name = tuple[str, str]  # a module and a definition in it; "" for the statements that bind no name


@dataclass
class Module:
    """A parsed module: the statement that defines each name, the statements that bind none, and the imported names."""

    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    other: list[ast.stmt] = field(default_factory=list)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)  # local name → module, name in it ("" for itself)


def code_fingerprint(config: dict[str, Any], entry: str = TRAINING) -> str:
    """The SHA-256 of the definitions that a run reaches, shortened to 16 hexadecimal digits.

    config: the plain configuration; its `_target_` entries are starting points. entry: the function that executes the
    run. A measurement whose configuration has no model composes models itself, so it depends on all of models/ and
    conf/.
    """
    targets = [target for target in targets_of(config) if in_folders(target)]
    composes = any(target.startswith(MEASUREMENTS) for target in targets) and not has_own_model(config)
    return fingerprint(frozenset([entry, *targets]), composes)


def targets_of(node: Any) -> list[str]:
    """Every `_target_` in a configuration."""
    if isinstance(node, list):
        return [target for item in node for target in targets_of(item)]
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [target for value in node.values() for target in targets_of(value)]


def has_own_model(config: dict[str, Any]) -> bool:
    """Whether a configuration's model is a class in models/."""
    return any(target.startswith("models.") for target in targets_of(config.get("model")))


@cache
def fingerprint(targets: frozenset[str], composes: bool = False) -> str:
    """The fingerprint of what `targets` reach; with `composes`, also of all of models/ and conf/."""
    key = " ".join([*sorted(targets), *["with all of models and conf"] * composes])
    if key not in on_disk().values:
        on_disk().add(key, computed(targets, composes))
    return str(on_disk().values[key])


@cache
def on_disk() -> DiskCache:
    """The fingerprints of the code as it is: to follow all names takes seconds."""
    return DiskCache("code", *(str(ROOT / folder) for folder in ("conf", "experiments", "models", "tasks")))


def computed(targets: frozenset[str], composes: bool) -> str:
    """See `fingerprint`."""
    waiting = [split(target) for target in targets]
    digest = hashlib.sha256()
    if composes:
        waiting += [(module, name) for module in modules_under("models") for name in ("", *parsed(module).definitions)]
        for file in sorted((ROOT / "conf").rglob("*.yaml")):
            digest.update(file.read_bytes())
    found = reached(waiting)
    for module, name in sorted(found):
        digest.update(f"{module}\n{name}\n{found[module, name]}\n".encode())
    return digest.hexdigest()[:16]


def reached(waiting: list[Name]) -> dict[Name, str]:
    """The source of every definition reachable by name from `waiting`, including these themselves."""
    found: dict[Name, str] = {}
    while waiting:
        module, name = waiting.pop()
        if (module, name) in found or not in_folders(module):
            continue
        here = parsed(module)
        if name in here.imports:  # re-exported from another module
            waiting.append(here.imports[name])
            continue
        nodes = here.other if name == "" else [here.definitions[name]] if name in here.definitions else []
        found[module, name] = "\n".join(map(source_of, nodes))
        waiting.append((module, ""))  # executed when the module is imported
        waiting += [used for node in nodes for used in names_used(node, module)]
    return found


@cache
def names_used(node: ast.stmt, module: str) -> frozenset[Name]:
    """The definitions in this repository that a statement of `module` refers to."""
    return frozenset(references(node, parsed(module), module))


def references(node: ast.stmt, here: Module, module: str) -> Iterator[Name]:
    """These, one for each time that the statement names them."""
    for part in ast.walk(node):
        if not isinstance(part, ast.Name):
            continue
        if part.id in here.definitions:
            yield module, part.id
        elif part.id in here.imports:
            origin, name = here.imports[part.id]
            whole = is_module(f"{origin}.{name}") if name else True
            if not whole:
                yield origin, name
            elif in_folders(imported := f"{origin}.{name}".rstrip(".")) and is_module(imported):
                attributes = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and is_of(n, part.id)}
                yield from ((imported, attribute) for attribute in attributes)


def is_of(node: ast.Attribute, name: str) -> bool:
    """Whether a node is `name.attribute`."""
    return isinstance(node.value, ast.Name) and node.value.id == name


@cache
def source_of(node: ast.stmt) -> str:
    """A statement without comments and docstrings, as text that is the same on every version of Python."""
    for part in ast.walk(node):
        documented = isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(part) is not None:  # type: ignore[arg-type]
            part.body[0] = ast.Pass()  # type: ignore[attr-defined]
    return repr(structure(node))


def structure(node: Any) -> Any:
    """A syntax tree as nested tuples without empty fields. `ast.unparse` and `ast.dump` differ between versions."""
    if isinstance(node, list):
        return [structure(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, structure(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return type(node).__name__, *fields


@cache
def parsed(module: str) -> Module:
    """Parse a module of this repository. Raises ValueError if there is none of this name."""
    file = file_of(module)
    if file is None:
        raise ValueError(f"{module} is not a module of this repository")
    tree, found = ast.parse(file.read_bytes()), Module()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None  # types and ranges of arguments change no numbers
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.Import):
            found.imports |= {(name.asname or name.name.split(".")[0]): (name.name, "") for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = origin_of(node, module, file)
            found.imports |= {(name.asname or name.name): (origin, name.name) for name in node.names}
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom) or is_docstring(statement, tree):
            continue
        names = list(names_bound(statement))
        found.definitions |= dict.fromkeys(names, statement)
        if not names:
            found.other.append(statement)
    return found


def origin_of(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The module that a statement of `module` imports from, absolute where the statement is relative."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def names_bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    else:
        stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        yield from (name.id for name in stored)


def is_docstring(statement: ast.stmt, tree: ast.Module) -> bool:
    """Whether a statement is the module's docstring."""
    return statement is tree.body[0] and ast.get_docstring(tree) is not None


def in_folders(name: str) -> bool:
    """Whether a module or definition is in one of `FOLDERS`, or in a package from outside."""
    return any(name == folder or name.startswith(f"{folder}.") for folder in (*FOLDERS, *packages()))


def split(target: str) -> Name:
    """Split a dotted path into module and definition."""
    module, _, name = target.rpartition(".")
    return module, name


def is_module(name: str) -> bool:
    """Whether a dotted path is a module of this repository, or of a package from outside."""
    return file_of(name) is not None


@cache
def file_of(module: str) -> Path | None:
    """The file of a module of this repository, or of a package from outside; None if there is none."""
    package, *below = module.split(".")
    base = source(package).with_suffix("") if package in packages() else ROOT / package
    base = base.joinpath(*below)
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def modules_under(*packages: str) -> Iterable[str]:
    """The names of all modules in these packages."""
    for package in packages:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT).with_suffix("")
            yield ".".join(path.parts[:-1] if path.name == "__init__" else path.parts)
