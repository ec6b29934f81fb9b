"""Karpathy's splits of COCO, Flickr8k and Flickr30k: `dataset_coco.json` and the like, one file for every split.

Layout: https://cs.stanford.edu/people/karpathy/deepimagesent/. An image has `filename` (and `filepath`, its folder),
`split`, `sentences` with `raw` and `sentid`, and in COCO `cocoid`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from vlm_jax.data.settings import Captions, Reader, Texts, UserDataset
from vlm_jax.data.user_files.coco_captions import find_coco_image
from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.json_files import load_lists, plain_object
from vlm_jax.data.user_files.rows import (
    Reading,
    Rows,
    UnusableError,
    checked_coco_id,
    checked_id,
    checked_list,
    checked_object,
    checked_text,
)
from vlm_jax.errors import shown
from vlm_jax.settings.effects import Place
from vlm_jax.types import Json, Text

# COCO's `restval` are validation images that nothing is measured on; all train on them.
SPLIT_OF = {"train": "train", "restval": "train", "val": "validation", "test": "test"}


def read_karpathy(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """The captions by image, with the split of each; an image's id is its COCO number, or else its path."""
    rows = Rows(id_name="sentid")
    for path in paths:
        for number, fields in enumerate(load_lists(path, "images", object_hook=_without_tokens)["images"], 1):
            name = fields.get("filename") if isinstance(fields, dict) else None
            place = f"image {shown(name)}" if isinstance(name, str) else f"images entry {number}"
            with rows.row(path, place):
                image_id, file, split = _checked_image(checked_object(fields), image_folder)
                sentences = checked_list(fields.get("sentences"), "sentences")
                if image_id in rows.splits:
                    raise UnusableError("an earlier entry is about the same image")
                rows.splits[image_id] = split
                for position, sentence in enumerate(sentences, 1):
                    with rows.row(path, f"{place}, sentence {position}"):
                        caption_id = checked_id(checked_object(sentence, "the sentence").get("sentid"), "sentid")
                        text = checked_text(sentence.get("raw"), "raw")
                        rows.add(image_id, file, Text(caption_id, text, (), "caption"))
    return rows.reading()


def _without_tokens(pairs: list[tuple[str, Json]]) -> dict[str, Json] | None:
    """An object without the words of a sentence, which are most of the memory."""
    fields = plain_object(pairs)
    if fields is not None:
        fields.pop("tokens", None)
    return fields


def _checked_image(fields: dict[str, Json], image_folder: ImageFolder) -> tuple[str, Path, str]:
    """Id, file and split of an image."""
    name = checked_text(fields.get("filename"), "filename")
    if fields.get("filepath") is not None:
        name = f"{checked_text(fields['filepath'], 'filepath')}/{name}"
    split = checked_text(fields.get("split"), "split")
    if split not in SPLIT_OF:
        raise UnusableError(f"split is {shown(split)}; expected one of {', '.join(SPLIT_OF)}")
    number = None if fields.get("cocoid") is None else checked_coco_id(fields["cocoid"], "cocoid")
    image_file = find_coco_image(name, image_folder) or find_coco_image(fields["filename"], image_folder)
    if image_file is None:
        raise image_folder.missing(name)
    return image_file[0] if number is None else str(number), image_file[1], SPLIT_OF[split]


class KarpathyImages(UserDataset):
    """Images of Karpathy's splits of COCO, Flickr8k or Flickr30k."""

    kind: Literal["karpathy"] = "karpathy"
    train: Place[tuple[Path]]
    """The one file, which holds every split (short: --data)."""
    holds: ClassVar[Texts] = "captions"
    divided: ClassVar[bool] = True
    reader: ClassVar[Reader] = staticmethod(read_karpathy)


class Karpathy(KarpathyImages):
    """Karpathy's splits of COCO, Flickr8k or Flickr30k."""

    captions: Captions = "all"
    """Captions of an image that are learned. All captions stay references for the scores."""


SETTINGS = {"captions": Karpathy, "images": KarpathyImages}
