"""JSON Lines: the captions of an image a line, `{"image": "cat.png", "captions": ["a cat", "a black cat"]}`.

Several lines about one image add up. The key `group` is optional, such as a patient: automatic splits keep its images
together. Other keys are left alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_jax.data.image_folder import ImageFolder
from vlm_jax.data.jsonl import checked_list, read_lines
from vlm_jax.data.rows import Reading
from vlm_jax.types import Text


def read_caption_lines(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """The captions by image, and the lines that cannot be used; a caption's id is FILE NAME:LINE#NUMBER, from 1."""
    return read_lines(paths, image_folder, keys=("image", "captions"), texts_of=_captions)


def _captions(row: dict[str, Any], line_id: str) -> tuple[Text, ...]:
    texts = enumerate(checked_list(row, "captions"), 1)
    return tuple(Text(f"{line_id}#{number}", text, (), "caption") for number, text in texts)
