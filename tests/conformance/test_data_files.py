"""What holds for files of a user's own: each is read rightly, or refused or left out in one line that names it."""

import bz2
import gzip
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest

from tasks.data.files import split_named
from tasks.data.pairs import HubPairs
from tasks.data.source import SPLITS, DataError
from tasks.data.text import HubText, TextFiles

NAMES = {  # relative path: the split it names
    "test/a.txt": "test",
    "Test/a.txt": "test",
    "TESTING/a.txt": "test",
    "tests/a.txt": "test",
    "eval/a.txt": "test",
    "books/test/a.txt": "test",
    "books/test-set/poems/a.txt": "test",
    "val/a.txt": "validation",
    "Valid/a.txt": "validation",
    "dev/a.txt": "validation",
    "wiki.valid.tokens": "validation",
    "corpus.test": "test",
    "TEST.TXT": "test",
    "test.txt.gz": "test",
    "training/a.txt": "train",
    "train-00000-of-00002.txt": "train",
    "test_data/train.txt": "train",
    "train/a-test-of-faith.txt": "train",
    "my_train_part3.txt": "train",
    "latest/extracts/interval.txt": None,
    "protest/contestant.txt": None,
    "prétest/détrain.txt": None,
    "of/a.txt": None,
}
TWO = ["train-test.txt", "train/test.txt", "val/train-00000-of-00001.txt"]


@pytest.mark.parametrize("name", NAMES)
def test_a_split_is_named_by_words_in_whatever_case_and_place(name: str) -> None:
    assert split_named(name) == NAMES[name]


@pytest.mark.parametrize("name", TWO)
def test_a_name_of_two_splits_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="says both"):
        split_named(name)


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def hub_text(root: Path) -> HubText:
    return HubText("some/books", "text", str(root.parent / "cache"), path=str(root))


def documents(source: Any) -> dict[str, list[str]]:
    return {split: [document.text for document in source.documents(split)] for split in SPLITS}


@pytest.mark.parametrize("reader", ["text", "hub"])
@pytest.mark.parametrize("name", [name for name in NAMES if NAMES[name] in ("validation", "test")])
def test_both_readers_put_a_file_into_the_split_that_it_names(name: str, reader: str, tmp_path: Path) -> None:
    others = {split: f"{split}/other.txt" for split in SPLITS}
    names = [name, *others.values()]
    if reader == "hub":
        stems = [each.removesuffix(".gz").removesuffix(".TXT").removesuffix(".txt") for each in names]
        names = [f"{stem}.jsonl" for stem in stems]
    texts = {each: f"The text of {each}." for each in names}
    lines = {each: text if reader == "text" else json.dumps({"text": text}) for each, text in texts.items()}
    content = {
        each: gzip.compress(line.encode()) if each.endswith(".gz") else line.encode() for each, line in lines.items()
    }
    root = put(tmp_path / "data", content)
    found = documents(TextFiles(str(root)) if reader == "text" else hub_text(root))
    holding = [split for split in SPLITS if texts[names[0]] in found[split]]
    assert holding == [NAMES[name]] and sum(map(len, found.values())) == 4


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    datasets.Dataset.from_list(rows).to_parquet(buffer)
    return buffer.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def csv(rows: list[dict[str, Any]]) -> bytes:
    quoted = [[f'"{str(value).replace(chr(34), 2 * chr(34))}"' for value in row.values()] for row in rows]
    return "\n".join([",".join(rows[0]), *map(",".join, quoted)]).encode()


