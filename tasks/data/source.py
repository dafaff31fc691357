"""Errors, fingerprints, splits, what is left out, and caches: shared by all data sources."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

SPLITS = ("train", "validation", "test")
ScoredSplit = Literal["test", "validation"]  # models are judged on test, their settings chosen on validation
OnBad = Literal["skip", "stop"]  # leave bad files and rows out with a warning, or stop the run
NAMED = 3  # number of phrases that a message lists


class DataError(ValueError):
    """Data that is missing or invalid; the message says what is wrong and what to do."""


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the parts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def split_of(name: str, validation: float = 0.05, test: float = 0.1) -> str:
    """The split of the document `name`. It depends on the name alone, so that it does not change as a corpus grows."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") / 2**64
    return "test" if share < test else "validation" if share < test + validation else "train"


def leave_out(where: str, bad: list[str], on_bad: OnBad = "skip") -> None:
    """Warn of the files or rows that are left out, each given by a phrase. Raises DataError if `on_bad` is stop."""
    if bad and on_bad == "stop":
        raise DataError(f"{where}: {listed(bad)}; mend or remove what is bad, or set data.on_bad=skip to leave it out")
    if bad:
        warnings.warn(f"{where}: left out {len(bad)}: {listed(bad)}", stacklevel=3)


def listed(phrases: list[str]) -> str:
    """The first few phrases, and how many more there are."""
    more = f" and {len(phrases) - NAMED} more" if len(phrases) > NAMED else ""
    return "; ".join(phrases[:NAMED]) + more


def cached(file: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes that `make` returns, which are kept in `file`.

    Its first line is the SHA-256 of the last two parts of its path and of the bytes, so that a file that was cut,
    changed or copied from another place is made again, with a warning.
    """
    place = "/".join(file.parts[-2:]).encode()
    if file.exists():
        digest, _, content = file.read_bytes().partition(b"\n")
        if digest.decode(errors="ignore") == hashlib.sha256(place + content).hexdigest():
            return content
        warnings.warn(f"{file} is damaged or belongs to other data: it is made again", stacklevel=3)
    content = make()
    write_atomically(file, hashlib.sha256(place + content).hexdigest().encode() + b"\n" + content)
    return content


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: a reader sees either the old file or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
