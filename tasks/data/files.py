"""Files of a user's own data: which of a folder's files count, which split they name, and what is in them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from tasks.data.source import DataError

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "tests", "testing", "eval", "evaluation"), "test"),
}
TABLES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".arrow")  # whose rows are documents; see tables.py
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
SETTINGS = {"dataset_dict.json", "dataset_info.json", "state.json"}  # beside the rows that save_to_disk writes


class DataFile(NamedTuple):
    """A file, its path relative to the data's folder, and the split that this path names, if any."""

    path: Path
    name: str
    split: str | None

    @property
    def kind(self) -> str:
        """The ending without that of a compression, such as .jsonl."""
        return Path(uncompressed(self.name)).suffix.lower()

    @property
    def is_table(self) -> bool:
        return self.kind in TABLES


def uncompressed(name: str) -> str:
    """A file's name without the ending of a compression."""
    path = Path(name)
    return str(path.with_suffix("")) if path.suffix.lower() in COMPRESSED else name


def files_in(root: Path) -> tuple[list[DataFile], list[str]]:
    """The files of a folder, or a single file, in the order of their names, and what is left out, by phrase.

    Hidden files and folders do not count, nor do the settings that `save_to_disk` writes.
    """
    found, left_out = [], []
    folder = root if root.is_dir() else root.parent
    for path in walk(root) if root.is_dir() else [root]:
        name = path.relative_to(folder).as_posix()
        if not is_utf8(name):
            left_out.append(f"{name!a} has a name that is not UTF-8")
        elif path.is_dir():
            left_out.append(f"{name} is a link to a folder, which is not followed")
        elif not path.is_file():
            left_out.append(f"{name} is no file, or a link to nothing")
        elif path.suffix == ".arrow" and path.name.startswith(("cache-", "tmp")):
            left_out.append(f"{name} is a temporary file of the datasets library")
        elif path.name not in SETTINGS:
            try:
                found.append(DataFile(path, name, split_named(name)))
            except DataError as error:
                left_out.append(str(error))
    return found, left_out


def good_files(root: Path, examine: Callable[[DataFile], str]) -> tuple[dict[DataFile, str], list[str]]:
    """The files of a folder that `examine` accepts, with the digests that it returns, and what is left out, by phrase.

    Of files with one digest, the first counts. examine: raises DataError, a phrase, for a file that is no data.
    """
    files, left_out = files_in(root)
    found: dict[DataFile, str] = {}
    names: dict[str, str] = {}
    for file in files:
        try:
            digest = examine(file)
            if digest in names:
                raise DataError(f"a copy of another file, {names[digest]}")
            found[file], names[digest] = digest, file.name
        except DataError as error:
            left_out.append(f"{file.name} is {error}")
    return found, left_out


def walk(root: Path) -> list[Path]:
    """The files under a folder and the links to folders, in order, without what is hidden."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found += [Path(folder, name) for name in [*names, *links] if not name.startswith(".")]
    return sorted(found)


def is_utf8(name: str) -> bool:
    """Whether the bytes of a file's name are UTF-8; Python keeps others as halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def split_named(name: str) -> str | None:
    """The split that a relative path names: train, validation or test; None if it names none.

    Parts that say nothing but a split, such as `val/` or `Test-00000-of-00001.csv`, go before those that say it among
    other words, such as `my_test_set/`, and of those the file goes before its folders. What is not a letter separates
    words. Raises DataError if two splits are said.
    """
    path = Path(uncompressed(name))
    stem = path if path.suffix[1:].lower() in SPLIT_WORDS else path.with_suffix("")
    parts = [
        [word for word in re.split(r"(?:(?<=\d)-of-(?=\d)|[\W\d_])+", part.lower()) if word]
        for part in reversed(stem.parts)
    ]
    alone = {SPLIT_WORDS[part[0]] for part in parts if len(part) == 1 and part[0] in SPLIT_WORDS}
    among = ({SPLIT_WORDS[word] for word in part if word in SPLIT_WORDS} for part in parts)
    said = alone or next(filter(None, among), set())
    if len(said) > 1:
        raise DataError(f"{name} says both {' and '.join(sorted(said))}: move it to a folder of its split")
    return next(iter(said), None)


def content_of(file: Path) -> bytes:
    """The bytes of a file, decompressed if it is compressed. Raises DataError, a phrase that says what the file is."""
    import pyarrow

    size = file.stat().st_size
    if size > psutil.virtual_memory().available:
        raise DataError(f"larger than the free memory ({size / 2**30:.1f} GiB)")
    try:
        with pyarrow.input_stream(str(file), compression="detect") as stream:
            return stream.read()
    except OSError as error:
        raise DataError(f"unreadable ({str(error).splitlines()[0]})") from error


def text_of(content: bytes) -> str:
    """The text that UTF-8 bytes encode, without a byte order mark. Raises DataError, a phrase."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start})") from error
    if "\0" in text:
        raise DataError(f"not text (character {text.index(chr(0))} is NUL)")
    return text
