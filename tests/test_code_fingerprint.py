"""A run's identity follows the code that determines its numbers, and no other."""

import ast
import hashlib
import shutil
from pathlib import Path

import pytest

from experiments.config import cache
from experiments.config.checks import plain
from experiments.config.compose import compose
from experiments.recording import code
from experiments.recording.code import code_fingerprint
from tests.conftest import ROOT

RUN = ("experiment=memory_lm", "attention=infini_delta", "scale=smoke")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the source that fingerprints are taken of."""
    for folder in ("conf", "experiments", "models", "tasks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(cache, "CACHES", tmp_path / "caches")
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """Parse all files anew."""
    for cached in (code.fingerprint, code.on_disk, code.parsed, code.file_of):
        cached.cache_clear()


def identity(*overrides: str) -> str:
    """The fingerprint of a run, of the files as they are now."""
    forget()
    return code_fingerprint(plain(compose([*RUN, *overrides])))


def edit(file: Path, *names: str) -> None:
    """Add a statement to definitions of a file, to all functions and classes of it if none is named."""
    tree = ast.parse(file.read_text())
    found = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    chosen = [node for node in found if node.name in (names or {node.name for node in found})]
    assert chosen, f"{file} defines none of {names}"
    for node in chosen:
        node.body.append(ast.parse("1 + 1").body[0])
    file.write_text(ast.unparse(tree))


@pytest.mark.parametrize("folder", ["report", "ledger", "sweeps", "cost", "tracking", "activation_search", "config"])
def test_what_looks_on_may_be_edited(folder: str, checkout: Path) -> None:
    before = identity()
    for file in (checkout / "experiments" / folder).rglob("*.py"):
        if file.name != "__init__.py":
            file.write_text(f"{file.read_text()}\n\nEDITED = 1\n")
    assert identity() == before


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("models/attention/infini.py", "Infini"),
        ("models/positions/rotary.py", "Rotary"),
        ("models/transformer.py", "Block"),
        ("models/initialization.py", "initialize"),
        ("tasks/language_modeling.py", "LanguageModeling"),
        ("tasks/data/tokens.py", "TokenizedCorpus"),
        ("experiments/training/loop.py", "train"),
        ("experiments/training/schedules.py", "Cosine"),
        ("experiments/training/learned_parameters.py", "gates"),
    ],
)
def test_an_edit_of_what_a_run_computes_changes_its_id(file: str, name: str, checkout: Path) -> None:
    before = identity()
    edit(checkout / file, name)
    assert identity() != before


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("models/attention/window.py", "SlidingWindow"),
        ("models/positions/relative.py", "RelativeBias"),
        ("models/vision/resnet.py", ""),
        ("tasks/summarization.py", "Summarization"),
        ("experiments/training/schedules.py", "Constant"),
        ("experiments/measurements/tensor_memory.py", "peak_bytes"),
    ],
)
def test_an_edit_of_what_a_run_does_not_reach_leaves_its_id(file: str, name: str, checkout: Path) -> None:
    before = identity()
    edit(checkout / file, *filter(None, [name]))
    assert identity() == before


def test_adding_a_variant_leaves_every_id(checkout: Path) -> None:
    def identities() -> list[str]:
        return [identity(), identity("attention=window"), identity("experiment=passkey", "attention=infini_linear")]

    before = identities()
    (checkout / "models/attention/mine.py").write_text("class Mine:\n    pass\n")
    with open(checkout / "models/attention/infini.py", "a") as file:
        file.write("\n\nclass Mine:\n    pass\n")
    with open(checkout / "experiments/training/schedules.py", "a") as file:
        file.write("\n\nclass Mine:\n    pass\n")
    assert identities() == before


def test_comments_docstrings_and_types_of_arguments_do_not_count(checkout: Path) -> None:
    before = identity()
    file = checkout / "models/attention/infini.py"
    text = file.read_text()
    first = text.index('"""', text.index("class Infini("))
    file.write_text(f"# a comment\n{text[: first + 3]}Another docstring. {text[first + 3 :]}")
    assert file.read_text() != text
    assert identity() == before
    file.write_text(text.replace("segment_length: PositiveInt,", "segment_length: float,"))
    assert file.read_text() != text
    assert identity() == before
    file.write_text(text.replace("initial_gate: float = 0.0", "initial_gate: float = 1.0"))
    assert identity() != before


def test_a_measurement_that_composes_models_reaches_all_of_them(checkout: Path) -> None:
    chosen = ("experiment=position_cost",)
    before, trained = identity(*chosen), identity()
    edit(checkout / "models/positions/relative.py", "RelativeBias")
    assert identity(*chosen) != before
    assert identity() == trained


def test_a_search_is_identified_by_its_own_code_too(checkout: Path) -> None:
    before, trained = identity("experiment=activation_search"), identity()
    edit(checkout / "experiments/activation_search/space.py", "candidate")
    assert identity("experiment=activation_search") != before
    assert identity() == trained


def test_the_same_code_has_the_same_fingerprint_on_every_python() -> None:
    """Seen on 3.11, 3.12 and 3.13; `ast.unparse` writes this f-string in two ways there."""
    text = '''
async def f(x: int, *, y: str = 'a') -> str:
    """What it does."""
    match x:  # by value
        case 1 | 2:
            return f'{x["a"]!r:>10} it is' f" {y}" + "don't" + 'say "so"'
    return [await g(a, **b) for a in x if not a][1:, None, ...]
'''
    digest = hashlib.sha256(code.source_of(ast.parse(text).body[0]).encode()).hexdigest()
    assert digest[:16] == "d8b8638914cfc012"


def test_an_evaluation_is_identified_by_its_own_code(checkout: Path) -> None:
    """And not by the training loop."""

    def evaluation() -> str:
        forget()
        task = {"_target_": "tasks.external.passkey.ExternalPasskey"}
        return code_fingerprint({"task": task}, "experiments.evaluation.pretrained.execute")

    before = evaluation()
    edit(checkout / "experiments/training/loop.py", "train")
    assert evaluation() == before
    edit(checkout / "experiments/evaluation/pretrained.py", "execute")
    assert evaluation() != before
