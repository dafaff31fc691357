"""Source code and the docstrings that were written for it: long documents and summaries by people, on every machine."""

import ast
import hashlib
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import PositiveInt

from tasks.data.pairs import Pair
from tasks.data.source import SPLITS, DataError, cached, fingerprint
from tasks.ranges import Share

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

EXCLUDED = {"tests", "test", "testing", "conftest.py", "_vendor", "vendor", "idlelib", "lib2to3", "site-packages"}
ENGLISH = {"the", "a", "an", "of", "to", "and", "is", "for", "in", "with", "this", "from", "that", "by", "as", "or"}
SHINGLE = 8  # words in a row, by which copies are found


class DocumentedCode:
    """Modules, classes and functions of installed packages; the summary is the first paragraph of the docstring, which
    is taken out of the source.

    packages: by split, the packages whose sources are read; a package is in one split only, and none is imported.
    shortest, longest: words of a source. shortest_summary, longest_summary: words of a summary. alike: a pair of the
    validation or test split is a near-copy, and left out, if more than this share of its runs of 8 words stands in the
    training split. What is left out is counted in a warning. Raises DataError if a package is named twice or is no
    top-level name, or if a split has no package with sources.
    """

    name = "code"

    def __init__(
        self,
        packages: dict[str, list[str]],
        shortest: PositiveInt,
        longest: PositiveInt,
        shortest_summary: PositiveInt,
        longest_summary: PositiveInt,
        alike: Share,
        cache: str,
    ):
        named = [package for split in SPLITS for package in packages.get(split, [])]
        if packages.keys() != {*SPLITS} or len(named) != len({*named}):
            raise DataError(f"data.packages must have {', '.join(SPLITS)}, and each package in one of them")
        if dotted := [package for package in named if not package.isidentifier()]:  # its parent would be imported
            raise DataError(f"data.packages: {dotted[0]} must be the name of a whole package, such as numpy")
        self.packages, self.alike, self.cache = packages, alike, Path(cache) / "code"
        self.lengths = range(shortest, longest + 1), range(shortest_summary, longest_summary + 1)

    @cached_property
    def files(self) -> dict[str, list[tuple[str, Path]]]:
        """The source files of each split, with their names. Packages without sources are named in a warning."""
        found = {split: [each for package in self.packages[split] for each in sources_of(package)] for split in SPLITS}
        for split, files in found.items():
            if not files:
                raise DataError(f"data.packages.{split}: none of {', '.join(self.packages[split])} is installed")
        return found

    @cached_property
    def fingerprint(self) -> str:
        """That of this file, the settings and all sources, which are only read if one of them has changed."""
        own: list[str | bytes] = [Path(__file__).read_bytes(), repr((self.packages, self.lengths, self.alike))]
        files = [each for split in SPLITS for each in self.files[split]]
        stamps = [(name, (state := file.stat()).st_size, state.st_mtime_ns) for name, file in files]
        read = (part for name, file in files for part in (name, file.read_bytes()))
        known = self.cache / f"{fingerprint([*own, repr(stamps)])}-fingerprint"
        return cached(known, lambda: fingerprint([*own, *read]).encode()).decode()

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split, kept on disk, since parsing the packages takes a minute."""
        file = self.cache / f"{self.fingerprint}-{split}.json"
        rows, left_out = json.loads(cached(file, lambda: json.dumps(self.read(split)).encode()))
        if left_out:
            counts = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
            total = sum(left_out.values()) + len(rows)
            warnings.warn(f"data=code, {split}: left out of {total} sources: {counts}", stacklevel=2)
        return [Pair(*row) for row in rows]

    def read(self, split: str) -> tuple[list[Pair], dict[str, int]]:
        """The pairs of a split, in an order that does not follow the packages, and how many are left out, by reason."""
        kept, left_out = dict[str, Pair](), dict[str, int]()
        trained = set[int]().union(*map(shingles, self.pairs("train"))) if split != "train" else set()
        for pair in (pair for name, file in self.files[split] for pair in pairs_in(name, file)):
            reason = self.problem(pair) or ("copies" if pair.document in kept else "")
            if not reason and trained:
                own = shingles(pair)
                reason = "near-copies of training documents" if len(own & trained) > self.alike * len(own) else ""
            if reason:
                left_out[reason] = left_out.get(reason, 0) + 1
            else:
                kept[pair.document] = pair
        return sorted(kept.values(), key=lambda pair: fingerprint([pair.name])), left_out

    def problem(self, pair: Pair) -> str:
        """Why a pair is left out, "" if it is not."""
        words = pair.summary.split()
        if len(pair.document.split()) not in self.lengths[0]:
            return "short or long sources"
        if len(words) not in self.lengths[1]:
            return "short or long docstrings"
        english = pair.summary.isascii() and ENGLISH & {word.lower() for word in words}
        return "" if english else "docstrings that are not in English"


def sources_of(package: str) -> list[tuple[str, Path]]:
    """The source files of an installed package, which is not imported, with their names. Warns if there are none."""
    spec, found = importlib.util.find_spec(package), list[tuple[str, Path]]()
    for folder in (spec and spec.submodule_search_locations) or []:
        for file in sorted(Path(folder).rglob("*.py")):
            path = file.relative_to(folder)
            found += [(f"{package}/{path.as_posix()}", file)] if not EXCLUDED & {*path.parts} else []
    if not found:
        warnings.warn(f"data=code: no sources of {package} are installed; it is left out", stacklevel=2)
    return found


def pairs_in(name: str, file: Path) -> Iterator[Pair]:
    """The module, the classes and the functions in a file that have a docstring, each without it."""
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):  # of another Python
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, Documented) or not ast.get_docstring(node):
            continue
        summary = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        string = node.body[0]
        first, last = (1, len(lines)) if isinstance(node, ast.Module) else (node.lineno, node.end_lineno or 0)
        kept = lines[first - 1 : string.lineno - 1] + lines[string.end_lineno or 0 : last]
        path = name if isinstance(node, ast.Module) else f"{name}:{node.lineno}:{node.name}"
        yield Pair(path, "\n".join(kept).strip(), summary)


def shingles(pair: Pair) -> set[int]:
    """The hashes of all runs of SHINGLE words of a pair."""
    words = re.findall(r"\w+", f"{pair.summary} {pair.document}".lower())
    runs = (" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))
    return {int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in runs}
