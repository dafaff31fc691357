"""Corpora of documents."""

import hashlib
import os
import sys
import sysconfig
import warnings
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tasks.data.files import DataFile, content_of, good_files, text_of
from tasks.data.hub import HubDataset
from tasks.data.source import DataError, OnBad, fingerprint, leave_out, listed, split_of
from tasks.data.tables import text_at


class Document(NamedTuple):
    """A text and its name, which decides the split."""

    name: str
    text: str


class StandardLibrary:
    """The source code of Python's standard library without its tests: real, long documents on every machine."""

    name = "stdlib"
    excluded = frozenset({"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "pydoc_data"})

    def __init__(self, root: str | None = None):
        self.root = Path(root or sysconfig.get_paths()["stdlib"])

    @cached_property
    def all_documents(self) -> list[Document]:
        files = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = set(folders) - self.excluded  # not walked into: site-packages may be large
            files += [Path(folder, name) for name in names if name.endswith(".py")]
        documents = []
        for file in sorted(files):
            if not file.name.startswith("_sysconfigdata"):
                text = file.read_bytes().decode("utf-8", errors="ignore")
                if text.strip():
                    documents.append(Document(file.relative_to(self.root).as_posix(), text))
        if not documents:
            raise DataError(f"data=stdlib: {self.root} has no source of Python {sys.version.split()[0]}'s library")
        return documents

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(part for document in self.all_documents for part in document)

    def documents(self, split: str) -> list[Document]:
        """The documents of a split, ordered by name."""
        return [document for document in self.all_documents if split_of(document.name) == split]


class TextFiles:
    """A user's own text files, one document per file.

    path: a file, or a folder, whose hidden files and folders are ignored. A file whose name or folder says train,
    validation or test belongs to that split, see files.split_named; for other files the hash of the name decides, so
    that splits do not change when files are added. Files may be compressed. on_bad: a file that is empty, not UTF-8, a
    copy of another, a table, or larger than the free memory is left out with a warning (skip) or stops the run (stop).
    Raises DataError.
    """

    name = "text"

    def __init__(self, path: str | None = None, on_bad: OnBad = "skip"):
        if not path:
            raise DataError("data=text reads your own files: set data.path=<folder or file>")
        self.path, self.on_bad = Path(path).expanduser(), on_bad
        if not self.path.exists():
            raise DataError(f"data.path={path} does not exist; it must be a text file or a folder of text files")
        self.root = self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def contents(self) -> dict[DataFile, str]:
        """The good files and the SHA-256 of the content of each. Only one file at a time is in memory."""
        found, bad = good_files(self.path, self.examine)
        if not found:
            raise DataError(f"data.path={self.path} has no good text file{': ' + listed(bad) if bad else ''}")
        leave_out(f"data.path={self.path}", bad, self.on_bad)
        unnamed = [file.name for file in found if not file.split]
        if 0 < len(unnamed) < len(found):
            warnings.warn(
                f"data.path={self.path}: a hash decides the split of {len(unnamed)} files, whose names say none, other "
                f"than those of the rest: {listed(unnamed)}",
                stacklevel=2,
            )
        return found

    @staticmethod
    def examine(file: DataFile) -> str:
        """The SHA-256 of a file's content. Raises DataError, a phrase, if it is no document."""
        if file.is_table:
            raise DataError("a table, which data=pg19 reads if it has a column called text")
        content = content_of(file.path)
        if not text_of(content).strip():
            raise DataError("empty")
        return hashlib.sha256(content).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        files = self.contents.items()
        return fingerprint(part for file, digest in files for part in (file.name, split_of_file(file), digest))

    def documents(self, split: str) -> list[Document]:
        """The documents of a split, ordered by name. Raises DataError if the split has no file."""
        files = [file for file in self.contents if split_of_file(file) == split]
        if not files:
            raise DataError(
                f"data.path={self.path} has {len(self.contents)} good files, none of them in the {split} split (by the "
                "hash of its name, one in ten is in test, one in twenty in validation): add files, or put some into "
                f"the folder {self.root / split}"
            )
        return [Document(file.name, text_of(content_of(file.path))) for file in files]


def split_of_file(file: DataFile) -> str:
    """The split that a text file's path says, or that the hash of its name decides."""
    return file.split or split_of(file.name)


class HubText:
    """A text corpus of the Hugging Face hub, one document per row.

    files: patterns of the repository's files to read; see HubDataset. on_bad: a row with an empty text is left out with
    a warning (skip) or stops the run (stop). Raises DataError for such a row (stop), if no row remains, and if the
    column holds something else than texts.
    """

    def __init__(
        self,
        identifier: str,
        column: str,
        cache: str,
        configuration: str | None = None,
        revision: str | None = None,
        path: str | None = None,
        on_bad: OnBad = "skip",
        files: list[str] | None = None,
    ):
        self.name = identifier
        self.column, self.on_bad = column, on_bad
        self.dataset = HubDataset(identifier, [column], cache, configuration, revision, path, files or ())
        self.dataset.check()

    @cached_property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def documents(self, split: str) -> list[Document]:
        """The non-empty documents of a split, in the order of the data set."""
        rows = self.dataset.disjoint_rows(split)
        texts = [text_at(rows, self.column, index) for index in range(len(rows.places))]
        bad = [f"{place} has an empty {self.column}" for place, text in zip(rows.places, texts) if not text.strip()]
        self.dataset.leave_out(split, bad, len(texts), self.on_bad)
        return [Document(f"{split}/{index}", text) for index, text in enumerate(texts) if text.strip()]
