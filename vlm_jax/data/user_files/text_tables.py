"""Tables of text: CSV, TSV and their relatives, JSON Lines and JSON lists, each row with its line."""

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vlm_jax.data.user_files.json_files import LONGEST_LINE, lines, load_json, parsed_line
from vlm_jax.data.user_files.rows import Row, UnusableError, checked_object
from vlm_jax.errors import InputError
from vlm_jax.types import Json

CheckHeader = Callable[[Path, tuple[str, ...]], None]
TableRows = Iterator[tuple[int | str, Row | UnusableError]]
"""Each row with its line, or what else a message calls it; or why it cannot be used."""


def json_lines(path: Path) -> TableRows:
    """The objects of a file, one a line."""
    for number, line in lines(path):
        try:
            yield number, line if isinstance(line, UnusableError) else parsed_line(line)
        except UnusableError as error:
            yield number, error


def json_list(path: Path) -> TableRows:
    """The objects of a list; `InputError` where the file is none, with the kind of data set that it may be of."""
    entries = load_json(path, expected="a list of objects")
    if not isinstance(entries, list):
        if kind := _other_kind(entries):
            raise InputError(f"{path} is a file of {kind}, not a table; give --data.kind {kind} and --images FOLDER")
        raise InputError(f"{path}: expected a list of objects, or one object a line")
    for number, entry in enumerate(entries, 1):
        try:
            yield f"entry {number}", checked_object(entry)
        except UnusableError as error:
            yield f"entry {number}", error


def is_json_lines(path: Path) -> bool:
    """Whether a `.json` file holds one object a line, and is not one object in all."""
    with path.open("rb") as file:
        line = file.readline(LONGEST_LINE).removeprefix(b"\xef\xbb\xbf").strip()
        while not line and (line := file.readline(LONGEST_LINE)):
            line = line.strip()
    if not line.startswith(b"{"):
        return False
    try:
        return _other_kind(parsed_line(line.decode())) is None
    except (UnusableError, UnicodeDecodeError):
        return not _is_one_object(path)


def _is_one_object(path: Path) -> bool:
    with suppress(InputError):
        return isinstance(load_json(path, expected="an object"), dict)
    return False


def _other_kind(content: Json) -> str | None:
    """The kind of data set whose published files have such an object."""
    if not isinstance(content, dict):
        return None
    firsts = {name: value[0] for name, value in content.items() if isinstance(value, list) and value}
    keys = {name: {*first} for name, first in firsts.items() if isinstance(first, dict)}
    if "question_id" in keys.get("questions", ()) or "question_id" in keys.get("annotations", ()):
        return "vqa_v2"
    if "sentences" in keys.get("images", ()):
        return "karpathy"
    return "coco_captions" if {"images", "annotations"} <= content.keys() else None


def separated(path: Path, check_header: CheckHeader, lists: Collection[str], *, keep_empty: bool = False) -> TableRows:
    """The rows of a table whose first line names the columns; `,`, `;`, `|` or a tab separates them.

    `check_header` refuses columns that are no use; those of `lists` hold one text. Empty cells are left out, unless
    `keep_empty`.
    """
    # Surrogates stand for what is not UTF-8: it spoils its row and not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline(LONGEST_LINE)
        skipped = re.fullmatch(r'"?sep=([,;|\t])"?\r?\n', first)  # as Excel writes it above the header
        if not skipped:
            file.seek(0)
        likely = skipped[1] if skipped else max(",;|\t", key=first.count)
        separator = "\t" if path.suffix.lower() == ".tsv" else likely
        pieces = iter(lambda: file.readline(LONGEST_LINE), "")
        reader = csv.reader(pieces, delimiter=separator, strict=True, skipinitialspace=separator == "|")
        names: tuple[str, ...] = ()
        with suppress(StopIteration, csv.Error):
            names = tuple(name.strip() for name in next(reader))
        check_header(path, names)
        while True:
            line = reader.line_num + 1 + bool(skipped)
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, UnusableError(f"the row is no CSV: {error}{_extent(line, reader.line_num + bool(skipped))}")
                continue
            if values:
                yield line, _fields(names, values, lists, keep_empty)


def _extent(first: int, last: int) -> str:
    """What of the file a damaged row has swallowed."""
    return f"; lines {first} to {last:,} are lost, perhaps by a quote that never closes" if last > first else ""


def _fields(
    names: Sequence[str], values: Sequence[str], lists: Collection[str], keep_empty: bool
) -> Row | UnusableError:
    """A row by its columns; a column of lists holds one text."""
    if len(values) != len(names):
        return UnusableError(f"the row has {len(values)} values, and the header names {len(names)}")
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return UnusableError("the row is not UTF-8; save the table as UTF-8")
    row = {name: value for name, value in zip(names, values, strict=True) if keep_empty or value.strip()}
    return {name: [value] if name in lists else value for name, value in row.items()}
