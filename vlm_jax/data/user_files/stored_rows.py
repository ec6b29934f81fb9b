"""Rows of a large file that is read once: what it holds, and where its images are, kept below `data.directory`."""

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

from vlm_jax.data.file_cache import digest, fingerprint
from vlm_jax.data.user_files.rows import UnusableError
from vlm_jax.data.user_files.text_tables import TableRows
from vlm_jax.failures import os_failure
from vlm_jax.files import replaced
from vlm_jax.interrupts import on_interrupt
from vlm_jax.types import StoredImage

FOLDER = "table_indexes"
FORMAT = 1
MOST_IN_MEMORY = 2**30  # bytes of a file
ANNOUNCED = 100_000_000  # bytes; less takes seconds
Maker = Callable[[Path, io.BufferedIOBase], TableRows]
"""Reads a file; where images cannot be read from it by their place, it writes them to the second file."""


def stored_rows(path: Path, directory: Path, make: Maker, *, copies: bool, read_as: str = "") -> TableRows:
    """The rows of a file, from its index where that fits the file as it is now; otherwise the index is written.

    `copies` says that `make` writes images, and `read_as` what rows depend on beside the file. Where `directory` cannot
    be written to, the rows come without an index, and images that were to be copied stay in memory; of a file above
    `MOST_IN_MEMORY` an error is raised instead.
    """
    path = path.absolute()
    index = directory.expanduser() / FOLDER / f"{digest(fingerprint(path) + read_as)}-{FORMAT}.jsonl"
    images = index.with_suffix(".images")
    if not _intact(index, images if copies else None):
        if path.stat().st_size > ANNOUNCED:
            print(f"reading {path} (once)", file=sys.stderr, flush=True)
        try:
            _write(index, images, path, make)
            if not copies:
                images.unlink(missing_ok=True)  # another process may have done so
        except OSError as error:
            if copies and path.stat().st_size > MOST_IN_MEMORY:
                raise os_failure(error, f"cannot write the images of {path} to data.directory {directory}") from None
            print(f"note: cannot keep the index of {path} in {index}: {error.strerror}", file=sys.stderr)
            yield from _in_memory(path, make) if copies else make(path, io.BytesIO())
            return
    yield from _read(index, images if copies else path)


def _in_memory(path: Path, make: Maker) -> TableRows:
    buffer = io.BytesIO()
    rows = list(make(path, buffer))
    content = buffer.getvalue()
    for place, row in rows:
        for name, value in [] if isinstance(row, UnusableError) else row.items():
            if isinstance(value, tuple):
                image_id, image = value
                row[name] = (image_id, content[image.offset : image.offset + image.size])
        yield place, row


def _write(index: Path, images: Path, path: Path, make: Maker) -> None:
    index.parent.mkdir(parents=True, exist_ok=True)
    # The index comes last: where it is there, so are the images.
    with contextlib.ExitStack() as stack:
        index_part = stack.enter_context(replaced(index))
        images_part = stack.enter_context(replaced(images))
        for part in (index_part, images_part):
            stack.enter_context(on_interrupt(undo=lambda part=part: part.unlink(missing_ok=True)))
        with index_part.open("wb") as lines, images_part.open("wb") as copied:
            content = hashlib.sha256()
            for place, row in make(path, copied):
                line = json.dumps(_entry(place, row)).encode() + b"\n"
                content.update(line)
                lines.write(line)
            lines.write(json.dumps({"sha256": content.hexdigest(), "images": copied.tell()}).encode())


def _entry(place: int | str, row: dict[str, object] | UnusableError) -> list[object]:
    if isinstance(row, UnusableError):
        return [place, str(row)]
    images = {name: value for name, value in row.items() if isinstance(value, tuple)}
    return [place, {name: value for name, value in row.items() if name not in images}, {
        name: [image_id, image.offset, image.size, image.name] for name, (image_id, image) in images.items()
    }]  # fmt: skip


def _intact(index: Path, images: Path | None) -> bool:
    """Whether an index is there as it was written, and its images are as long as it says."""
    content, line = hashlib.sha256(), b""
    try:
        with index.open("rb") as lines:
            while following := lines.readline():
                content.update(line)
                line = following
        end = json.loads(line)
        fits = images is None or images.stat().st_size == end["images"]
        return fits and end["sha256"] == content.hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read(index: Path, file: Path) -> TableRows:
    with index.open("rb") as lines:
        while (line := lines.readline()).endswith(b"\n"):
            place, row, *stored = json.loads(line)
            if isinstance(row, str):
                yield place, UnusableError(row)
                continue
            for name, (image_id, offset, size, shown_name) in stored[0].items():
                row[name] = (image_id, StoredImage(file, offset, size, shown_name))
            yield place, row
