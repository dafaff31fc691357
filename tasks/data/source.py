"""Errors, fingerprints, splits and atomic writes, shared by all data sources."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

SPLITS = ("train", "validation", "test")
ScoredSplit = Literal["test", "validation"]  # models are judged on test, their settings chosen on validation


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
