"""Rows of your own tables: JSON Lines, a JSON list of objects, CSV and TSV, by the ending of the file."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vlm_jax.data.user_files.json_files import LONGEST_LINE, lines, load_json, parsed_line
from vlm_jax.data.user_files.rows import UnusableError, checked_object
from vlm_jax.errors import InputError, nearest, one_of, shown
from vlm_jax.types import Json

# Other names of a column, most of them Hugging Face's. Under the singular stands one text instead of a list.
ALIASES = {
    "image": ("file_name", "image_path", "img", "path"),
    "answers": ("answer", "label"),
    "captions": ("caption", "text"),
}
ENDINGS = (".jsonl", ".json", ".csv", ".tsv")
Row = dict[str, Json]


def table_rows(path: Path) -> Iterator[tuple[int | str, Row | UnusableError]]:
    """Each row of a file with its line (of a JSON list, its entry), or why it cannot be used.

    `InputError` where the file as a whole is none: what is not JSON, a table without a header, a column twice.
    """
    match path.suffix.lower():
        case ".csv" | ".tsv":
            yield from _separated(path)
        case ".json" if not _is_lines(path):
            entries = load_json(path, expected="a list of objects")
            if not isinstance(entries, list):
                raise InputError(f"{path}: expected a list of objects, or one object a line")
            for number, entry in enumerate(entries, 1):
                try:
                    yield f"entry {number}", checked_object(entry)
                except UnusableError as error:
                    yield f"entry {number}", error
        case _:
            for number, line in lines(path):
                try:
                    yield number, line if isinstance(line, UnusableError) else parsed_line(line)
                except UnusableError as error:
                    yield number, error


def with_columns(row: Row, columns: Sequence[str]) -> Row:
    """The row with all of `columns`, taken from another name of theirs where they are missing."""
    named = dict(row)
    for column in columns:
        other = next((alias for alias in ALIASES.get(column, ()) if alias in row), None)
        if column not in row and other is None:
            raise UnusableError(f"the key {column!r} is missing; {_hint(column, columns, row)}")
        if column not in row:
            value = row[other]
            named[column] = [value] if column.endswith("s") and not isinstance(value, list) else value
    return named


def _hint(missing: str, columns: Sequence[str], row: Row) -> str:
    """The key of the row that may have been meant."""
    if "question" in columns and "captions" in row:
        return "rows with captions are for the task captioning, or for --data.rows captions"
    names = [name for name in row if name not in columns and name.isprintable()]
    hint = nearest(missing, names)
    expected = f"{', '.join(map(repr, columns[:-1]))} and {columns[-1]!r}"
    return hint if hint.startswith("did") else f"expected {expected}"


def _is_lines(path: Path) -> bool:
    """Whether a `.json` file holds one object a line."""
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _separated(path: Path) -> Iterator[tuple[int, Row | UnusableError]]:
    """The rows of a table whose first line names the columns; `,` or `;` separates them, in `.tsv` a tab."""
    # Surrogates stand for what is not UTF-8: it spoils its row and not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline(LONGEST_LINE)
        file.seek(0)
        separator = "\t" if path.suffix.lower() == ".tsv" else max(",;", key=first.count)
        reader = csv.reader(file, delimiter=separator, strict=True)
        names = _header(path, reader)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, UnusableError(f"the row is no {path.suffix[1:].upper()}: {error}")
                continue
            if values:
                yield line, _fields(names, values)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    names: list[str] = []
    with suppress(StopIteration, csv.Error):
        names = [name.strip() for name in next(reader)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has the column {shown(twice)} twice")
    known = {"question", *ALIASES, *(alias for aliases in ALIASES.values() for alias in aliases)}
    if not known & {*names}:
        raise InputError(f"{path} has no header: its first line names none of the columns; {one_of(sorted(known))}")
    return names


def _fields(names: Sequence[str], values: Sequence[str]) -> Row | UnusableError:
    """A row by its columns; empty cells are left out, and a column of lists holds one text."""
    if len(values) != len(names):
        return UnusableError(f"the row has {len(values)} values, and the header names {len(names)}")
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return UnusableError("the row is not UTF-8")
    row = {name: value for name, value in zip(names, values, strict=True) if value.strip()}
    return {name: [value] if name in ("answers", "captions") else value for name, value in row.items()}
