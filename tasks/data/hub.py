"""Data sets of the Hugging Face hub, from the hub or from local files with the same columns."""

import hashlib
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.data.files import TABLES, DataFile, good_files
from tasks.data.source import SPLITS, DataError, OnBad, fingerprint, leave_out, listed, split_of
from tasks.data.tables import Rows, read_tables

SHARD = re.compile(r"(.*?)\d+-of-(\d+)(.*)")  # train-00000-of-00003.parquet


class HubDataset:
    """A data set: `rows(split)` returns its rows, `fingerprint` identifies its contents.

    identifier, configuration, revision: of the data set on the hub. columns: the required columns.
    path: a folder of parquet, json, jsonl, csv or arrow files, compressed or not, whose names or folders say train,
    validation or test; if given, the hub is not used. Other files and copies are left out with a warning. patterns: the
    files of the repository to read in this way, of one whose own layout the datasets library does not know. Raises
    DataError if files, splits or columns are missing, or if a split is there twice.
    """

    def __init__(
        self,
        identifier: str,
        columns: list[str],
        cache: str,
        configuration: str | None = None,
        revision: str | None = None,
        path: str | None = None,
        patterns: Sequence[str] = (),
    ):
        self.identifier, self.configuration, self.revision = identifier, configuration, revision
        self.columns, self.patterns = columns, list(patterns)
        self.cache = Path(cache)
        self.path = Path(path).expanduser() if path else None
        self.has_files = bool(path or patterns)
        self.digests = self.find_files(self.path) if self.path else {}
        if not self.path and os.environ.get("HF_HUB_OFFLINE") == "1":
            raise DataError(
                f"{identifier} comes from the Hugging Face hub and this run is offline: set HF_HUB_OFFLINE=0 to load "
                "it, or data.path=<folder> to read files with the same columns"
            )

    @cached_property
    def downloaded(self) -> dict[DataFile, str]:
        """The files of the hub that `patterns` name, with their digests. Raises DataError if they cannot be loaded."""
        from huggingface_hub import snapshot_download

        folder, own = str(self.cache / "hub"), {"allow_patterns": self.patterns, "revision": self.revision}
        try:
            found = snapshot_download(self.identifier, repo_type="dataset", cache_dir=folder, **own)
        except Exception as error:  # the libraries that it calls raise many types of errors
            raise DataError(
                f"{self.identifier} cannot be loaded from the hub: {' '.join(str(error).split())}"
            ) from error
        return self.find_files(Path(found))

    def find_files(self, path: Path) -> dict[DataFile, str]:
        """The data files in a folder, with their digests."""
        if not path.is_dir():
            raise DataError(f"data.path={path} is not a folder; pass a folder with files of {self.identifier}")
        found, left_out = good_files(path, self.examine)
        splits = {file.split for file in found}
        if "train" not in splits or not {"test", "validation"} & splits:
            raise DataError(
                f"{self.where} needs {', '.join(TABLES)} files whose names say train and test or "
                f"validation; found {', '.join(sorted(filter(None, splits))) or 'none'}"
                + (f", and {listed(left_out)}" if left_out else "")
            )
        leave_out(self.where, left_out)
        for split in SPLITS:
            check_formats(f"the {split} split of {self.where}", [file for file in found if file.split == split])
        return found

    @staticmethod
    def examine(file: DataFile) -> str:
        """The SHA-256 of a file. Raises DataError, a phrase, if it is no table of a split."""
        if not file.is_table:
            raise DataError(f"not one of {', '.join(TABLES)}")
        if not file.split:
            raise DataError("in no split: neither its name nor its folder says one")
        with open(file.path, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    @property
    def where(self) -> str:
        """Where the rows come from, for messages."""
        return f"data.path={self.path}" if self.path else self.identifier

    def files(self, split: str) -> list[DataFile]:
        """The local files of a split."""
        return [file for file in (self.digests if self.path else self.downloaded) if file.split == split]

    @property
    def fingerprint(self) -> str:
        if not self.path:
            return fingerprint_of(self.identifier, self.configuration, self.revision, self.patterns)
        return fingerprint(f"{split}/{self.digests[file]}" for split in SPLITS for file in self.files(split))

    @cached_property
    def splits(self) -> list[str]:
        """The splits that the data set has."""
        import datasets

        if self.has_files:
            return [split for split in SPLITS if self.files(split)]
        return datasets.get_dataset_split_names(self.identifier, self.configuration, revision=self.revision)

    def rows(self, split: str) -> Rows:
        """The rows of a split. Validation and test replace each other if one is missing."""
        name = split if split in self.splits else "validation" if split == "test" else "test"
        return read_tables(self.files(name), self.columns) if self.has_files else self.download(name)

    def download(self, split: str) -> Rows:
        """The rows of a split of the hub's data set, with images as their bytes."""
        import datasets

        datasets.disable_progress_bars()
        rows: Any = datasets.load_dataset(
            self.identifier,
            self.configuration,
            revision=self.revision,
            split=split,
            cache_dir=str(self.cache / "datasets"),
        )
        missing = [column for column in self.columns if column not in rows.column_names]
        if missing:
            raise DataError(
                f"{self.identifier} lacks the column {', '.join(missing)}; it has {', '.join(rows.column_names)}"
            )
        for column in self.columns:
            if isinstance(rows.features[column], datasets.Image):
                rows = rows.cast_column(column, datasets.Image(decode=False))
        places = [f"the {split} split of {self.identifier}, row {index}" for index in range(len(rows))]
        return Rows({column: list(rows[column]) for column in self.columns}, places)

    def disjoint_rows(self, split: str) -> Rows:
        """The rows of a split, none of which is in another split.

        If the data set has only one of validation and test, that is its test split, and one in twenty of its training
        rows is taken out for validation.
        """
        if split == "test" or {"validation", "test"} <= set(self.splits):
            return self.rows(split)
        rows = self.rows("train")
        return rows.select(
            [index for index in range(len(rows.places)) if split_of(f"train/{index}", test=0.0) == split]
        )

    def leave_out(self, split: str, bad: list[str], rows: int, on_bad: OnBad) -> None:
        """Warn of bad rows of a split, or raise DataError; see source.leave_out. It may not have bad rows alone."""
        where = f"the {split} split of {self.where}"
        if bad and len(bad) == rows:
            raise DataError(f"{where} has {rows} rows, all of them bad: {listed(bad)}")
        leave_out(where, bad, on_bad)

    def check(self) -> None:
        """Raise DataError if a local file cannot be read or lacks a column, before anything else is built."""
        for split in self.splits if self.path else []:
            read_tables(self.files(split)[:1], self.columns)


def check_formats(split: str, files: Sequence[DataFile]) -> None:
    """Raise DataError if a split's rows may be there twice: in two formats, or as two sets of shards. Warn of gaps."""
    endings = sorted({"".join(file.name.lower().rpartition(file.kind)[1:]) for file in files})
    if len(endings) > 1:
        raise DataError(f"{split} is in {' and in '.join(endings)} files, maybe twice: keep files of one format")
    shards: dict[tuple[str, str], list[int]] = {}
    for file in files:
        if found := SHARD.fullmatch(file.name):
            shards.setdefault((found[1], found[3]), []).append(int(found[2]))
    for (start, end), totals in shards.items():
        if len({*totals}) > 1:
            counts = " and of ".join(map(str, sorted({*totals})))
            raise DataError(f"{split} has files {start}*{end} of {counts} shards: keep those that belong together")
        if len(totals) < totals[0]:
            leave_out(split, [f"{start}*{end} has {len(totals)} of {totals[0]} shards"])


def fingerprint_of(
    identifier: str, configuration: str | None, revision: str | None, patterns: Sequence[str] = ()
) -> str:
    """The fingerprint of a data set on the hub, whose revision identifies its contents."""
    return fingerprint([identifier, configuration or "", revision or "", *patterns])
