"""Karpathy's splits of COCO, Flickr8k and Flickr30k: `dataset_coco.json` and the like, one file for every split.

Layout: https://cs.stanford.edu/people/karpathy/deepimagesent/. An image has `filename` (and `filepath`, its folder),
`split`, `sentences` with `raw` and `sentid`, and in COCO `cocoid`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_jax.data.user_files.coco_captions import checked_coco_id, find_coco_image
from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.json_files import load_json
from vlm_jax.data.user_files.rows import Reading, Rows, UnusableError, checked_id, checked_text, plain_object
from vlm_jax.errors import InputError, shown
from vlm_jax.types import Text

# COCO's `restval` are validation images that nothing is measured on; all train on them.
SPLIT_OF = {"train": "train", "restval": "train", "val": "validation", "test": "test"}


def read_karpathy(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """The captions by image, with the split of each; an image's id is its COCO number, or else its path."""
    rows, splits = Rows(id_name="sentid"), {}
    for path in paths:
        for number, fields in enumerate(_images(path), 1):
            name = fields.get("filename") if isinstance(fields, dict) else None
            place = f"image {shown(name)}" if isinstance(name, str) else f"images entry {number}"
            try:
                image_id, file, split = _checked_image(fields, image_folder)
                if image_id in splits:
                    raise UnusableError("an earlier entry is about the same image")
                splits[image_id] = split
            except UnusableError as error:
                rows.refuse(path, place, error)
                continue
            for position, sentence in enumerate(fields["sentences"], 1):
                try:
                    rows.add(image_id, file, _caption(sentence))
                except UnusableError as error:
                    rows.refuse(path, f"{place}, sentence {position}", error)
    reading = rows.reading()
    return reading._replace(splits=tuple(splits[example.image_id] for example in reading.examples))


def _images(path: Path) -> list[Any]:
    expected = "a file of Karpathy's splits, with a list 'images'"
    content = load_json(path, expected=expected, object_hook=_without_tokens)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise InputError(f"{path} has no such list; expected {expected}")
    return images


def _without_tokens(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    """An object without the words of a sentence, which are most of the memory."""
    fields = plain_object(pairs)
    if fields is not None:
        fields.pop("tokens", None)
    return fields


def _checked_image(fields: Any, image_folder: ImageFolder) -> tuple[str, Path, str]:
    """Id, file and split of an image whose sentences are a list."""
    if not isinstance(fields, dict):
        raise UnusableError("the entry is no object with keys that differ")
    name = checked_text(fields.get("filename"), "filename")
    if fields.get("filepath") is not None:
        name = f"{checked_text(fields['filepath'], 'filepath')}/{name}"
    split = checked_text(fields.get("split"), "split")
    if split not in SPLIT_OF:
        raise UnusableError(f"split is {shown(split)}; expected one of {', '.join(SPLIT_OF)}")
    sentences = fields.get("sentences")
    if not isinstance(sentences, list) or not sentences:
        raise UnusableError(f"sentences must be a list of at least one sentence, not {shown(sentences)}")
    number = None if fields.get("cocoid") is None else checked_coco_id(fields, "cocoid")
    image_file = find_coco_image(name, image_folder) or find_coco_image(fields["filename"], image_folder)
    if image_file is None:
        raise UnusableError(f"no image {shown(name)}")
    return image_file[0] if number is None else str(number), image_file[1], SPLIT_OF[split]


def _caption(sentence: Any) -> Text:
    if not isinstance(sentence, dict):
        raise UnusableError("the sentence is no object with keys that differ")
    return Text(checked_id(sentence.get("sentid"), "sentid"), checked_text(sentence.get("raw"), "raw"), (), "caption")
