"""Sources and their docstrings: what is read of installed packages, and what is left out and counted."""

from pathlib import Path

import pytest

from tasks.data.documented_code import DocumentedCode, pairs_in
from tasks.data.source import DataError

BODY = "\n".join(f"    value_{n} = {n} + other_{n}" for n in range(12))
PACKAGES = {"train": ["first_library"], "validation": ["second_library"], "test": ["third_library"]}


def function(name: str, docstring: str, body: str = BODY) -> str:
    return f'def {name}(x):\n    """{docstring}"""\n{body}\n    return x\n'


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three packages that end the program when they are imported."""
    for split, package in enumerate(name for names in PACKAGES.values() for name in names):
        (tmp_path / package / "tests").mkdir(parents=True)
        own = BODY.replace("value", f"value{split}").replace("other", f"other{split}")
        text = function("scale", f"Scale the rows of table {split} to unit length.\n\n    More.", own)
        (tmp_path / package / "__init__.py").write_text(f"raise SystemExit\n{text}")
        (tmp_path / package / "tests" / "test_scale.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def code(tmp_path: Path, packages: dict[str, list[str]] = PACKAGES, **settings: float) -> DocumentedCode:
    known = {"shortest": 20, "longest": 400, "shortest_summary": 3, "longest_summary": 12, "alike": 0.5}
    return DocumentedCode(packages, cache=str(tmp_path / "cache"), **(known | settings))  # type: ignore[arg-type]


def test_the_docstring_is_the_summary_and_is_taken_out_of_the_source(packages: Path) -> None:
    (pair,) = code(packages).pairs("train")
    assert pair.summary == "Scale the rows of table 0 to unit length."
    assert "Scale" not in pair.document and "More" not in pair.document
    assert pair.document.startswith("def scale(x):") and pair.document.endswith("return x")


@pytest.mark.parametrize("kind", ["module", "class", "function", "async", "one line"])
def test_every_documented_thing_is_a_source(kind: str, tmp_path: Path) -> None:
    texts = {
        "module": '"""Sums of the rows."""\nx = 1\n',
        "class": 'class Sums:\n    """Sums of the rows."""\n    x = 1\n',
        "function": 'def sums():\n    """Sums of\n    the rows.\n    """\n    x = 1\n',
        "async": 'async def sums():\n    """Sums of the rows."""\n    x = 1\n',
        "one line": 'y = 2\ndef sums():\n    "Sums of the rows."\n    x = 1\n',
    }
    (tmp_path / "it.py").write_text(texts[kind])
    (pair,) = pairs_in("it.py", tmp_path / "it.py")
    assert pair.summary == "Sums of the rows." and "Sums of" not in pair.document and "x = 1" in pair.document
    assert "y = 2" not in pair.document


LEFT_OUT = {
    "near-copies of training documents": function("scale", "Scale the rows of table 0 to unit length."),
    "docstrings that are not in English": function("largeur", "Calcule la largeur de chaque rang du tableau."),
    "short or long docstrings": function("short", "Short."),
    "short or long sources": function("tiny", "Return the argument as it is.", "    pass"),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_is_left_out_is_counted_by_reason(reason: str, packages: Path) -> None:
    text = LEFT_OUT[reason].replace("value", "value0").replace("other", "other0").replace("= 11", "= 12")
    (packages / "third_library" / "more.py").write_text(text)
    source = code(packages)
    with pytest.warns(UserWarning, match=f"data=code, test: left out of 2 sources: {reason}: 1$"):
        pairs = source.pairs("test")
    assert [pair.name for pair in pairs] == ["third_library/__init__.py:2:scale"]


def test_a_copy_within_a_split_is_read_once(packages: Path) -> None:
    text = (packages / "first_library" / "__init__.py").read_text()
    (packages / "first_library" / "again.py").write_text(text)
    with pytest.warns(UserWarning, match="copies: 1$"):
        assert len(code(packages).pairs("train")) == 1


def test_a_package_without_sources_is_named(packages: Path) -> None:
    (packages / "compiled").mkdir()
    (packages / "compiled" / "__init__.pyc").write_bytes(b"no source")
    for missing in ("not_installed_at_all", "compiled"):
        with pytest.warns(UserWarning, match=f"no sources of {missing} are installed; it is left out"):
            assert code(packages, PACKAGES | {"train": ["first_library", missing]}).pairs("train")
        with pytest.warns(UserWarning), pytest.raises(DataError, match=f"train: none of {missing} is installed"):
            code(packages, PACKAGES | {"train": [missing]}).pairs("train")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": ["third_library"]}, "each package in one of them"),
        ({"train": ["first_library", "first_library"]}, "each package in one of them"),
        ({"train": ["os.path"]}, "os.path must be the name of a whole package"),
        ({"training": ["rich"]}, "must have train, validation, test"),
    ],
)
def test_packages_that_cannot_be_meant_are_refused(wrong: dict[str, list[str]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        code(tmp_path, PACKAGES | wrong)


def test_another_source_is_another_fingerprint(packages: Path) -> None:
    before = code(packages).fingerprint
    assert before == code(packages).fingerprint != code(packages, alike=0.4).fingerprint
    (packages / "third_library" / "more.py").write_text("x = 1\n")
    assert code(packages).fingerprint != before
