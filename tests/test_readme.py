"""The README's commands run as they are written there."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CACHE, ROOT, Program

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.S)
COMMANDS = [line.split(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
RUNS = [line for line in COMMANDS if line.startswith("python -m experiments.run")]
TARGETS = [line for line in COMMANDS if line.startswith("make ")]


def test_the_readme_opens_with_the_two_commands() -> None:
    assert TARGETS[:2] == ["make reproduce", "make test"]
    assert len(RUNS) >= 4


def test_every_command_is_one_that_is_tested_here() -> None:
    known = {*RUNS, *TARGETS}
    assert all(line in known or line.startswith(("cd ", "git clone", "wandb ", "source ")) for line in COMMANDS)


@pytest.mark.parametrize("command", RUNS)
def test_a_run_of_the_readme_works(command: str, program: Program, tmp_path: Path) -> None:
    """At smoke scale and into a folder of the test's own, else as written."""
    for word in shlex.split(command):
        if word.startswith("data.path=") and not (ROOT / word.removeprefix("data.path=")).is_dir():
            pytest.skip(f"no {word.removeprefix('data.path=')} to read")
    arguments = shlex.split(command.removeprefix("python -m experiments.run"))
    ended = program(*arguments, "scale=smoke", f"outputs={tmp_path}", f"cache={CACHE}")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", sorted(set(TARGETS)))
def test_a_target_of_the_readme_exists(command: str) -> None:
    shown = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "experiments." in shown.stdout or "pytest" in shown.stdout or "ruff" in shown.stdout
