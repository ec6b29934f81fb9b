"""COCO's published captions: `captions_train2017.json` and the like, 2014 or 2017, several files a split if wanted.

Layout: https://cocodataset.org/#format-data. An image's id is its COCO number, as the format of results wants it.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from vlm_jax.data.settings import CaptionFiles, OwnFiles, Reader, Texts
from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.json_files import load_lists
from vlm_jax.data.user_files.rows import (
    MissingImageError,
    Reading,
    Rows,
    UnusableError,
    checked_coco_id,
    checked_id,
    checked_object,
    checked_text,
)
from vlm_jax.errors import counted, shown
from vlm_jax.types import Json, Text

# The folder of images itself, or one that unpacked archives lie in.
FOLDERS = ("", "train2017/", "val2017/", "train2014/", "val2014/")


def read_coco_captions(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """The captions by image in the files' order; an image that is not there is one bad row, however many captions.

    An image in several files is one image.
    """
    rows, names = Rows(id_name="id"), {}
    for path in paths:
        content = load_lists(path, "images", "annotations")
        captions = Counter(_image_id_or_none(fields) for fields in content["annotations"])
        files: dict[int, Path | None] = {}
        for place, fields in _entries(content, "images", "image"):
            with rows.row(path, place):
                image = checked_coco_id(checked_object(fields).get("id"), "id")
                if image in files:
                    raise UnusableError("an earlier entry has the same id")
                files[image] = None  # an image that cannot be used is named once, its captions are not
                name = checked_text(fields.get("file_name"), "file_name")
                if names.setdefault(image, name) != name:
                    raise UnusableError(f"the file_name is {shown(name)}, in an earlier file {shown(names[image])}")
                if not captions[image]:
                    raise UnusableError("no caption has this image_id")
                files[image] = _image_file(name, captions[image], image_folder)
        for place, fields in _entries(content, "annotations", "caption"):
            with rows.row(path, place):
                _add(checked_object(fields), files, rows)
    return rows.reading()


def find_coco_image(name: str, image_folder: ImageFolder) -> tuple[str, Path] | None:
    """Its path and file: as named or, of `COCO_val2014_NUMBER.jpg`, as COCO 2017 names it; here or in its archive's."""
    of_2014 = re.fullmatch(r"COCO_\w+_(\d{12}\.jpg)", posixpath.basename(name))
    names = [name, of_2014[1]] if of_2014 else [name]
    return image_folder.find_first(folder + alias for alias in names for folder in FOLDERS)


def _entries(content: dict[str, list[Json]], name: str, what: str) -> Iterator[tuple[str, Json]]:
    """The entries of a list, each with its id for a message, or where there is none its number, from 1."""
    for number, fields in enumerate(content[name], 1):
        known = fields.get("id") if isinstance(fields, dict) else None
        place = f"{name} entry {number}" if known is None else f"{what} {shown(known)}"
        yield place, fields


def _image_id_or_none(fields: Json) -> int | None:
    image = fields.get("image_id") if isinstance(fields, dict) else None
    return image if isinstance(image, int) else None


def _image_file(name: str, captions: int, image_folder: ImageFolder) -> Path:
    lost = f"; its {counted(captions, 'caption')} cannot be used"
    try:
        image_file = find_coco_image(name, image_folder)
    except UnusableError as error:
        raise UnusableError(f"{error}{lost}") from None
    if image_file is None:
        missing = image_folder.missing(name)
        raise MissingImageError(f"{missing}{lost}", missing.folder)
    return image_file[1]


def _add(fields: dict[str, Json], files: dict[int, Path | None], rows: Rows) -> None:
    caption_id = checked_id(fields.get("id"), "id")
    image = checked_coco_id(fields.get("image_id"), "image_id")
    text = checked_text(fields.get("caption"), "the caption")
    if image not in files:
        raise UnusableError(f"no image has the id {image}")
    if (file := files[image]) is not None:
        rows.add(str(image), file, Text(caption_id, text, (), "caption"))


class CocoCaptions(CaptionFiles):
    """COCO's captions."""

    kind: Literal["coco_captions"] = "coco_captions"
    reader: ClassVar[Reader] = staticmethod(read_coco_captions)


class CocoImages(OwnFiles):
    """Images of COCO's captions."""

    kind: Literal["coco_captions"] = "coco_captions"
    holds: ClassVar[Texts] = "captions"
    reader: ClassVar[Reader] = staticmethod(read_coco_captions)


SETTINGS = {"captions": CocoCaptions, "images": CocoImages}
