"""What all data sources share: their errors, fingerprints and cache."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """Data that is not there or not as it must be; the message says what was wrong and what would be right."""


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """The SHA-256 of the parts in their order, as 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


def split_of(name: str, validation: float = 0.05, test: float = 0.1) -> str:
    """The split of the document called `name`: decided by the name alone, so that it stays as the corpus grows."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") / 2**64
    return "test" if place < test else "validation" if place < test + validation else "train"


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees all of it or the file as it was before."""
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
