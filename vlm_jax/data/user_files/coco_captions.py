"""COCO's published captions: `captions_train2017.json` and the like, 2014 or 2017, several files a split if wanted.

Layout: https://cocodataset.org/#format-data. An image's id is its COCO number, as the format of results wants it.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.json_files import load_json
from vlm_jax.data.user_files.rows import Reading, Rows, UnusableError, checked_id, checked_text, plain_object
from vlm_jax.errors import InputError, counted, shown
from vlm_jax.types import Text

# The folder of images itself, or one that unpacked archives lie in.
FOLDERS = ("", "train2017/", "val2017/", "train2014/", "val2014/")


def read_coco_captions(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """The captions by image in the files' order; an image that is not there is one bad row, however many captions.

    An image in several files is one image.
    """
    rows, names = Rows(id_name="id"), {}
    for path in paths:
        content = _content(path)
        captions = Counter(_image_id_or_none(fields) for fields in content["annotations"])
        files: dict[int, Path | None] = {}
        for place, fields in _entries(content, "images", "image"):
            try:
                if not isinstance(fields, dict):
                    raise UnusableError("the entry is no object with keys that differ")
                image = checked_coco_id(fields, "id")
                if image in files:
                    raise UnusableError("an earlier entry has the same id")
                files[image] = None  # an image that cannot be used is named once, its captions are not
                name = checked_text(fields.get("file_name"), "file_name")
                if names.setdefault(image, name) != name:
                    raise UnusableError(f"the file_name is {shown(name)}, in an earlier file {shown(names[image])}")
                if not captions[image]:
                    raise UnusableError("no caption has this image_id")
                files[image] = _found(name, captions[image], image_folder)
            except UnusableError as error:
                rows.refuse(path, place, error)
        for place, fields in _entries(content, "annotations", "caption"):
            try:
                _add(fields, files, rows)
            except UnusableError as error:
                rows.refuse(path, place, error)
    return rows.reading()


def find_coco_image(name: str, image_folder: ImageFolder) -> tuple[str, Path] | None:
    """Its path and file: as named or, of `COCO_val2014_NUMBER.jpg`, as COCO 2017 names it; here or in its archive's."""
    of_2014 = re.fullmatch(r"COCO_\w+_(\d{12}\.jpg)", posixpath.basename(name))
    names = [name, of_2014[1]] if of_2014 else [name]
    for candidate in (folder + alias for alias in names for folder in FOLDERS):
        if (image_file := image_folder.find(candidate)) is not None:
            return image_file
    return None


def checked_coco_id(fields: dict[str, Any], key: str) -> int:
    """The number of an image; `UnusableError` for anything else."""
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**12:
        raise UnusableError(f"{key} must be a whole number of at most 12 digits, not {shown(value)}")
    return value


def _content(path: Path) -> dict[str, Any]:
    expected = "COCO's captions, with lists 'images' and 'annotations'"
    content = load_json(path, expected=expected, object_hook=plain_object)
    lists = [content.get(name) for name in ("images", "annotations")] if isinstance(content, dict) else [None]
    if not all(isinstance(entries, list) for entries in lists):
        raise InputError(f"{path} has no such lists; expected {expected}")
    return content


def _entries(content: dict[str, Any], name: str, what: str) -> Iterator[tuple[str, Any]]:
    """The entries of a list, each with its id for a message, or where there is none its number, from 1."""
    for number, fields in enumerate(content[name], 1):
        known = fields.get("id") if isinstance(fields, dict) else None
        place = f"{name} entry {number}" if known is None else f"{what} {shown(known)}"
        yield place, fields


def _image_id_or_none(fields: Any) -> int | None:
    image = fields.get("image_id") if isinstance(fields, dict) else None
    return image if isinstance(image, int) else None


def _found(name: str, captions: int, image_folder: ImageFolder) -> Path:
    lost = f"; its {counted(captions, 'caption')} cannot be used"
    try:
        image_file = find_coco_image(name, image_folder)
    except UnusableError as error:
        raise UnusableError(f"{error}{lost}") from None
    if image_file is None:
        raise UnusableError(f"no image {shown(name)}{lost}")
    return image_file[1]


def _add(fields: Any, files: dict[int, Path | None], rows: Rows) -> None:
    if not isinstance(fields, dict):
        raise UnusableError("the entry is no object with keys that differ")
    caption_id = checked_id(fields.get("id"), "id")
    image = checked_coco_id(fields, "image_id")
    text = checked_text(fields.get("caption"), "the caption")
    if image not in files:
        raise UnusableError(f"no image has the id {image}")
    if (file := files[image]) is not None:
        rows.add(str(image), file, Text(caption_id, text, (), "caption"))
