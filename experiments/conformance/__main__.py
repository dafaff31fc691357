"""`python -m experiments.conformance mylib.MyAttention [setting=value]`: whether a class keeps the contracts.

The class is an attention, a position scheme or an activation, of a package on Python's path. It is built with its
settings into a tiny decoder.
"""

import argparse
import sys
from collections.abc import Sequence

import hydra
import yaml
from rich.console import Console

from experiments.config.command import command
from experiments.config.errors import first_line
from experiments.config.plugins import take
from experiments.config.targets import PACKAGES, check_target
from experiments.conformance.kinds import builder, checks, kind_of


@command
def main(arguments: Sequence[str]) -> int:
    """Print which contracts a class keeps and which it breaks; returns the exit code, 1 if it breaks any."""
    parser = argparse.ArgumentParser(prog="python -m experiments.conformance", description=__doc__)
    parser.add_argument("target", help="the class, as Python imports it")
    parser.add_argument("settings", nargs="*", help="arguments of the class, as name=value")
    options = parser.parse_args(arguments)
    console = Console(markup=False, highlight=False)
    package = options.target.split(".")[0]
    if package not in PACKAGES:
        take([f"plugins={package}"])
    check_target(options.target, "class")
    found = hydra.utils.get_object(options.target)
    kind = kind_of(found, options.target)
    settings = {name: yaml.safe_load(value) for name, _, value in (each.partition("=") for each in options.settings)}
    broken = 0
    console.print(f"{options.target}, {'an' if kind[0] == 'a' else 'a'} {kind}")
    for words, check in checks(kind, builder(found, settings)):
        try:
            check()
        except Exception as error:  # whatever the class does
            broken += 1
            console.print(f"  BROKEN  {words}: {first_line(error)}", style="red", soft_wrap=True)
        else:
            console.print(f"  kept    {words}", soft_wrap=True)
    console.print(f"{broken} broken" if broken else "all kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
