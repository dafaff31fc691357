"""Documents with summaries."""

import ast
import importlib.util
import json
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data.hub import HubDataset
from tasks.data.source import DataError, OnBad, cached, fingerprint, split_of
from tasks.data.tables import checked_text, text_at


class Pair(NamedTuple):
    """A document, its reference summary, and its name, which decides the split."""

    name: str
    document: str
    summary: str


class Docstrings:
    """The docstrings of numpy, scipy and scikit-learn; the first line is the summary of the text after it."""

    name = "docstrings"
    packages = ("numpy", "scipy", "sklearn")
    shortest_document = 40  # words

    def __init__(self, cache: str):
        self.cache = Path(cache) / "docstrings"

    @cached_property
    def all_pairs(self) -> list[Pair]:
        """All pairs, cached because parsing the packages' sources takes ten seconds and a gigabyte."""
        key = fingerprint([Path(__file__).read_text(), *(version(name) for name in ("numpy", "scipy", "scikit-learn"))])
        content = cached(self.cache / key, lambda: json.dumps(self.parse()).encode())
        return [Pair(*row) for row in json.loads(content)]

    def parse(self) -> list[Pair]:
        """The pairs in the packages' sources."""
        pairs: dict[str, Pair] = {}
        for package in self.packages:
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                raise DataError(f"data=docstrings needs {', '.join(self.packages)}, and {package} is not installed")
            root = Path(spec.submodule_search_locations[0])
            for file in sorted(root.rglob("*.py")):
                if "tests" not in file.parts:
                    name = f"{package}/{file.relative_to(root).as_posix()}"
                    for pair in self.read(name, file.read_text(encoding="utf-8")):
                        pairs.setdefault(pair.document, pair)  # the same docstring often occurs twice
        return list(pairs.values())

    def read(self, module: str, source: str) -> list[Pair]:
        """The pairs in the source of a module, which is not imported."""
        found = []
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                summary, _, document = (ast.get_docstring(node) or "").partition("\n\n")
                summary, document = " ".join(summary.split()), document.strip()
                if summary and len(document.split()) >= self.shortest_document:
                    found.append(Pair(f"{module}:{node.name}", document, summary))
        return found

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(part for pair in self.all_pairs for part in pair)

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split; all pairs of a module are in the same split."""
        return [pair for pair in self.all_pairs if split_of(pair.name.split(":")[0]) == split]


class HubPairs:
    """Documents and summaries of the hub. A summary is a text or, as in BookSum, a list of {source, text}.

    on_bad: a row with an empty document or summary is left out with a warning (skip) or stops the run (stop).
    Raises DataError for such a row (stop), if no good rows remain, and if a column holds something else.
    """

    def __init__(
        self,
        identifier: str,
        document_column: str,
        summary_column: str,
        cache: str,
        configuration: str | None = None,
        revision: str | None = None,
        path: str | None = None,
        on_bad: OnBad = "skip",
    ):
        self.name = identifier
        self.document_column, self.summary_column, self.on_bad = document_column, summary_column, on_bad
        columns = [document_column, summary_column]
        self.dataset = HubDataset(identifier, columns, cache, configuration, revision, path)
        self.dataset.check()

    @cached_property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split that have both a document and a summary."""
        rows = self.dataset.disjoint_rows(split)
        pairs, bad = [], []
        for index, place in enumerate(rows.places):
            document = text_at(rows, self.document_column, index)
            summary = first_text(rows.columns[self.summary_column][index], self.summary_column, place)
            texts = {self.document_column: document, self.summary_column: summary}
            empty = [column for column, text in texts.items() if not text.strip()]
            if empty:
                bad.append(f"{place} has an empty {' and '.join(empty)}")
            else:
                pairs.append(Pair(f"{split}/{index}", document, summary))
        self.dataset.leave_out(split, bad, len(rows.places), self.on_bad)
        return pairs


def first_text(summary: Any, column: str, place: str) -> str:
    """A summary, or the text of the first of a list of {source, text}; "" if there is none. Raises DataError."""
    if isinstance(summary, list) and all(isinstance(one, dict) for one in summary):
        summary = summary[0].get("text") if summary else None
    return checked_text(summary, column, place)
