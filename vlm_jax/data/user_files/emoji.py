"""Images of emoji with the names people gave them: `google/CODE.png`, `fluent3d/CODE.png` and `captions.json`.

`captions.json` is a list of objects with `code` (`1f600`), `label` ("grinning face"), `tags` (other words for it, which
may be none) and `renderings`, the folders that have an image of it. A label is in one split only, by its code;
another designer's images test what was learned of labels seen, and unseen, in training.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from vlm_jax.data.settings import Captions, Reader, Texts, UserDataset
from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.json_files import load_json
from vlm_jax.data.user_files.rows import Reading, Rows, UnusableError, checked_object, checked_text, checked_texts
from vlm_jax.errors import InputError, shown
from vlm_jax.types import Json, Text

CAPTIONS = "captions.json"
# By the folder of an image and the part its label falls into; other images of the second designer are in no split.
SPLIT_OF = {
    ("google", "train"): "train",
    ("google", "validation"): "validation",
    ("google", "test"): "test",
    ("fluent3d", "train"): "test_style",
    ("fluent3d", "test"): "test_style_unseen",
}


def part_of(code: str) -> str:
    """A tenth of the labels is for tests, a tenth for validation."""
    return {0: "test", 1: "validation"}.get(zlib.crc32(code.encode()) % 10, "train")


def read_emoji(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """An emoji's label (of the kind `caption`) and then its tags (`tag`); an image's id is FOLDER/CODE.png."""
    rows = Rows(id_name="id")
    for path in paths:
        for number, fields in enumerate(_emoji_of(path), 1):
            code = fields.get("code") if isinstance(fields, dict) else None
            with rows.row(path, f"emoji {shown(code)}" if isinstance(code, str) else f"entry {number}"):
                label = checked_text(checked_object(fields).get("label"), "label")
                tags = [tag for tag in checked_texts(fields.get("tags"), "tags", empty=True) if tag != label]
                renderings = list(_renderings(fields, image_folder))
                if any(image_id in rows.splits for _, image_id, _ in renderings):
                    raise UnusableError("an earlier entry has the same code")
                for split, image_id, file in renderings:
                    rows.splits[image_id] = split
                    rows.add(image_id, file, Text(f"{image_id}#1", label, (), "caption"))
                    for n, tag in enumerate(tags, 2):
                        rows.add(image_id, file, Text(f"{image_id}#{n}", tag, (), "tag"))
    return rows.reading()


def _emoji_of(path: Path) -> list[Json]:
    expected = "a list of emoji with their labels"
    content = load_json(path, expected=expected)
    if not isinstance(content, list):
        raise InputError(f"{path} holds {shown(content)}; expected {expected}")
    return content


def _renderings(fields: dict[str, Json], image_folder: ImageFolder) -> Iterator[tuple[str, str, Path]]:
    """Split, id and file of each image that a split has."""
    code = checked_text(fields.get("code"), "code")
    for folder in dict.fromkeys(checked_texts(fields.get("renderings"), "renderings", empty=True)):
        if split := SPLIT_OF.get((folder, part_of(code))):
            yield split, *image_folder.existing(f"{folder}/{code}.png")


class EmojiImages(UserDataset):
    """Images of emoji (`experiments.prepare_emoji`)."""

    kind: Literal["emoji"] = "emoji"
    holds: ClassVar[Texts] = "captions"
    splits: ClassVar[tuple[str, ...]] = tuple(SPLIT_OF.values())
    divided: ClassVar[bool] = True
    reader: ClassVar[Reader] = staticmethod(read_emoji)

    @property
    def train(self) -> tuple[Path]:
        """The one file, which lies beside the images."""
        return (self.images / CAPTIONS,)


class Emoji(EmojiImages):
    """Images of emoji and their names (`experiments.prepare_emoji`)."""

    captions: Captions = "all"
    """Names of an emoji that are learned: its label and all tags, or the label alone."""


SETTINGS = {"captions": Emoji, "images": EmojiImages}
