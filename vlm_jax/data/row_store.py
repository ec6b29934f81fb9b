"""Arrays of one shape in one directory, found by key: appended once, read through a memory map by any process."""

import fcntl
import math
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Shaped

from vlm_jax.errors import InputError
from vlm_jax.files import flush
from vlm_jax.integrity import read_manifest, write_manifest
from vlm_jax.types import Json

FORMAT = 1  # of the files below
SPECIFICATION, ROWS, INDEX, LOCK = "specification.json", "rows.bin", "index.txt", "lock"
KEY_DIGITS = 32
_LINE = KEY_DIGITS + 10  # bytes: the key, a space, the checksum in 8 hexadecimal digits, the end of the line
_DAMAGED = b"0" * KEY_DIGITS  # stands for the key of a row that is not as it was written

Row = Shaped[np.ndarray, "*shape"]


class _Entry(NamedTuple):
    number: int
    """Place of the row in the file."""
    checksum: int
    """CRC-32 of its bytes."""


class RowStore:
    """Rows of the shape and type that a specification says, with whatever else decides their values.

    A row is on the disk before its line in the index: a kill loses the rows in work, and what it left half written is
    cut off before the next row is appended. A row is compared with its checksum when a process first reads it. A store
    is pickled as its place. Raises `InputError` where the directory holds something else.
    """

    def __init__(self, directory: Path, specification: dict[str, Json]) -> None:
        self.directory, self.specification = directory, specification
        self.shape, self.dtype = tuple(specification["shape"]), np.dtype(specification["dtype"])
        self.row_bytes = math.prod(self.shape) * self.dtype.itemsize
        self.refresh()

    @classmethod
    def open(cls, directory: Path) -> "RowStore":
        """The store in a directory, whatever it holds; `InputError` where it is none."""
        return cls(directory, _read_specification(directory))

    def __reduce__(self) -> tuple[type["RowStore"], tuple[Path, dict[str, Json]]]:
        return RowStore, (self.directory, self.specification)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Row | None:
        """The row of a key, read-only; None where there is none, or it is damaged, which the index then says."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        row = self._rows[entry.number]
        if not self._checked[entry.number]:
            if zlib.crc32(row) != entry.checksum:
                self._discard(key, entry)
                return None
            self._checked[entry.number] = True
        return row

    def refresh(self) -> None:
        """Find what is on the disk by now."""
        self._entries: dict[str, _Entry] = {}
        self._rows = np.empty((0, *self.shape), self.dtype)
        if (self.directory / SPECIFICATION).exists():
            self._check_specification()
            self._map()
        self._checked = np.zeros(len(self._rows), bool)

    @contextmanager
    def writing(self) -> Iterator[Callable[[str, Row], None]]:
        """A function that appends the row of a key, from any thread; other processes wait until the block ends.

        What others have written is found first. Raises `OSError` where the directory cannot be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.directory / SPECIFICATION).exists():
                write_manifest(self.directory / SPECIFICATION, {"format": FORMAT, **self.specification})
            self.refresh()
            with self._end_of(ROWS, self.row_bytes) as rows, self._end_of(INDEX, _LINE) as index:
                yield _Appending(rows, index, self.dtype)
            for name in (ROWS, INDEX):
                flush(self.directory / name)
        self.refresh()

    def _end_of(self, name: str, item_bytes: int) -> BinaryIO:
        """A file, opened to be written after its last whole item; what follows is gone."""
        file = (self.directory / name).open("ab", buffering=0)
        file.truncate(len(self._rows) * item_bytes)
        return file

    def _check_specification(self) -> None:
        known = _read_specification(self.directory)
        if known != self.specification:
            raise InputError(f"{self.directory} holds other rows than its name says")

    def _map(self) -> None:
        rows, index = self.directory / ROWS, self.directory / INDEX
        if not (rows.exists() and index.exists()):
            return
        lines = index.read_bytes()
        count = min(len(lines) // _LINE, rows.stat().st_size // self.row_bytes)
        if not count:
            return
        self._rows = np.memmap(rows, self.dtype, "r", shape=(count, *self.shape)).view(np.ndarray)
        for number in range(count):
            key, _, checksum = lines[number * _LINE : (number + 1) * _LINE].rstrip().partition(b" ")
            try:
                if key != _DAMAGED:
                    self._entries[key.decode("ascii")] = _Entry(number, int(checksum, 16))
            except ValueError:
                continue  # a damaged line: its row is as good as none

    def _discard(self, key: str, entry: _Entry) -> None:
        """Forget a damaged row, here and, where it can be written, in the index: the next filling makes it again."""
        self._entries.pop(key, None)
        try:
            with (self.directory / INDEX).open("r+b") as index:
                index.seek(entry.number * _LINE)
                index.write(_DAMAGED)
        except OSError:
            pass


class _Appending:
    """Appends rows to an open store, one at a time, until one could not be written: what follows would be displaced."""

    def __init__(self, rows: BinaryIO, index: BinaryIO, dtype: np.dtype) -> None:
        self._rows, self._index, self._dtype = rows, index, dtype
        self._one_at_a_time = threading.Lock()
        self._failure: OSError | None = None

    def __call__(self, key: str, row: Row) -> None:
        content = np.ascontiguousarray(row, self._dtype)
        line = f"{key} {zlib.crc32(content):08x}\n".encode("ascii")
        with self._one_at_a_time:
            if self._failure is not None:
                raise self._failure
            try:
                _write(self._rows, memoryview(content).cast("B"))
                _write(self._index, memoryview(line))
            except OSError as error:
                self._failure = error
                raise


def remove_rows(directory: Path) -> None:
    """Remove the files of a store, whatever version wrote them; raises `OSError` where a process is filling it.

    Its lock stays, since another process may wait for it. Who reads the rows reads on.
    """
    with (directory / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "another process is filling it") from None
        for name in (INDEX, ROWS, SPECIFICATION):
            (directory / name).unlink(missing_ok=True)


def _write(file: BinaryIO, content: memoryview) -> None:
    """All of it: the system may write a part, and say why at the next call."""
    while content:
        content = content[os.write(file.fileno(), content) :]


def _read_specification(directory: Path) -> dict[str, Json]:
    """What the rows of a store are; `InputError` where it was written by another version, or is damaged."""
    specification = read_manifest(directory / SPECIFICATION)
    if (written := specification.pop("format", None)) != FORMAT:
        raise InputError(f"{directory} was written by another version (format {written}, this one reads {FORMAT})")
    return specification
