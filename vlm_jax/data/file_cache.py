"""What has been found out about files, remembered until a file changes: by its path, size and time."""

import errno
import functools
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from vlm_jax.files import text_sha256, write_text
from vlm_jax.text_lines import read_lines
from vlm_jax.types import StoredImage


def fingerprint(file: Path | StoredImage | bytes) -> str:
    """A file, or a part of it, as it is now, in one word a fact: another one of the same name has another mark."""
    if isinstance(file, bytes):
        return f"{len(file)} 0 {hashlib.sha256(file).hexdigest()[:32]}"
    path, name = file, str(file)
    if isinstance(file, StoredImage):
        path, name = file.file, f"{file.file}:{file.offset}+{file.size}"
    try:
        state = path.stat()
    except OSError as error:
        return f"gone {error.errno} {digest(name)}"
    return f"{state.st_size} {state.st_mtime_ns} {digest(name)}"


def digest(text: str) -> str:
    """32 hexadecimal digits of a text's SHA-256."""
    return text_sha256(text)[:32]


def read_cache(cache_file: Path) -> set[str]:
    """The lines that were remembered; none where there is no such memory, or it is not as it was written."""
    try:
        first, *lines = read_lines(cache_file)
    except (OSError, ValueError):
        return set()
    return set(lines) if first == digest("\n".join(lines)) else set()


def write_cache(cache_file: Path, lines: Iterable[str]) -> None:
    """Write the lines, whole or not at all; where the file cannot be written, a note says so.

    The first line is the digest of the others: a damaged memory would say that data is another one.
    """
    text = "\n".join(sorted(lines))
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(cache_file, f"{digest(text)}\n{text}\n")
    except OSError as error:
        note_unwritable(cache_file.parents[1], error, f"what is known of images is not kept in {cache_file}")


def note_unwritable(directory: Path, error: OSError, what: str) -> None:
    """Print that something is not kept below `data.directory`; of one that is read-only once, whatever it is."""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        _note_once(f"note: {directory} cannot be written ({error.strerror}): what is there is read, nothing is cached")
    else:
        print(f"note: {what}: {error.strerror}", file=sys.stderr)


@functools.cache
def _note_once(line: str) -> None:
    print(line, file=sys.stderr)
