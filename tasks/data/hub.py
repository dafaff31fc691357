"""Data sets of the Hugging Face hub, from the hub or from local files with the same columns."""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.data.source import SPLITS, DataError, fingerprint, split_of

SPLIT_WORDS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


class HubDataset:
    """A data set: `rows(split)` returns its rows, `fingerprint` identifies its contents.

    identifier, configuration, revision: of the data set on the hub. columns: the required columns.
    path: a folder of parquet, json, jsonl or csv files whose names or folders contain train, validation or test; if
    given, the hub is not used. Raises DataError if files, splits or columns are missing.
    """

    def __init__(
        self,
        identifier: str,
        columns: list[str],
        cache: str,
        configuration: str | None = None,
        revision: str | None = None,
        path: str | None = None,
    ):
        self.identifier, self.configuration, self.revision = identifier, configuration, revision
        self.columns = columns
        self.cache = Path(cache)
        self.path = Path(path).expanduser() if path else None
        self.files = self.find_files() if self.path else {}
        if not self.path and os.environ.get("HF_HUB_OFFLINE") == "1":
            raise DataError(
                f"{identifier} comes from the Hugging Face hub and this run is offline: set HF_HUB_OFFLINE=0 to load "
                "it, or data.path=<folder> to read files with the same columns"
            )

    def find_files(self) -> dict[str, list[Path]]:
        assert self.path is not None
        if not self.path.is_dir():
            raise DataError(f"data.path={self.path} is not a folder; pass a folder with files of {self.identifier}")
        files: dict[str, list[Path]] = {}
        for file in sorted(self.path.rglob("*")):
            if file.suffix in FORMATS:
                parts = reversed(file.relative_to(self.path).parts)  # the file name takes precedence over its folders
                words = [word for part in parts for word in re.split("[^a-z]+", part.lower())]
                split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
                if split:
                    files.setdefault(split, []).append(file)
        if "train" not in files or not {"test", "validation"} & set(files):
            raise DataError(
                f"data.path={self.path} needs {', '.join(FORMATS)} files whose names say train and test or "
                f"validation; found {', '.join(files) or 'none'}"
            )
        return files

    @property
    def fingerprint(self) -> str:
        if not self.path:
            return fingerprint_of(self.identifier, self.configuration, self.revision)
        files = ((split, file) for split in SPLITS for file in self.files.get(split, []))
        return fingerprint(part for split, file in files for part in (split.encode(), file.read_bytes()))

    @cached_property
    def splits(self) -> list[str]:
        """The splits that the data set has."""
        import datasets

        if self.path:
            return list(self.files)
        return datasets.get_dataset_split_names(self.identifier, self.configuration, revision=self.revision)

    def rows(self, split: str) -> Any:
        """The rows of a split, as a `datasets.Dataset`. Validation and test replace each other if one is missing."""
        import datasets

        datasets.disable_progress_bars()
        cache = str(self.cache / "datasets")
        name = split if split in self.splits else "validation" if split == "test" else "test"
        if self.path:
            files = [str(file) for file in self.files[name]]
            kind = FORMATS[Path(files[0]).suffix]
            rows = datasets.load_dataset(kind, data_files={"rows": files}, split="rows", cache_dir=cache)
        else:
            rows = datasets.load_dataset(
                self.identifier, self.configuration, revision=self.revision, split=name, cache_dir=cache
            )
        missing = [column for column in self.columns if column not in rows.column_names]
        if missing:
            raise DataError(
                f"{self.path or self.identifier} lacks the column {', '.join(missing)}; "
                f"it has {', '.join(rows.column_names)}"
            )
        return rows.select_columns(self.columns)

    def disjoint_rows(self, split: str) -> Any:
        """The rows of a split, none of which is in another split.

        If the data set has only one of validation and test, that is its test split, and one in twenty of its training
        rows is taken out for validation.
        """
        if split == "test" or {"validation", "test"} <= set(self.splits):
            return self.rows(split)
        rows = self.rows("train")
        return rows.select([index for index in range(len(rows)) if split_of(f"train/{index}", test=0.0) == split])

    def check(self) -> None:
        """Raise DataError if a local file lacks a column, before anything else is built."""
        if self.path:
            self.rows("train")


def fingerprint_of(identifier: str, configuration: str | None, revision: str | None) -> str:
    """The fingerprint of a data set on the hub, whose revision identifies its contents."""
    return fingerprint([identifier, configuration or "", revision or ""])
