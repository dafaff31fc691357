"""The README's commands run as they are written there."""

import re
import shlex
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import datasets
import numpy as np
import pytest
from PIL import Image

from experiments.claims import claims
from experiments.ledger import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, judge
from experiments.report.export.readme_table import END, PICTURE, START, markdown_table
from tests.conftest import CACHE, ROOT, Program
from tests.test_evaluate import save_llama, write_texts

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.S)
COMMANDS = [line.split(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
PROGRAMS = ("python -m experiments.run", "python -m experiments.evaluate", "torchrun ")
RUNS = [line for line in COMMANDS if line.startswith(PROGRAMS)]
TARGETS = [line for line in COMMANDS if line.startswith("make ")]


def test_the_readme_opens_with_the_two_commands() -> None:
    assert TARGETS[:2] == ["make reproduce", "make test"]
    assert len(RUNS) >= 4


def test_every_command_is_one_that_is_tested_here() -> None:
    known = {*RUNS, *TARGETS}
    assert all(line in known or line.startswith(("cd ", "git clone", "wandb ", "source ")) for line in COMMANDS)


def test_the_table_is_of_the_claims_as_they_are() -> None:
    """The rows are those that `make readme` writes: only what was measured may differ."""
    printed = TEXT.split(START)[1].split(END)[0]
    written = markdown_table([judge(claim, {}) for claim in claims()])
    shown, now = ([line.strip("|").split(" | ") for line in table.splitlines()] for table in (printed, written))
    assert [row[:3] for row in shown] == [row[:3] for row in now]
    assert {row[-1].strip(" *") for row in shown[2:]} <= {REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE}


def test_the_picture_shows_the_verdicts_of_the_table() -> None:
    """`make readme` writes both; the picture's claims are those there are, each with its row's verdict."""
    rows = [line.strip("|").split(" | ") for line in TEXT.split(START)[1].split(END)[0].splitlines()]
    printed = {row[0].strip(" *"): row[-1].strip(" *") for row in rows if row[0].strip().startswith("**")}
    root = ElementTree.parse(PICTURE).getroot()
    named = "{http://www.w3.org/2000/svg}"
    drawn = {group.get("id"): group for group in root.iter(f"{named}g")}
    verdicts = {id: group.find(f".//{named}tspan[@class='verdict']") for id, group in drawn.items()}
    assert {id: found.text for id, found in verdicts.items() if found is not None} == printed
    for claim in claims():
        assert claim.statement in " ".join("".join(drawn[claim.id].itertext()).split())
    assert f"({PICTURE.relative_to(ROOT)})" in TEXT


def write_data(folder: Path) -> None:
    """A user's own: `books` in the columns of PG-19, `images` in those of CIFAR-10, `texts`, and a `model`."""
    random = np.random.default_rng(0)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    for split in ("train", "test"):
        books = [" ".join(random.choice(["a", "book", "of", "few", "words"], 20_000)) for _ in range(3)]
        pixels = [Image.fromarray(shade) for shade in random.integers(0, 256, (100, 32, 32, 3), np.uint8)]
        columns = {"img": pixels, "label": random.integers(0, 10, 100)}
        (folder / "books").mkdir(parents=True, exist_ok=True)
        (folder / "images").mkdir(exist_ok=True)
        datasets.Dataset.from_dict({"text": books}).to_parquet(str(folder / "books" / f"{split}.parquet"))
        images = datasets.Dataset.from_dict(columns, features=features)
        images.to_parquet(str(folder / "images" / f"{split}.parquet"))
        write_texts(folder / "texts", split, times=200)
    save_llama(folder / "model")


@pytest.mark.parametrize("command", RUNS)
def test_a_run_of_the_readme_works(command: str, program: Program, tmp_path: Path) -> None:
    """At smoke scale, into a folder and on small files of the test's own, else as written."""
    if "=my/" in command:
        write_data(tmp_path / "my")
    called = command.replace("=my/", f"={tmp_path}/my/").replace("torchrun", "python -m torch.distributed.run")
    _, _, module, *arguments = shlex.split(called)
    ended = program(*arguments, "scale=smoke", f"outputs={tmp_path}", f"cache={CACHE}", module=module)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", sorted(set(TARGETS)))
def test_a_target_of_the_readme_exists(command: str) -> None:
    shown = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "experiments." in shown.stdout or "pytest" in shown.stdout or "ruff" in shown.stdout
