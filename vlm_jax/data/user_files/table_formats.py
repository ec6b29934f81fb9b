"""The format of a table, by the ending and the first bytes of its file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_jax.data.user_files.class_folders import class_rows, images_below
from vlm_jax.data.user_files.columns import Columns
from vlm_jax.data.user_files.flickr8k import is_token_file, token_rows
from vlm_jax.data.user_files.parquet_tables import parquet_rows
from vlm_jax.data.user_files.tar_shards import tar_rows
from vlm_jax.data.user_files.text_tables import TableRows, is_json_lines, json_lines, json_list, separated
from vlm_jax.errors import InputError

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".tar")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
PACKED = {
    b"\x1f\x8b": "is packed by gzip; unpack it",
    b"PK\x03\x04": "is a ZIP archive, or an Excel workbook; unpack it, or save it as CSV",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
}


class Table(NamedTuple):
    """A table that can be read."""

    layout: str
    """What it is read as, such as `CSV`."""
    rows: TableRows
    names_columns: bool = True
    """Whether the file says what its columns are."""


class Source(NamedTuple):
    """What the reading of a table depends on beside its file."""

    columns: Columns
    question: str
    """The question that the name of a class answers."""
    directory: Path
    """Where what is read once is kept."""


def open_table(path: Path, name: str, source: Source) -> Table:
    """The table in a file or a folder; `name` is what ids call it. `InputError` where it is none."""
    if path.is_dir():
        return Table("a folder per class", class_rows(path, source.question), names_columns=False)
    with path.open("rb") as file:
        head = file.read(4096)
    for magic, problem in PACKED.items():
        if head.startswith(magic):
            raise InputError(f"{path} {problem}")
    ending = path.suffix.lower()
    if head.startswith(b"PAR1") or ending == ".parquet":
        return Table("parquet", parquet_rows(path, source.columns, source.directory))
    if head[257:262] == b"ustar" or ending == ".tar":
        return Table("a tar archive", tar_rows(path, name, source.directory))
    if ending in (".jsonl", ".ndjson") or (ending == ".json" and is_json_lines(path)):
        return Table("JSON Lines", json_lines(path))
    if ending == ".json":
        return Table("a JSON list", json_list(path))
    if is_token_file(head):
        return Table("Flickr8k's tokens", token_rows(path), names_columns=False)
    if ending not in (".csv", ".tsv") and head.lstrip(b"\xef\xbb\xbf \r\n").startswith((b"{", b"[")):
        return Table("JSON Lines", json_lines(path)) if is_json_lines(path) else Table("a JSON list", json_list(path))
    return Table(
        "TSV" if ending == ".tsv" else "CSV", separated(path, source.columns.check_header, source.columns.lists)
    )


def table_files(splits: Mapping[str, Sequence[Path]]) -> dict[str, tuple[Path, ...]]:
    """The files of each split; a folder stands for the table in it, its shards, its classes, or for the splits in it.

    `InputError` for a folder that is none of them.
    """
    train = splits["train"]
    if len(train) == 1 and not splits["validation"] and not splits["test"] and train[0].is_dir():
        splits = _folders_of_splits(train[0]) or _shards_of_splits(train[0]) or splits
    return {split: tuple(file for path in paths for file in _files(path)) for split, paths in splits.items()}


def _folders_of_splits(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The folders of the splits in a folder; empty where it has none. `InputError` where it has other ones as well.

    What begins with `.` or `_` is none: macOS packs a folder `__MACOSX` beside the others.
    """
    folders = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._"}
    splits = {
        split: tuple(folders[name] for name in names if name in folders) for split, names in SPLIT_FOLDERS.items()
    }
    named = {entry for entries in splits.values() for entry in entries}
    others = sorted(entry.name for entry in folders.values() if entry not in named)
    if not splits["train"] or _tables(folder) or (others and len(named) == 1):  # a class may be called `train`
        return {}
    if others:
        raise InputError(
            f"{folder} has folders of splits ({', '.join(sorted(entry.name for entry in named))}) and others, "
            f"{', '.join(others[:5])}; give that of training as --data, others as --data.validation and --data.test"
        )
    return splits


def _shards_of_splits(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The shards of each split, such as `train-00000-of-00002.parquet`; empty where not every shard has a split."""
    shards = _tables(folder)
    names = [re.split(r"[-_.]", shard.name.lower())[0] for shard in shards]
    splits = {
        split: tuple(shard for shard, name in zip(shards, names, strict=True) if name in aliases)
        for split, aliases in SPLIT_FOLDERS.items()
    }
    return splits if splits["train"] and sum(map(len, splits.values())) == len(shards) else {}


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if tables := _tables(path):
        return tables
    if others := sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in (".csv", ".tsv", ".jsonl")):
        raise InputError(f"{path} is a folder with the table {others[0]}; give the file: {path / others[0]}")
    if any("/" in name for name in images_below(path)):
        return [path]
    names = ", ".join(METADATA)
    raise InputError(f"{path} is a folder without {names}, shards (.tar, .parquet) or folders of classes with images")


def _tables(folder: Path) -> list[Path]:
    """The table of a folder, as Hugging Face names it, or else its shards; img2dataset puts parquet beside its own."""
    metadata = [folder / name for name in METADATA if (folder / name).is_file()]
    return metadata[:1] or sorted(folder.glob("*.tar")) or sorted(folder.glob("*.parquet"))