def zst(content: bytes) -> bytes:
    buffer = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(content)
    return buffer.getvalue().to_pybytes()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    ".parquet": parquet,
    ".jsonl": lines,
    ".ndjson": lines,
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".csv": csv,
    ".CSV": csv,
    ".jsonl.gz": lambda rows: gzip.compress(lines(rows[:1])) + gzip.compress(b"\n" + lines(rows[1:])),
    ".csv.bz2": lambda rows: bz2.compress(csv(rows)),
    ".jsonl.zst": lambda rows: zst(lines(rows)),
    ".bom.csv": lambda rows: b"\xef\xbb\xbf" + csv(rows),
}
WORDS = ["NA", "null", "nan", "None", "12", "1e5", 'He said: "Hello, you."', "two\nlines", "a\u2028b", "long " * 50_000]


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_every_text_as_it_was_written(ending: str, tmp_path: Path) -> None:
    rows = {split: [{"text": f"{split} opens"}, *({"text": word} for word in WORDS)] for split in SPLITS}
    files = {f"{split}{ending}": WRITERS[ending](rows[split]) for split in SPLITS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = documents(hub_text(put(tmp_path / "data", files)))
    assert found == {split: [row["text"] for row in rows[split]] for split in SPLITS}


def test_a_folder_of_save_to_disk_is_read_without_its_saved_state(tmp_path: Path) -> None:
    parts = {split: datasets.Dataset.from_dict({"text": [f"{split} {n}" for n in range(3)]}) for split in SPLITS}
    datasets.DatasetDict({split: part.with_format("numpy") for split, part in parts.items()}).save_to_disk(
        tmp_path / "data"
    )
    (tmp_path / "data" / "train" / "cache-0a1b.arrow").write_bytes(b"of an earlier map")
    with pytest.warns(UserWarning, match=r"train/cache-0a1b\.arrow is a temporary file"):
        found = documents(hub_text(tmp_path / "data"))
    assert found == {split: [f"{split} {n}" for n in range(3)] for split in SPLITS}
    parts["train"].save_to_disk(tmp_path / "one")
    with pytest.raises(DataError, match=r"data-00000-of-00001\.arrow is in no split"):
        hub_text(tmp_path / "one")


ROW = {"text": "A text."}
BAD_TABLES: dict[str, tuple[dict[str, bytes], str]] = {  # files beside train.jsonl, and what is said of them
    "latin-1": ({"test.jsonl": '{"text": "café"}'.encode("latin-1")}, r"test\.jsonl is not UTF-8 text \(byte 13\)"),
    "utf-16": ({"test.csv": csv([ROW]).decode().encode("utf-16-le")}, r"test\.csv is not text \(character 1 is NUL\)"),
    "cut jsonl": ({"test.jsonl": lines([ROW] * 3)[:-5]}, r"test\.jsonl is damaged: line 3 is not JSON"),
    "cut json": ({"test.json": b'[{"text": "A"}, {"te'}, r"test\.json is damaged: line 1 is not JSON"),
    "cut gz": ({"test.jsonl.gz": gzip.compress(lines([ROW]))[:-9]}, r"test\.jsonl\.gz is unreadable"),
    "no gz": ({"test.jsonl.gz": lines([ROW])}, r"test\.jsonl\.gz is unreadable"),
    "cut parquet": ({"test.parquet": parquet([ROW])[:-20]}, r"test\.parquet is damaged"),
    "cut csv": ({"test.csv": b'text\n"A text'}, r"test\.csv is damaged: the row at line 2 is not CSV"),
    "ragged csv": ({"test.csv": b"text,n\na,1\nb,2,3"}, r"test\.csv is damaged: line 3 has 3 values for 2 columns"),
    "two columns": ({"test.csv": b"text,text\na,b"}, r"test\.csv is ambiguous: it has two columns of the same name"),
    "empty": ({"test.jsonl": b""}, r"test\.jsonl is empty"),
    "header": ({"test.csv": b"text\n"}, r"test\.csv is empty"),
    "semicolons": ({"test.csv": b"text;n\na;1"}, r"test\.csv lacks the column text; it has text;n"),
    "no row": ({"test.parquet": parquet([ROW, ROW])[:0]}, r"test\.parquet is damaged"),
    "not rows": ({"test.jsonl": b'["A text."]'}, r"test\.jsonl is no table: row 0|line 1 is not a row"),
    "list of texts": ({"test.json": b'["A text."]'}, r"test\.json is no table: row 0"),
    "numbers": ({"test.jsonl": lines([ROW, {"text": 12}])}, r"test\.jsonl, line 2: the column text has 12 \(int\)"),
    "floats": ({"test.parquet": parquet([{"text": 1.5}])}, r"test\.parquet, row 0: the column text has 1\.5 \(float\)"),
    "lists": ({"test.jsonl": lines([{"text": ["A", "B"]}])}, r"test\.jsonl, line 1: the column text has \['A', 'B'\]"),
    "columns": ({"test.json": b'{"text": ["A", "B"]}'}, r"test\.json, line 1: the column text has \['A', 'B'\]"),
    "surrogate": ({"test.jsonl": b'{"text": "\\ud800"}'}, r"test\.jsonl, line 1: the column text has half a character"),
    "all null": (
        {"test.jsonl": lines([{"text": None}] * 2)},
        r"has 2 rows, all of them bad: .*test\.jsonl, line 1 has",
    ),
    "formats": (
        {"test.jsonl": lines([ROW]), "test.csv": csv([ROW])},
        r"test split .* is in \.csv and in \.jsonl files",
    ),
    "twice": (
        {"test.csv": csv([ROW]), "test.csv.gz": gzip.compress(csv([ROW]))},
        r"test split .* is in \.csv and in \.csv\.gz files",
    ),
    "two writings": (
        {"test-00000-of-00001.csv": csv([ROW]), "test-00001-of-00002.csv": csv([{"text": "B"}])},
        r"test split .* has files test-\*\.csv of 1 and of 2 shards",
    ),
    "copy": (
        {"test.jsonl": lines([{"text": "A train text."}])},
        r"train\.jsonl is a copy of another file, test\.jsonl",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_is_wrong_is_refused_by_name_and_place(case: str, tmp_path: Path) -> None:
    files, message = BAD_TABLES[case]
    root = put(tmp_path / "data", {"train.jsonl": lines([{"text": "A train text."}])} | files)
    with warnings.catch_warnings(), pytest.raises(DataError, match=message) as caught:
        warnings.simplefilter("ignore")
        hub_text(root).documents("test")
    assert "\n" not in str(caught.value)


LEFT_OUT: dict[str, tuple[str, bytes, str]] = {  # reader, a file, and what is said of it
    "README.md": ("hub", b"About the books.", "not one of .parquet"),
    "rows.jsonl": ("hub", lines([{"text": "Of no split."}]), "in no split"),
    "test.xlsx": ("hub", b"PK", "not one of .parquet"),
    "train/copy.jsonl": ("hub", lines([{"text": "train"}]), "a copy of another file"),
    "train-test.jsonl": ("hub", lines([{"text": "Of two splits."}]), "says both test and train"),
    "test/blank.txt": ("text", b" \n", "empty"),
    "test/latin.txt": ("text", "café".encode("latin-1"), r"not UTF-8 text \(byte 3\)"),
    "test/utf16.txt": ("text", "abc".encode("utf-16-le"), r"not text \(character 1 is NUL\)"),
    "test/cut.txt.gz": ("text", gzip.compress(b"abc")[:-9], "unreadable"),
    "train/zcopy.txt.gz": ("text", gzip.compress(b"train"), "a copy of another file"),
    "test/rows.jsonl": ("text", lines([{"text": "A row."}]), "a table"),
    "test/caf\udce9.txt": ("text", b"Under a name in Latin-1.", "a name that is not UTF-8"),
    "a-train-test.txt": ("text", b"Of two splits.", "says both test and train"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_both_readers_leave_out_is_named(name: str, tmp_path: Path) -> None:
    reader, content, message = LEFT_OUT[name]
    ending = {"hub": "jsonl", "text": "txt"}[reader]
    good = {f"{split}/{split}.{ending}": split for split in SPLITS}
    files = {each: text.encode() if reader == "text" else lines([{"text": text}]) for each, text in good.items()}
    root = put(tmp_path / "data", files | {name: content})
    with pytest.warns(UserWarning, match=message) as said:
        found = documents(TextFiles(str(root)) if reader == "text" else hub_text(root))
    assert found == {split: [split] for split in SPLITS} and len(said) == 1


def test_links_to_folders_and_files_that_name_no_split_are_named(tmp_path: Path) -> None:
    root = put(tmp_path / "data", {"train/a.txt": b"a", "other.txt": b"b", "more/b.txt": b"c"})
    (root / "test").symlink_to(put(tmp_path / "elsewhere", {"a.txt": b"d"}))
    (root / "gone.txt").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning) as said:
        TextFiles(str(root)).contents  # noqa: B018
    left_out, by_hash = (str(warning.message) for warning in said)
    assert "gone.txt is no file, or a link to nothing" in left_out and "test is a link to a folder" in left_out
    assert "a hash decides the split of 2 files" in by_hash and "more/b.txt; other.txt" in by_hash


PAIRS: dict[str, tuple[dict[str, Any], str]] = {  # a row, and its summary or what is said
    "text": ({"text": "Long.", "summary": "Short."}, "Short."),
    "list": ({"text": "Long.", "summary": [{"source": "a", "text": "Short."}, {"text": "Other."}]}, "Short."),
    "list of texts": ({"text": "Long.", "summary": ["Short.", "Other."]}, r"line 1: the column summary has \['Short"),
    "number": ({"text": "Long.", "summary": 3}, r"line 1: the column summary has 3 \(int\)"),
    "list in a list": ({"text": "Long.", "summary": [{"text": [1]}]}, r"line 1: the column summary has \[1\]"),
    "document of parts": ({"text": ["One.", "Two."], "summary": "Short."}, r"line 1: the column text has \['One"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_pair_is_two_texts_or_refused(case: str, tmp_path: Path) -> None:
    row, expected = PAIRS[case]
    rows = {split: lines([row | {"split": split}]) for split in SPLITS}
    root = put(tmp_path / "data", {f"{split}.jsonl": content for split, content in rows.items()})
    source = HubPairs("some/pairs", "text", "summary", str(tmp_path / "cache"), path=str(root))
    if "line" in expected:
        with pytest.raises(DataError, match=expected):
            source.pairs("test")
    else:
        assert [(pair.document, pair.summary) for pair in source.pairs("test")] == [("Long.", expected)]


@pytest.mark.parametrize("kind", ["hub", "text"])
def test_a_file_that_changed_at_the_same_time_and_size_is_read_anew(kind: str, tmp_path: Path) -> None:
    def contents(word: str) -> dict[str, bytes]:
        rows = {split: f"{word} {split}" for split in SPLITS}
        return {
            f"{split}.{'jsonl' if kind == 'hub' else 'txt'}": lines([{"text": row}]) if kind == "hub" else row.encode()
            for split, row in rows.items()
        }

    def read() -> tuple[str, dict[str, list[str]]]:
        source = hub_text(root) if kind == "hub" else TextFiles(str(root))
        return source.fingerprint, documents(source)

    root = put(tmp_path / "data", contents("one"))
    times = {file: file.stat().st_mtime_ns for file in root.iterdir()}
    first = read()
    put(root, contents("two"))
    for file, time in times.items():
        os.utime(file, ns=(time, time))
    second = read()
    assert first[0] != second[0] and second[1] == {split: [f"two {split}"] for split in SPLITS}
