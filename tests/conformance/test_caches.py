"""What holds for the caches of data: what is cut, changed or of other data is made again, with a line that names it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.errors import RecordError
from experiments.recording.record import Record
from tasks.data.glyphs import Glyphs
from tasks.data.pairs import Docstrings
from tasks.data.source import SPLITS, cached
from tasks.data.text import Document
from tasks.data.tokens import TokenizedCorpus


class Made:
    """Documents of random letters, other ones for each seed."""

    name = "made"

    def __init__(self, seed: int):
        self.seed, self.fingerprint = seed, f"{seed:016}"

    def documents(self, split: str) -> list[Document]:
        generator = np.random.default_rng([self.seed, SPLITS.index(split)])
        return [Document(f"{split}/{n}", "".join(generator.choice(list("abc \n"), 200))) for n in range(3)]


def tokens_of(cache: Path, seed: int = 0) -> list[Any]:
    corpus = TokenizedCorpus(Made(seed), 260, str(cache))
    train, test = corpus.stream("train"), corpus.stream("test")
    leaked = corpus.leaked(test, train.tokens)
    return [corpus.tokenizer.to_str(), *(array.tolist() for array in (*train, *test, leaked))]


def glyphs_of(cache: Path, seed: int = 0) -> list[Any]:
    drawn = Glyphs(str(cache), seed, train_size=4, test_size=2)
    return [drawn.images(split).pixels.tolist() for split in ("train", "test")]


def docstrings_of(cache: Path, seed: int = 0) -> list[Any]:
    return Docstrings(str(cache)).all_pairs


CACHES: dict[str, Callable[..., list[Any]]] = {"tokens": tokens_of, "glyphs": glyphs_of, "docstrings": docstrings_of}
FILES = {"tokenizer": "tokens", "train": "tokens", "test": "tokens", "leaked*": "tokens"} | {
    name: name for name in ("glyphs", "docstrings")
}
DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {  # the file, and one that is well formed but of other data
    "cut": lambda own, other: own[: len(own) // 2],
    "flipped": lambda own, other: own[:-9] + bytes([own[-9] ^ 1]) + own[-8:],
    "empty": lambda own, other: b"",
    "longer": lambda own, other: own + b"\0",
    "of other data": lambda own, other: other,
    "without a digest": lambda own, other: own.partition(b"\n")[2],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One small package with docstrings and one font, because those that are installed take ten seconds."""
    monkeypatch.setattr("tasks.data.glyphs.FONTS", ("DejaVuSans",))
    (tmp_path / "documented").mkdir()
    text = "This sentence of ten words stands here for a document. " * 5
    (tmp_path / "documented" / "__init__.py").write_text(f'def f():\n    """Do.\n\n    {text}\n    """\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Docstrings, "packages", ("documented",))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_cache_is_named_and_made_again(file: str, damage: str, tmp_path: Path) -> None:
    read, pattern = CACHES[FILES[file]], file if FILES[file] == "tokens" else "[0-9a-f]*"
    expected = read(tmp_path / "own")
    read(tmp_path / "other", seed=1)
    (own,) = (tmp_path / "own").rglob(f"*/{pattern}")
    (other,) = (tmp_path / "other").rglob(f"*/{pattern}")
    foreign = other.read_bytes() if FILES[file] != "docstrings" else other.read_bytes()[:-3] + b'!"]'
    whole = own.read_bytes()
    own.write_bytes(DAMAGES[damage](whole, foreign))
    with pytest.warns(UserWarning, match=f"{own} is damaged or belongs to other data: it is made again"):
        assert read(tmp_path / "own") == expected
    assert own.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path / "own") == expected


def test_a_cache_is_bound_to_its_place(tmp_path: Path) -> None:
    """The tokens of one split are no tokens of another."""
    assert cached(tmp_path / "train", lambda: b"train") == b"train"
    (tmp_path / "test").write_bytes((tmp_path / "train").read_bytes())
    with pytest.warns(UserWarning, match="belongs to other data"):
        assert cached(tmp_path / "test", lambda: b"test") == b"test"
    assert cached(tmp_path / "train", lambda: b"never made") == b"train"


def test_another_version_of_the_tokenizers_library_has_a_cache_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = TokenizedCorpus(Made(0), 260, str(tmp_path)).folder
    monkeypatch.setattr("tokenizers.__version__", "0.0.1")
    assert TokenizedCorpus(Made(0), 260, str(tmp_path)).folder != before


def test_the_rows_of_a_record_are_cut_and_never_lengthened(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.metrics_file.write_bytes(b"one\ntwo\n")
    with record.rows(4) as file:
        file.write(b"new\n")
    assert record.metrics_file.read_bytes() == b"one\nnew\n"
    with (
        pytest.raises(RecordError, match=r"metrics\.jsonl has 8 bytes, fewer than the 9 at the checkpoint"),
        record.rows(9),
    ):
        pass
    assert record.metrics_file.read_bytes() == b"one\nnew\n"
