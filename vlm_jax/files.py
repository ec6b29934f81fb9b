"""Files that are there whole or not at all, digests, and files of JSON."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.types import Json


@contextmanager
def replaced(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, which takes its place when the block ends; on the disk when this returns.

    Where the block raises, `file` stays as it was. A kill leaves the old file or the new one.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        flush(part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    flush(file.parent)


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    with replaced(file) as part:
        part.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Return when a file, or the entries of a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def unused(path: Path) -> Path:
    """The path or, where it exists, the first of `NAME-2`, `NAME-3` and so on that does not."""
    names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """The SHA-256 of a text in UTF-8, in hexadecimal digits; of a path also where it is no UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read_json(file: Path) -> Json:
    """The value in a file of JSON; `InputError` where it holds none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON: {error}") from None


def read_settings_file(file: Path) -> dict[str, Json]:
    """The object in a file of JSON, empty where there is no file; `InputError` where it is something else."""
    if not file.is_file():
        return {}
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise InputError(f"{file} holds {type(settings).__name__}; expected an object of settings")
    return settings
