"""The commands, paths, links and examples of README.md and docs/ work as they are written there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.conftest import CACHE, ROOT, Program
from tests.test_evaluate import save_llama, write_texts

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in FILES}


def blocks(language: str, text: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


LINES = [line for text in TEXTS.values() for block in blocks("bash", text) for line in block.splitlines()]
COMMANDS = {line.split(" #")[0].strip() for line in LINES if line.strip()}
TRIALS = "python -m experiments.conformance"
PROGRAMS = ("python -m experiments.run", "python -m experiments.evaluate", "torchrun ", TRIALS)
RUNS = sorted(line for line in COMMANDS if line.startswith(PROGRAMS))
INLINE = {found for text in TEXTS.values() for found in re.findall(r"`(make [a-z].*?)`", text)}
TARGETS = sorted(INLINE | {line for line in COMMANDS if line.startswith("make ")})
(QUICKSTART,) = [
    [line.split(" #")[0].strip() for line in block.splitlines()]
    for block in blocks("bash", TEXTS["README.md"])
    if "python -c" in block
]
EXAMPLE_FILES = {"conf/activation/snake.yaml", "conf/scale/mine.yaml"}


def test_every_command_is_one_that_is_tested_here() -> None:
    assert len(RUNS) >= 20
    assert COMMANDS - {*RUNS, *TARGETS, *QUICKSTART[1:]} == {"source .venv/bin/activate"}


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_a_run_of_the_docs_works(
    command: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At smoke scale, into a folder and on small files of the test's own, else as written."""
    if "=my/" in command:
        write_data(tmp_path / "my")
    if "mylib" in command:
        write_package(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    called = command.replace("=my/", f"={tmp_path}/my/").replace("torchrun", "python -m torch.distributed.run")
    _, _, module, *arguments = shlex.split(called)
    own = [] if command.startswith(TRIALS) else ["scale=smoke", "threads=1", f"outputs={tmp_path}", f"cache={CACHE}"]
    ended = program(*arguments, *own, module=module)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_the_first_quarter_of_an_hour(program: Program, tmp_path: Path) -> None:
    """The commands one after the other, in a folder of the test's own."""
    activate, *runs, compare, look, load = QUICKSTART
    assert activate.startswith("source") and look == "make ledger dashboard SCALE=smoke"
    for command in runs:
        own = ["threads=1", f"outputs={tmp_path}", f"cache={CACHE}"]
        ended = program(*shlex.split(command)[3:], *own)
        assert ended.returncode == 0, ended.stderr
    compared = program(*shlex.split(compare)[3:], "--outputs", str(tmp_path), module="experiments.compare")
    assert compared.returncode == 0 and "alibi" in compared.stdout and "rope" in compared.stdout, compared.stderr
    ledger = ["--scale", "smoke", "--no-runs", "--outputs", str(tmp_path)]
    assert program(*ledger, module="experiments.reproduce").returncode == 0
    assert (tmp_path / "report" / "index.html").exists()
    code = shlex.split(load)[2].replace("records(", f"records({str(tmp_path)!r}, ")
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "alibi" in loaded.stdout, loaded.stderr


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
    named = re.findall(r"(?<!mylib/)\b(?:experiments|models|tasks|conf|tests|docs)/[\w/.-]*\w", TEXTS[name])
    assert {path for path in named if not (ROOT / path).exists()} <= EXAMPLE_FILES


def test_the_drawn_tree_names_every_folder_and_every_module_of_experiments() -> None:
    tree = blocks("", TEXTS["docs/architecture.md"])[0]
    drawn = tree[tree.index("experiments/") : tree.index("\noutputs/")]
    folders = [path for path in (ROOT / "experiments").glob("**/") if path.name != "__pycache__"]
    lacking = {f"{folder.name}/" for folder in folders if f"{folder.name}/" not in drawn}
    words = set(re.findall(r"\w+", drawn))
    modules = [path for path in (ROOT / "experiments").glob("**/*.py") if not path.stem.startswith("__")]
    in_report = ROOT / "experiments" / "report"
    lacking |= {path.stem for path in modules if path.stem not in words and in_report not in path.parents}
    assert lacking == set()


def test_the_findings_say_what_the_ledger_says() -> None:
    verdicts = dict(re.findall(r"^\| \*\*(\w+)\*\* \|[^|]*\| ([a-z ]+) \|", TEXTS["README.md"], flags=re.M))
    text = TEXTS["docs/findings.md"]
    left = re.search(r"have not been run: (.*?)\.", text, flags=re.S)
    assert left and re.findall(r"[SRM]\d+", left[1]) == [name for name in verdicts if verdicts[name] == "not run"]
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S))
    for title, verdict in (("What holds", "reproduced"), ("What does not", "not reproduced")):
        named = {name for line in re.findall(r"^- (?:.|\n  )*", sections[title], flags=re.M) for name in ids(line)}
        assert {name for name in named if verdicts[name] != verdict} <= {"R13"}  # of which one part is exact
        assert named >= {name for name in verdicts if verdicts[name] == verdict}


def ids(text: str) -> list[str]:
    """The claims that a text names."""
    return re.findall(r"\b[SRM]\d+\b", text)


def write_package(folder: Path) -> None:
    """Write the package that docs/extending.md builds."""
    found = re.findall(r"`(mylib/[\w/.]+)`:\n\n```\w+\n(.*?)```", TEXTS["docs/extending.md"], flags=re.S)
    assert len(found) == 10, "a file of the page is not named in the line before it"
    for name, text in [("mylib/__init__.py", ""), *found]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_what_the_docs_build_is_judged_and_on_the_page(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ["plugins=mylib", "--scale", "smoke", "--only", "copying", "--outputs", str(tmp_path / "out")]
    ended = program(*options, module="experiments.reproduce")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"X1 \w+ +Attention over all tokens copies better", ended.stdout)
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Claims of Copying" in page and "Claims of RoPE" in page


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
