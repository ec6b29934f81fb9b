"""The members of a tar archive, one header at a time; nothing is unpacked, and no name becomes a path.

Not by Python's `tarfile`: at a damaged header it ends as if the archive did, and images would be lost in silence.
Format: POSIX.1-2001 (pax) and GNU tar, https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vlm_jax.errors import InputError

BLOCK = 512  # bytes
LONGEST_NAME = 1_000_000  # bytes of the headers that hold a long name
REGULAR = (b"0", b"\0", b"7")
LONG_NAME, PAX, PAX_GLOBAL, SPARSE = b"L", b"x", b"g", b"S"
WITH_DATA = (*REGULAR, LONG_NAME, b"K", PAX, b"X", PAX_GLOBAL)


class Member(NamedTuple):
    """One member of an archive."""

    name: str
    offset: int
    size: int
    """Where its content is, in bytes."""
    regular: bool
    """Whether it is a file, and no link, folder or device."""


def tar_members(path: Path) -> Iterator[Member]:
    """The members in their order; `InputError` where the archive is cut short, damaged or has sparse files."""
    end = path.stat().st_size
    with path.open("rb") as file:
        name, size, place = "", None, 0
        while True:
            header = file.read(BLOCK)
            if header == bytes(BLOCK):
                return
            if len(header) < BLOCK:
                raise InputError(f"{path} is cut short: no end of the archive after byte {place:,}")
            kind, length = _checked(path, header, place)
            data, place = place + BLOCK, place + BLOCK
            if kind in REGULAR and size is not None:
                length = size
            if kind not in WITH_DATA:
                length = 0
            place += -(-length // BLOCK) * BLOCK
            if data + length > end:
                raise InputError(f"{path} is cut short: a member of {length:,} bytes at byte {data:,} of {end:,}")
            if kind in (LONG_NAME, PAX):
                content = _extension(path, file, length)
                name, size = (_text(content), size) if kind == LONG_NAME else _pax(path, content, name, size)
            elif kind not in (b"K", b"X", PAX_GLOBAL):
                yield Member(name or _name(header), data, length, kind in REGULAR)
                name, size = "", None
            file.seek(place)


def _checked(path: Path, header: bytes, place: int) -> tuple[bytes, int]:
    """The type and the length of a member; `InputError` where the checksum does not fit."""
    blank = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if _number(header[148:156]) != blank or (length := _number(header[124:136])) is None:
        raise InputError(f"{path} is a damaged tar archive: no header at byte {place:,}")
    if header[156:157] == SPARSE:
        raise InputError(f"{path} has a sparse file at byte {place:,}; write the archive without them")
    return header[156:157], length


def _number(field: bytes) -> int | None:
    """An octal number, or a positive one in base 256; None where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip()
    return int(digits, 8) if digits and all(digit in b"01234567" for digit in digits) else None if digits else 0


def _extension(path: Path, file: BinaryIO, length: int) -> bytes:
    if length > LONGEST_NAME:
        raise InputError(f"{path} is a damaged tar archive: a name of {length:,} bytes")
    return file.read(length)


def _pax(path: Path, content: bytes, name: str, size: int | None) -> tuple[str, int | None]:
    """The name and the size that a pax header gives the next member: records `LENGTH KEY=VALUE\\n`."""
    while content:
        length = content.partition(b" ")[0]
        if not length.isdigit() or not len(length) < int(length[:9]) <= len(content):
            raise InputError(f"{path} is a damaged tar archive: a pax header that is none")
        record, content = content[len(length) + 1 : int(length) - 1], content[int(length) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise InputError(f"{path} has a sparse file; write the archive without them")
    return name, size


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace")
