"""What lies below `data.directory`: caches, compiled programs and prepared data sets, each with its size."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from vlm_jax.compilation_cache import FOLDER as COMPILED
from vlm_jax.data.caches import FOLDER as CACHE
from vlm_jax.data.data_sets import prepared_names
from vlm_jax.data.joined_zip import FOLDER as PACKAGES
from vlm_jax.data.row_store import INDEX, LOCK, RowStore, remove_rows
from vlm_jax.data.user_files.stored_rows import FOLDER as TABLES
from vlm_jax.errors import InputError, counted

IMAGE_TOKENS = "image_tokens"  # `tasks.trained_tokenizer` writes them
NAMES = {"image_tokens": IMAGE_TOKENS, "tables": TABLES, "packages": PACKAGES, "compiled": COMPILED}

Kind = Literal["images", "features", "image_tokens", "tables", "packages", "compiled", "prepared"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MADE_AGAIN: tuple[Kind, ...] = ("images", "features", "image_tokens", "packages", "compiled")
"""What the next run that needs it makes again, and a run that reads it goes on without."""


class Content(NamedTuple):
    """One cache, all compiled programs, or a prepared data set."""

    kind: Kind
    path: Path
    size: int
    """In bytes."""
    description: str


def contents(directory: Path) -> Iterator[Content]:
    """Everything of ours below a directory, kind by kind."""
    for kind in ("images", "features"):
        for path in sorted((directory / CACHE / kind).glob("*")):
            if (size := _size(path)) or (path / INDEX).exists():
                yield Content(kind, path, size, _rows(path))
    for kind, name in NAMES.items():
        if size := _size(directory / name):
            files = sum(file.is_file() for file in (directory / name).rglob("*"))
            yield Content(kind, directory / name, size, counted(files, "file"))
    for name in prepared_names():
        if size := _size(directory / name):
            yield Content("prepared", directory / name, size, name)


def remove(content: Content) -> None:
    """Remove it; a cache of rows that a process fills stays. Raises `OSError`."""
    if content.kind in ("images", "features"):
        remove_rows(content.path)
    else:
        shutil.rmtree(content.path)


def _rows(path: Path) -> str:
    try:
        store = RowStore.open(path)
    except InputError:
        return "of another version, or damaged"
    rows = f"{len(store):,} of {' x '.join(map(str, store.shape))}"
    details = [store.specification.get(name) for name in ("encoder", "resize")]
    return ", ".join([rows, *(detail["kind"] for detail in details if detail)])


def _size(path: Path) -> int:
    """Of all files below a directory, in bytes; 0 where there is none."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.name != LOCK)
