"""The commands, paths, links and examples of README.md and docs/ work as they are written there."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from experiments.ledger.claims import read_claim
from tests.conftest import CACHE, ROOT, Program
from tests.test_evaluate import save_llama, write_texts

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in FILES}


def blocks(language: str, text: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


LINES = [line for text in TEXTS.values() for block in blocks("bash", text) for line in block.splitlines()]
COMMANDS = {line.split(" #")[0].strip() for line in LINES if line.strip()}
PROGRAMS = ("python -m experiments.run", "python -m experiments.evaluate", "torchrun ")
RUNS = sorted(line for line in COMMANDS if line.startswith(PROGRAMS))
INLINE = {found for text in TEXTS.values() for found in re.findall(r"`(make [a-z].*?)`", text)}
TARGETS = sorted(INLINE | {line for line in COMMANDS if line.startswith("make ")})
EXAMPLE_FILES = {"conf/activation/snake.yaml", "conf/scale/mine.yaml"}
EXAMPLES = blocks("python", TEXTS["docs/extending.md"])


def test_every_command_is_one_that_is_tested_here() -> None:
    assert len(RUNS) >= 20
    assert COMMANDS - {*RUNS, *TARGETS} == {"source .venv/bin/activate"}


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_a_run_of_the_docs_works(command: str, program: Program, tmp_path: Path) -> None:
    """At smoke scale, into a folder and on small files of the test's own, else as written."""
    if "=my/" in command:
        write_data(tmp_path / "my")
    called = command.replace("=my/", f"={tmp_path}/my/").replace("torchrun", "python -m torch.distributed.run")
    _, _, module, *arguments = shlex.split(called)
    ended = program(*arguments, "scale=smoke", "threads=1", f"outputs={tmp_path}", f"cache={CACHE}", module=module)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", TARGETS)
def test_a_target_of_the_docs_exists(command: str) -> None:
    arguments = shlex.split(command.replace("<run id>", "abc"))
    shown = subprocess.run([*arguments, "-n"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout


def test_every_target_is_explained_by_make_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", makefile, flags=re.M)
    assert sorted(targets) == sorted(re.findall(r"^([a-z]+):.* ## \S", makefile, flags=re.M))
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.M)
    assert phony and sorted(phony[1].split()) == sorted(targets)
    modules = re.findall(r"-m (experiments\.[a-z_.]+)", makefile)
    assert [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}, target


@pytest.mark.parametrize("name", TEXTS)
def test_every_path_of_ours_exists(name: str) -> None:
    named = re.findall(r"\b(?:experiments|models|tasks|conf|tests|docs)/[\w/.-]*\w", TEXTS[name])
    assert {path for path in named if not (ROOT / path).exists()} <= {
        "conf/activation/snake.yaml",
        "conf/scale/mine.yaml",
    }


def test_the_drawn_tree_names_every_folder_and_every_module_of_experiments() -> None:
    tree = blocks("", TEXTS["docs/architecture.md"])[0]
    drawn = tree[tree.index("experiments/") : tree.index("\noutputs/")]
    folders = [path for path in (ROOT / "experiments").glob("**/") if path.name != "__pycache__"]
    lacking = {f"{folder.name}/" for folder in folders if f"{folder.name}/" not in drawn}
    words = set(re.findall(r"\w+", drawn))
    modules = [path for path in (ROOT / "experiments").glob("**/*.py") if path.stem != "__init__"]
    in_report = ROOT / "experiments" / "report"
    lacking |= {path.stem for path in modules if path.stem not in words and in_report not in path.parents}
    assert lacking == set()


def example(name: str) -> Any:
    """A class that docs/extending.md shows."""
    (source,) = [block for block in EXAMPLES if f"class {name}(" in block]
    scope: dict[str, Any] = {"__name__": "example"}
    exec(source, scope)
    return scope[name]


def test_the_example_of_an_activation_is_its_formula() -> None:
    x = torch.linspace(-3, 3, 7).double()
    torch.testing.assert_close(example("Snake")(channels=7)(x), x + x.sin() ** 2)


def test_the_example_of_a_position_scheme_is_a_bias_of_every_head() -> None:
    places = torch.arange(5)
    queries = torch.zeros(1, 2, 5, 4)
    bias = example("LogDistance")(width=8, heads=2).bias(queries, queries, places, places)
    assert bias.shape == (2, 5, 5)
    torch.testing.assert_close(bias[1, 3, 0], -torch.tensor(4.0).log())


def test_the_example_of_an_attention_mechanism_carries_its_state() -> None:
    attention = example("PastMean")(width=8, heads=2).double()
    x: Tensor = torch.randn(2, 6, 8, dtype=torch.float64)
    whole, _ = attention(x, None)
    first, state = attention(x[:, :2], None)
    rest, state = attention(x[:, 2:], None, state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    assert int(state.count) == 6 and not torch.allclose(whole[:, 0], whole[:, 5])


def test_the_example_of_a_claim_is_one(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml", TEXTS["docs/extending.md"]) if block.startswith("id:")]
    assert len(EXAMPLES) == 3 and all(yaml.safe_load(block) for block in blocks("yaml", TEXTS["docs/extending.md"]))
    file = tmp_path / "r12.yaml"
    file.write_text(text, encoding="utf-8")
    assert read_claim(file).comparisons[0].control == {"position": "alibi"}


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
