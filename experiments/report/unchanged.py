"""What the last `make reproduce` that found nothing to do has shown, for as long as nothing that it depends on changes.

That is told in a second from files' times and sizes, without torch and without reading a record.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.config import plugins
from experiments.config.cache import CACHES, ROOT
from experiments.recording.contents import stamp
from tasks.data.source import write_atomically

SETTINGS = ("ATEN_", "CUDA_", "EXPERIMENTS_", "HF_", "WANDB_")  # first letters of environment variables that matter
HARDWARE = ("/proc/cpuinfo", "/proc/driver/nvidia/version")


class Shown:
    """The text that a command prints of an outputs folder, and what it depends on."""

    def __init__(self, arguments: Sequence[Any], outputs: str, console: Console):
        name = hashlib.sha256(json.dumps([str(Path(outputs).resolve()), *arguments], default=str).encode()).hexdigest()
        self.file = CACHES / "shown" / f"{name[:16]}.json"
        self.outputs, self.console = Path(outputs), console
        self.before = digest_of(self.parts())  # the command shows records that are at least as new

    def state(self) -> str:
        """A digest of all that what is shown depends on: of the page as it is, of the rest as it was at first."""
        return digest_of([self.before, *stamps_under(self.outputs / "report")])

    def parts(self) -> Iterator[Any]:
        """The records, our source, the libraries, the machine, the user's settings and the terminal."""
        yield from stamps_under(self.outputs / "runs")
        for package in ("conf", "experiments", "models", "tasks"):
            yield from stamps_under(ROOT / package)
        yield sys.version, sorted((each.metadata["Name"], each.version) for each in distributions())
        for hardware in HARDWARE:
            with contextlib.suppress(OSError):
                yield [line for line in Path(hardware).read_text().splitlines() if "MHz" not in line]
        yield sorted((name, value) for name, value in os.environ.items() if name.startswith(SETTINGS))
        yield self.console.width, self.console.is_terminal

    def again(self) -> str | None:
        """The text, if nothing has changed; None where something has, or where something from outside is used."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stored = json.loads(self.file.read_text(encoding="utf-8"))
            outside = plugins.packages() or plugins.folders() or plugins.folders(plugins.CLAIMS, "claims")
            if not outside and stored["state"] == self.state():
                return str(stored["text"])
        return None

    def keep(self, text: str) -> None:
        """Keep what was shown, where it can be written."""
        with contextlib.suppress(OSError):
            write_atomically(self.file, json.dumps({"state": self.state(), "text": text}).encode())


def digest_of(parts: Iterable[Any]) -> str:
    """The SHA-256 of these parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()


def stamps_under(folder: Path) -> Iterator[Any]:
    """Name, time, size and inode of all files below a folder, without those of Python's own caches.

    What lies behind a link to another folder is not followed: such a folder counts as changed.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name == "__pycache__":
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from stamps_under(Path(entry.path))
            elif entry.is_dir():
                yield os.urandom(8)
            else:
                yield entry.path, stamp(entry.path)
