"""The rows of parquet, JSON, CSV and Arrow files. Every error and every row names its file and its place in it."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tasks.data.files import DataFile, content_of, text_of
from tasks.data.source import DataError


class Rows(NamedTuple):
    """Some columns of a table, and the place of each row, such as "train.jsonl, line 3"."""

    columns: dict[str, list[Any]]
    places: list[str]

    def select(self, indices: Sequence[int]) -> "Rows":
        """The rows with these indices."""
        columns = {name: [values[index] for index in indices] for name, values in self.columns.items()}
        return Rows(columns, [self.places[index] for index in indices])


def text_at(rows: Rows, column: str, index: int) -> str:
    """The text in a column of a row, "" if it is null. Raises DataError if it is something else."""
    return checked_text(rows.columns[column][index], column, rows.places[index])


def checked_text(value: Any, column: str, place: str) -> str:
    """A value if it is a text, "" if it is null. Raises DataError if it is something else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{place}: the column {column} has {str(value)[:40]} ({type(value).__name__}), not a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: the column {column} has half a character at {error.start}") from error
    return value


def read_tables(files: Sequence[DataFile], columns: list[str]) -> Rows:
    """These columns of several files, one after the other. Raises DataError if a file is damaged or lacks one."""
    parts = [read_table(file, columns) for file in files]
    joined = {name: [value for part in parts for value in part.columns[name]] for name in columns}
    return Rows(joined, [place for part in parts for place in part.places])


def read_table(file: DataFile, columns: list[str]) -> Rows:
    """These columns of a file; a value that a row lacks is None. Whatever a file says beside its rows is not read."""
    try:
        content = content_of(file.path)
        if file.kind in (".parquet", ".arrow"):
            names, count, found = read_arrow(content, file.kind, columns)
            places = [f"{file.path}, row {index}" for index in range(count)]
        else:
            rows = list(READERS[file.kind](text_of(content)))
            names = list(dict.fromkeys(name for _, row in rows for name in row))
            found = {name: [row.get(name) for _, row in rows] for name in columns if name in names}
            places = [f"{file.path}, {place}" for place, _ in rows]
    except DataError as error:
        raise DataError(f"{file.path} is {error}") from error
    if not places:
        raise DataError(f"{file.path} is empty: it has no row")
    missing = [name for name in columns if name not in found]
    if missing:
        raise DataError(f"{file.path} lacks the column {', '.join(missing)}; it has {', '.join(map(str, names))}")
    return Rows(found, places)


def read_arrow(content: bytes, kind: str, columns: list[str]) -> tuple[list[str], int, dict[str, list[Any]]]:
    """The names of all columns, the number of rows, and these columns of a parquet file or one of `save_to_disk`."""
    import pyarrow.parquet

    try:
        if kind == ".parquet":
            file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
            names: list[str] = file.schema_arrow.names
            table = file.read([name for name in columns if name in names])
        else:
            table = pyarrow.ipc.open_stream(content).read_all()
            names = table.column_names
        return names, table.num_rows, {name: table[name].to_pylist() for name in columns if name in names}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"damaged ({str(error).splitlines()[0]})") from error


def read_lines(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON with a row a line."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"damaged: line {number} is not JSON ({getattr(error, 'msg', error)})") from error
            if not isinstance(row, dict):
                raise DataError(f'no table: line {number} is not a row, such as {{"column": "value"}}')
            yield f"line {number}", row


def read_json(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON that is a list of rows, or has a row a line."""
    try:
        rows = json.loads(text)
    except ValueError:
        rows = None
    if not isinstance(rows, list):
        yield from read_lines(text)
        return
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f'no table: row {index} is not such as {{"column": "value"}}')
        yield f"row {index}", row


def read_csv(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Comma-separated values below a line of column names. All values are texts: NA and null are words like others."""
    csv.field_size_limit(sys.maxsize)  # a field may be a whole book
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        names = next(reader, [])
        if len({*names}) < len(names):
            raise DataError("ambiguous: it has two columns of the same name")
        line = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(names):
                raise DataError(f"damaged: line {line} has {len(row)} values for {len(names)} columns")
            if row:
                yield f"line {line}", dict(zip(names, row))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"damaged: the row at line {line} is not CSV ({error})") from error


READERS = {".jsonl": read_lines, ".ndjson": read_lines, ".json": read_json, ".csv": read_csv}
