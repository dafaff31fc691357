"""Corpora of documents."""

import sys
import sysconfig
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tasks.data.hub import HubDataset
from tasks.data.source import DataError, fingerprint, split_of


class Document(NamedTuple):
    """A text and the name that decides its split."""

    name: str
    text: str


class StandardLibrary:
    """The source of Python's standard library without its tests: real, long documents on every machine."""

    name = "stdlib"
    excluded = frozenset({"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "pydoc_data"})

    def __init__(self, root: str | None = None):
        self.root = Path(root or sysconfig.get_paths()["stdlib"])

    @cached_property
    def all_documents(self) -> list[Document]:
        documents = []
        for file in sorted(self.root.rglob("*.py")):
            name = file.relative_to(self.root)
            if not self.excluded.intersection(name.parts) and not name.name.startswith("_sysconfigdata"):
                text = file.read_bytes().decode("utf-8", errors="ignore")
                if text.strip():
                    documents.append(Document(name.as_posix(), text))
        if not documents:
            raise DataError(f"no source of the standard library of Python {sys.version.split()[0]} in {self.root}")
        return documents

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(part for document in self.all_documents for part in document)

    def documents(self, split: str) -> list[Document]:
        """The documents of a split, ordered by name."""
        return [document for document in self.all_documents if split_of(document.name) == split]


class HubText:
    """A text corpus of the hub, one document a row."""

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
        rows = self.dataset.rows(split)[self.column]
        return [Document(f"{split}/{index}", text) for index, text in enumerate(rows) if text and text.strip()]
