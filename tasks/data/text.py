"""Corpora of documents."""

import hashlib
import os
import sys
import sysconfig
import warnings
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from tasks.data.hub import HubDataset
from tasks.data.source import SPLITS, DataError, fingerprint, split_of


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

    path: a file, or a folder, whose hidden files and folders are ignored. A file in a subfolder called train,
    validation or test belongs to that split; for other files the hash of the name decides, so that splits do not change
    when files are added. on_bad: a file that is empty, not UTF-8, a copy of another or larger than the free memory is
    excluded with a warning (skip) or stops the run (stop). Raises DataError.
    """

    name = "text"

    def __init__(self, path: str | None = None, on_bad: Literal["skip", "stop"] = "skip"):
        if not path:
            raise DataError("data=text reads your own files: set data.path=<folder or file>")
        self.path, self.on_bad = Path(path).expanduser(), on_bad
        if not self.path.exists():
            raise DataError(f"data.path={path} does not exist; it must be a text file or a folder of text files")
        self.root = self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def contents(self) -> dict[str, str]:
        """The name and the SHA-256 of every good file. Only one file at a time is in memory."""
        found: dict[str, str] = {}
        seen: set[str] = set()
        bad: list[str] = []
        for file in sorted(self.root.rglob("*")) if self.path.is_dir() else [self.path]:
            name = file.relative_to(self.root)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                problem, digest = self.examine(file)
                problem = problem or ("a copy of another file" if digest in seen else "")
                if problem:
                    bad.append(f"{name} is {problem}")
                else:
                    found[name.as_posix()] = digest
                    seen.add(digest)
        if bad and self.on_bad == "stop":
            raise DataError(f"data.path={self.path}: {bad[0]}; fix or remove it, or set data.on_bad=skip to exclude it")
        if not found:
            raise DataError(f"data.path={self.path} has no good text file{': ' + '; '.join(bad[:3]) if bad else ''}")
        if bad:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            warnings.warn(f"excluded from data.path={self.path}: {'; '.join(bad[:5])}{more}", stacklevel=2)
        return found

    @staticmethod
    def examine(file: Path) -> tuple[str, str]:
        """The problem with a file ("" if there is none), and the SHA-256 of its bytes."""
        if file.stat().st_size > psutil.virtual_memory().available:
            return f"larger than the free memory ({file.stat().st_size / 2**30:.1f} GiB)", ""
        content = file.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            return f"not UTF-8 text (byte {error.start})", ""
        return "" if text.strip() else "empty", hashlib.sha256(content).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(part for file in self.contents.items() for part in file)

    def split(self, name: str) -> str:
        """The split of the file with this relative path."""
        folder = Path(name).parts[0]
        return folder if folder in SPLITS else split_of(name)

    def documents(self, split: str) -> list[Document]:
        """The documents of a split, ordered by name. Raises DataError if the split has no file."""
        names = [name for name in self.contents if self.split(name) == split]
        if not names:
            raise DataError(
                f"data.path={self.path} has {len(self.contents)} good files, none of them in the {split} split (by the "
                "hash of its name, one in ten is in test, one in twenty in validation): add files, or put some into "
                f"the folder {self.root / split}"
            )
        return [Document(name, (self.root / name).read_bytes().decode("utf-8")) for name in names]


class HubText:
    """A text corpus of the Hugging Face hub, one document per row."""

    def __init__(
        self,
        identifier: str,
        column: str,
        cache: str,
        configuration: str | None = None,
        revision: str | None = None,
        path: str | None = None,
    ):
        self.name = identifier
        self.column = column
        self.dataset = HubDataset(identifier, [column], cache, configuration, revision, path)
        self.dataset.check()

    @cached_property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def documents(self, split: str) -> list[Document]:
        """The non-empty documents of a split, in the order of the data set."""
        rows = self.dataset.disjoint_rows(split)[self.column]
        return [Document(f"{split}/{index}", text) for index, text in enumerate(rows) if text and text.strip()]
