"""A folder per class: `photos/cat/1.jpg`. The name of the class answers one question, or is the caption."""

import os
from collections.abc import Iterator
from pathlib import Path

from vlm_jax.data.user_files.image_folder import IMAGE_ENDINGS, UNREADABLE_ENDINGS
from vlm_jax.data.user_files.rows import UnusableError
from vlm_jax.data.user_files.text_tables import TableRows
from vlm_jax.errors import shown


def class_rows(folder: Path, question: str) -> TableRows:
    """A row for each file that is named as an image, in the order of the paths, at any depth below its class."""
    for path in images_below(folder):
        name, _, rest = path.partition("/")
        if rest:
            yield path, {"image": path, "question": question, "answers": [name], "captions": [name]}
        else:
            yield path, UnusableError(f"the image {shown(path)} is in no folder of a class")


def images_below(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder that are named as images are, sorted; hidden ones are left alone.

    Links to folders are followed, each folder once. `OSError` where a folder cannot be read.
    """
    known = set()
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        if (real := os.path.realpath(place)) in known:
            folders.clear()
            continue
        known.add(real)
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        relative = Path(place).relative_to(folder)
        for name in sorted(names):
            if name.lower().endswith((*IMAGE_ENDINGS, *UNREADABLE_ENDINGS)) and name[0] not in "._":
                yield (relative / name).as_posix()


def _raise(error: OSError) -> None:
    raise error
