"""What is computed of images once and kept below `data.directory`: where it lies, how large it may be, who fills it."""

import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from vlm_jax.data.file_cache import digest, note_unwritable
from vlm_jax.data.row_store import ROWS, Row, RowStore
from vlm_jax.data.settings import DataSet
from vlm_jax.errors import InputError
from vlm_jax.types import Json

FOLDER = "cache"
GIGABYTE = 10**9
PROGRESS_SECONDS = 30

Append = Callable[[str, Row], None]
Write = Callable[[Append, list[str]], None]
"""Appends the rows of some keys."""


def open_cache(data: DataSet, kind: str, specification: dict[str, Json]) -> RowStore | None:
    """The rows of a specification; None, with a note, where other ones lie in their place, or caches are off."""
    if not data.cache_gigabytes:
        return None
    try:
        return RowStore(_folder(data) / kind / digest(json.dumps(specification, sort_keys=True)), specification)
    except (InputError, OSError) as error:
        print(f"note: a cache is not used: {error}; remove it, and it is made again", file=sys.stderr)
        return None


def fill(store: RowStore, keys: Collection[str], data: DataSet, *, what: str, write: Write) -> bool:
    """Whether the store has the rows of all keys; those that it lacks are written, where there is room.

    One process fills a store at a time, and another one that waited finds the rows. `what` names the rows in messages.
    Where rows cannot be written a note says so, once.
    """
    missing = [key for key in keys if key not in store]
    if missing and (reason := _no_room(data, len(missing) * store.row_bytes)):
        print(f"note: {what} are not cached: {reason}", file=sys.stderr)
        return False
    try:
        if missing:
            _write(store, keys, data, what=what, write=write)
    except OSError as error:
        store.refresh()
        note_unwritable(data.directory.expanduser(), error, f"{what} are not cached in {store.directory}")
    return all(key in store for key in keys)


def _write(store: RowStore, keys: Collection[str], data: DataSet, *, what: str, write: Write) -> None:
    with store.writing() as append:
        missing = [key for key in keys if key not in store]
        if not missing:
            return
        size = shown_size(len(missing) * store.row_bytes)
        print(f"caching {len(missing):,} {what}, {size}, in {store.directory} (once)", file=sys.stderr, flush=True)
        began = time.perf_counter()
        write(_telling(append, len(missing), what), missing)
    total = shown_size(cache_bytes(_folder(data)))
    took = f"cached in {time.perf_counter() - began:.1f} s"
    print(f"{took}: {_folder(data)} holds {total} of {data.cache_gigabytes:g} GB", file=sys.stderr, flush=True)


def _telling(append: Append, total: int, what: str) -> Append:
    """`append` that prints how far it is and how long the rest takes, every `PROGRESS_SECONDS`.

    The time counts from the first row, before which a program may be compiled.
    """
    written, began = itertools.count(1), []

    def append_and_tell(key: str, row: Row) -> None:
        append(key, row)
        number, now = next(written), time.monotonic()
        if number == 1:
            began.extend((now, now + PROGRESS_SECONDS))
        elif began and now > began[1]:  # other threads may be ahead of the first row
            began[1] = now + PROGRESS_SECONDS
            seconds_left = (now - began[0]) / (number - 1) * (total - number)
            print(f"cached {number:,} of {total:,} {what}, {seconds_left:.0f} s left", file=sys.stderr, flush=True)

    return append_and_tell


def _no_room(data: DataSet, needed: int) -> str | None:
    """Why this many bytes cannot be written, in words; None where they can."""
    free = data.cache_gigabytes * GIGABYTE - cache_bytes(_folder(data))
    if needed > free:
        left = shown_size(max(0, int(free)))
        return (
            f"they take {shown_size(needed)}, and data.cache_gigabytes {data.cache_gigabytes:g} leaves {left}; "
            "raise it, or clear what is cached"
        )
    place = _folder(data)
    while not place.exists():
        place = place.parent
    if needed > (free := shutil.disk_usage(place).free):
        return f"they take {shown_size(needed)}, and the disk of {place} has {shown_size(free)} left"
    return None


def cache_bytes(folder: Path) -> int:
    """The size of all rows below a folder."""
    return sum(file.stat().st_size for file in folder.glob(f"*/*/{ROWS}"))


def shown_size(count: int) -> str:
    """Bytes as `1.2 GB` or `44 MB`."""
    for unit, name in ((GIGABYTE, "GB"), (10**6, "MB"), (1000, "kB")):
        if count >= unit:
            value = count / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
    return f"{count} bytes"


def _folder(data: DataSet) -> Path:
    return data.directory.expanduser() / FOLDER
