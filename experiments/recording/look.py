"""One look at many records: each folder is read once, or not at all where an index knows its files as they are.

The folders are the truth. The index is one SQLite file per outputs folder, among this machine's own caches, so that no
folder from elsewhere brings one. It may be deleted at any time; a damaged one, or one of other code, is built anew.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from experiments.config.cache import CACHES
from experiments.recording.contents import CONFIG, MISSING, STATUS, Contents, Stamps, contents, stamp, stamps_of

KEPT = 8  # indexes, the latest ones
PENDING = 1_000  # values that are written together
# What determines the values of an index.
SOURCES = (
    "recording",
    "ledger/curves.py",
    "report/runs.py",
    "report/page/run_comparison.py",
)
TABLE = "create table if not exists known (folder text, kind text, stamps text, value text, primary key (folder, kind))"


class Look:
    """What records under one outputs folder hold at one time."""

    def __init__(self, outputs: str | Path):
        self.seen: dict[Path, tuple[str, Stamps, str]] = {}  # the path, the stamps, and these as text
        self.contents: dict[tuple[Path, bool], Contents] = {}
        self.pending: dict[tuple[str, str, str], str] = {}
        self.file = index_of(outputs)
        self.index = opened(self.file)

    def known(self, folder: Path, kind: str, compute: Callable[[], Any]) -> Any:
        """A value made of a record's files, of its kind, as JSON: from the index if the files have not changed."""
        place, _, stamps = self.state_of(folder)
        key = place, kind, stamps
        if key in self.pending:
            return json.loads(self.pending[key])
        with contextlib.suppress(sqlite3.Error, ValueError):
            query = "select value from known where folder = ? and kind = ? and stamps = ?"
            if self.index and (row := self.index.execute(query, key).fetchone()):
                return from_json(row[0], cache_strings="keys")
        value = compute()
        self.pending[key] = json.dumps(value)
        if len(self.pending) >= PENDING:
            self.write()
        return value

    def state_of(self, folder: Path) -> tuple[str, Stamps, str]:
        """A record's path and the stamps of its files when this was first asked, also as text."""
        if folder not in self.seen:
            stamps = stamps_of(folder)
            self.seen[folder] = str(folder.absolute()), stamps, json.dumps(stamps)
        return self.seen[folder]

    def contents_of(self, folder: Path, whole: bool) -> Contents:
        """The status of a record, and what a finished one holds but for its configuration, which few readers need."""
        key = folder, whole
        found = self.contents.get(key)
        if found is None:
            if stamp(os.path.join(folder, STATUS)) == MISSING:
                found = Contents("new")
            else:
                kind = "whole" if whole else "without config.yaml"
                found = Contents(*self.known(folder, kind, lambda: self.read(folder, whole)))
            self.contents[key] = found
        return found

    def read(self, folder: Path, whole: bool) -> Contents:
        """The contents of a record from its files. Its configuration is put into the index by itself."""
        found = contents(folder, self.state_of(folder)[1], whole)
        if found.config:
            self.known(folder, CONFIG, lambda: found.config)
        return found._replace(config=None)

    def write(self) -> None:
        """Write what is new to the index, if it can be written; to an empty one if it turns out to be damaged."""
        rows = [(*key, value) for key, value in self.pending.items()]
        self.pending.clear()
        for _ in range(2):
            try:
                if self.index:
                    with self.index:
                        self.index.executemany("insert or replace into known values (?, ?, ?, ?)", rows)
                return
            except sqlite3.OperationalError:  # another process writes, or the disk is full
                return
            except sqlite3.DatabaseError:
                self.file.unlink(missing_ok=True)
                self.index = opened(self.file)

    def close(self) -> None:
        """Write what is new, and close the index."""
        self.write()
        if self.index:
            self.index.close()


def index_of(outputs: str | Path) -> Path:
    """The file of the index of an outputs folder."""
    name = hashlib.sha256(str(Path(outputs).resolve()).encode()).hexdigest()[:16]
    return CACHES / "records" / f"{name}.sqlite"


def opened(file: Path) -> sqlite3.Connection | None:
    """The index in this file, empty if it was damaged or of other code; None where none can be kept."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                index = sqlite3.connect(file)
                if index.execute("pragma user_version").fetchone()[0] != version():
                    index.executescript(f"drop table if exists known; pragma user_version = {version()}")
                index.execute(TABLE)
                for earlier in sorted(file.parent.glob("*.sqlite"), key=os.path.getmtime)[:-KEPT]:
                    earlier.unlink(missing_ok=True)
                return index
            except sqlite3.DatabaseError:
                file.unlink(missing_ok=True)
    return None


@cache
def version() -> int:
    """A number for the code that determines an index's values."""
    package = Path(__file__).parents[1]
    files = (file for source in SOURCES for file in sorted([package / source, *(package / source).glob("*.py")]))
    content = b"".join(file.read_bytes() for file in files if file.is_file())
    return int(hashlib.sha256(content).hexdigest()[:7], 16)


current: ContextVar[Look | None] = ContextVar("look", default=None)


@contextlib.contextmanager
def one_look(outputs: str | Path) -> Iterator[None]:
    """Within it, records are seen as they are when they are first read, however often they are asked."""
    if current.get():
        yield
        return
    look = Look(outputs)
    token = current.set(look)
    try:
        yield
    finally:
        current.reset(token)
        look.close()


def contents_now(folder: Path, whole: bool) -> Contents:
    """The contents of a record: as the current look has seen it, or as it is."""
    look = current.get()
    return look.contents_of(folder, whole) if look else unchanged(folder, stamps_of(folder), whole)


unchanged = lru_cache(maxsize=4096)(contents)


def known(folder: Path, kind: str, compute: Callable[[], Any]) -> Any:
    """A value made of a record's files, as JSON holds it: from the index of the current look, if it has it."""
    look = current.get()
    return look.known(folder, kind, compute) if look else compute()
