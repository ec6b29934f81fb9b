"""What has been found out about files, remembered until a file changes: by its path, size and time."""

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from vlm_jax.text_lines import read_lines


def fingerprint(file: Path) -> str:
    """A file as it is now, in one word a fact: another one of the same name has another mark."""
    try:
        state = file.stat()
    except OSError as error:
        return f"gone {error.errno} {digest(str(file))}"
    return f"{state.st_size} {state.st_mtime_ns} {digest(str(file))}"


def digest(text: str) -> str:
    """32 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def read_cache(cache_file: Path) -> set[str]:
    """The lines that were remembered; none where there is no such memory, or it is not as it was written."""
    try:
        first, *lines = read_lines(cache_file)
    except (OSError, ValueError):
        return set()
    return set(lines) if first == digest("\n".join(lines)) else set()


def write_cache(cache_file: Path, lines: Iterable[str]) -> None:
    """Written beside and renamed, so that a second process reads a whole file; without a place, it is not kept.

    The first line is the digest of the others: a damaged memory would say that data is another one.
    """
    text = "\n".join(sorted(lines))
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        beside = cache_file.with_suffix(f".{os.getpid()}")
        beside.write_text(f"{digest(text)}\n{text}\n", encoding="ascii")
        beside.replace(cache_file)
    except OSError as error:
        print(f"note: cannot keep what is known of images in {cache_file}: {error.strerror}", file=sys.stderr)
