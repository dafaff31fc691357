"""Which of our source a run's numbers depend on: the modules that it reaches by imports, without comments."""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("models", "tasks", "experiments")
START = "experiments.execution"
# What is used around a run and leaves its numbers alone.
INCIDENTAL = {f"experiments.{name}" for name in ("capacity", "config", "environment", "records", "tracking")}


def code_fingerprint(config: dict[str, Any]) -> str:
    """The SHA-256 of the source that a run of this configuration reaches, as 16 hexadecimal digits.

    A measurement that is one of our experiments composes what it measures: it reaches all models.
    """
    targets = frozenset(target for target in targets_of(config) if target.startswith(PACKAGES))
    return fingerprint_of(frozenset(target.rpartition(".")[0] for target in targets))


def targets_of(node: Any) -> list[str]:
    """Every class or function that a configuration names."""
    if isinstance(node, list):
        return [target for item in node for target in targets_of(item)]
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [target for value in node.values() for target in targets_of(value)]


@cache
def fingerprint_of(modules: frozenset[str]) -> str:
    """The same of the source that these modules and the execution of a run reach."""
    waiting = [START, *modules]
    if any(module.startswith("experiments.") for module in modules):
        waiting += modules_under("models")
    reached: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in reached | INCIDENTAL:
            reached.add(module)
            waiting += read(module)[1]
    digest = hashlib.sha256()
    for module in sorted(reached):
        digest.update(f"{module}\n{read(module)[0]}\n".encode())
    return digest.hexdigest()[:16]


def modules_under(package: str) -> list[str]:
    """All modules of a package."""
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in (ROOT / package).rglob("*.py")]


def file_of(module: str) -> Path | None:
    """Where a module of ours lies; None if it is none."""
    base = ROOT.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


@cache
def read(module: str) -> tuple[str, tuple[str, ...]]:
    """A module's source without comments and docstrings, and the modules of ours that it imports."""
    file = file_of(module)
    if file is None:
        raise ValueError(f"{module} is no module of ours")
    tree = ast.parse(file.read_bytes())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    ours = [name for name in found if name.startswith(PACKAGES) and file_of(name)]
    return ast.unparse(tree), tuple(dict.fromkeys(ours))
