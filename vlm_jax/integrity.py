"""Are the files of a folder what was written? Their SHA-256, kept beside it."""

import hashlib
import json
import os
from pathlib import Path


def write_digests(folder: Path, file: Path) -> None:
    """Write the SHA-256 of every file in a folder to a JSON file, whole or not at all."""
    digests, part = _digests(folder), file.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(digests, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def matches_digests(folder: Path, file: Path) -> bool:
    """Whether every file that `write_digests` listed is there, unchanged; other files do not matter."""
    try:
        return json.loads(file.read_text(encoding="utf-8")).items() <= _digests(folder).items()
    except (OSError, ValueError):
        return False


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
