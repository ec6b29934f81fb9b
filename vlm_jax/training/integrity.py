"""Is a checkpoint what was written (SHA-256 of every file), and does it fit the model (trees, leaf by leaf)?"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vlm_jax.errors import InputError, nearest
from vlm_jax.training.state import parameter_path

SHOWN = 5


def write_digests(folder: Path, file: Path) -> None:
    """Write the SHA-256 of every file in a folder to a JSON file, whole or not at all."""
    part = file.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        json.dump(_digests(folder), stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def matches_digests(folder: Path, file: Path) -> bool:
    """Whether every file that `write_digests` listed is there, unchanged; other files do not matter."""
    try:
        return json.loads(file.read_text(encoding="utf-8")).items() <= _digests(folder).items()
    except (OSError, ValueError):
        return False


def compare_trees(saved: Any, wanted: Any, *, what: str) -> None:
    """Raise `InputError` with the paths whose presence, shape or dtype differs between two trees of arrays."""
    there, here = dict(_leaves(saved)), dict(_leaves(wanted))
    problems = [f"extra {path}" for path in there if path not in here]
    for path, kind in here.items():
        if path not in there:
            problems.append(f"missing {path} ({nearest(path, there)})")
        elif there[path] != kind:
            problems.append(f"{path} is {there[path]}, expected {kind}")
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(f"the {what} do not fit the model: {'; '.join(problems[:SHOWN])}{more}")


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _leaves(tree: Any) -> Iterator[tuple[str, str]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield parameter_path(path), f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
