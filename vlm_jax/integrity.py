"""Are files what was written? Manifests: JSON with the SHA-256 and size of files, and the SHA-256 of itself.

That finds accidents: a flipped bit, half a copy, an edit by hand. It stops nobody who means harm and has this code.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.files import flush, sha256, text_sha256, write_text
from vlm_jax.types import Json

MANIFEST = "manifest.json"
_SEAL = "sha256_of_the_rest"


def write_manifest(file: Path, content: dict[str, Json]) -> None:
    """Write a manifest, whole or not at all; when this returns, it is on the disk."""
    write_text(file, json.dumps(content | {_SEAL: _digest_of(content)}, indent=1))


def read_manifest(file: Path) -> dict[str, Json]:
    """What `write_manifest` wrote; `InputError` where the file is not that any more."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.pop(_SEAL, None) != _digest_of(content):
        raise InputError(f"{file} is not as it was written")
    return content


def file_entry(file: Path) -> dict[str, Json]:
    """What a manifest says of a file. When this returns, the file is on the disk, as the manifest will be."""
    flush(file)
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def entries_below(folder: Path) -> dict[str, dict[str, Json]]:
    """What a manifest says of all files below a folder but a manifest, by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_entry(path) for path in files if path != folder / MANIFEST}


def change(file: Path, entry: dict[str, Json]) -> str | None:
    """What happened to a file since its facts were taken, in words; None where nothing did.

    Facts may hold others, `or` which the file has: what it is being replaced by.
    """
    if "or" in entry and change(file, entry["or"]) is None:
        return None
    try:
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"has {size:,} bytes instead of {entry['bytes']:,}"
        return None if sha256(file) == entry["sha256"] else "is not as it was written"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def changes_below(folder: Path, entries: dict[str, dict[str, Json]]) -> Iterator[str]:
    """What happened to the files that `entries_below` told of, each in words; other files do not matter."""
    for name, known in entries.items():
        if (why := change(folder / name, known)) is not None:
            yield f"{name} {why}"


def write_digests(folder: Path, file: Path) -> None:
    """Write a manifest of every file below a folder; it may lie in it."""
    write_manifest(file, {"files": entries_below(folder)})


def matches_digests(folder: Path, file: Path) -> bool:
    """Whether every file that `write_digests` listed is there, unchanged; other files do not matter."""
    try:
        return next(changes_below(folder, read_manifest(file)["files"]), None) is None
    except InputError:
        return False


def _digest_of(content: dict[str, Json]) -> str:
    return text_sha256(json.dumps(content, sort_keys=True))
