"""`python -m experiments.new paper my-paper`: a package for another paper, with an experiment, a claim and a test."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
from rich.console import Console

from experiments.config.command import command
from experiments.config.errors import ConfigError
from tasks.data.source import write_atomically

FOLDER = Path(__file__).resolve().parent / "paper_template"
FILES = {  # of a new package, and their templates
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    ".gitignore": "gitignore",
    "{package}/__init__.py": "init.py",
    "{package}/parts.py": "parts.py",
    "{package}/conf/activation/bump.yaml": "choice.yaml",
    "{package}/conf/experiment/{package}.yaml": "experiment.yaml",
    "{package}/claims/paper.yaml": "paper.yaml",
    "{package}/claims/x1.yaml": "claim.yaml",
    "tests/test_{package}.py": "test.py",
}


@command
def main(arguments: Sequence[str]) -> int:
    """Write the package; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.new", description=__doc__)
    parser.add_argument("kind", choices=["paper"])
    parser.add_argument("folder", help="the new folder; its last part is the package's name")
    folder = Path(parser.parse_args(arguments).folder).expanduser()
    name = folder.resolve().name
    package = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not package.isidentifier() or not name.isascii():
        raise ConfigError(f"{folder}: name the folder with letters and digits, such as my-paper")
    if folder.exists():
        raise ConfigError(f"{folder} is there already: name another folder")
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    for path, template in FILES.items():
        text = templates.get_template(f"{template}.jinja").render(name=name, package=package)
        write_atomically(folder / path.format(package=package), text.encode())
    Console(markup=False, highlight=False).print(f"{folder} is laid out; {folder}/README.md says how to go on")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
