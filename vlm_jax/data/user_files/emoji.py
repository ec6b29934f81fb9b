"""Emoji drawings with the names people gave them: `google/CODE.png`, `fluent3d/CODE.png` and `captions.json`.

`captions.json` is a list of objects with `code` (`1f600`), `label` ("grinning face"), `tags` (other words for it, which
may be none) and `renderings`, the folders that have a drawing of it. A label is in one split only, by its code;
another hand's drawings test what was learned of labels seen, and unseen, in training.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.json_files import load_json
from vlm_jax.data.user_files.rows import Reading, Rows, UnusableError, checked_text, plain_object
from vlm_jax.errors import InputError, shown
from vlm_jax.types import Text

CAPTIONS = "captions.json"
# By the folder of a drawing and the part its label falls into; the rest of the second hand's is nobody's.
SPLIT_OF = {
    ("google", "train"): "train",
    ("google", "validation"): "validation",
    ("google", "test"): "test",
    ("fluent3d", "train"): "test_style",
    ("fluent3d", "test"): "test_style_unseen",
}
SPLITS = tuple(SPLIT_OF.values())


def part_of(code: str) -> str:
    """A tenth of the labels is for tests, a tenth for validation."""
    return {0: "test", 1: "validation"}.get(zlib.crc32(code.encode()) % 10, "train")


def read_emoji(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """A drawing's label (of the kind `caption`) and then its tags (`tag`); an image's id is FOLDER/CODE.png."""
    rows, splits = Rows(id_name="id"), {}
    for path in paths:
        for number, fields in enumerate(_list(path), 1):
            code = fields.get("code") if isinstance(fields, dict) else None
            place = f"emoji {shown(code)}" if isinstance(code, str) else f"entry {number}"
            try:
                texts, renderings = _texts(fields), list(_renderings(fields, image_folder))
                if any(image_id in splits for _, image_id, _ in renderings):
                    raise UnusableError("an earlier entry has the same code")
            except UnusableError as error:
                rows.refuse(path, place, error)
                continue
            for split, image_id, file in renderings:
                splits[image_id] = split
                for n, (kind, text) in enumerate(texts, 1):
                    rows.add(image_id, file, Text(f"{image_id}#{n}", text, (), kind))
    reading = rows.reading()
    return reading._replace(splits=tuple(splits[example.image_id] for example in reading.examples))


def _list(path: Path) -> list[Any]:
    expected = "a list of emoji with their labels"
    content = load_json(path, expected=expected, object_hook=plain_object)
    if not isinstance(content, list):
        raise InputError(f"{path} holds {shown(content)}; expected {expected}")
    return content


def _texts(fields: Any) -> list[tuple[str, str]]:
    if not isinstance(fields, dict):
        raise UnusableError("the entry is no object with keys that differ")
    label = checked_text(fields.get("label"), "label")
    tags = [(name, tag) for name, tag in _checked_texts(fields, "tags", "tag") if tag != label]
    return [("caption", label), *tags]


def _renderings(fields: dict[str, Any], image_folder: ImageFolder) -> Iterator[tuple[str, str, Path]]:
    """Split, id and file of each drawing that a split has."""
    code = checked_text(fields.get("code"), "code")
    for _, folder in dict.fromkeys(_checked_texts(fields, "renderings", "rendering")):
        split = SPLIT_OF.get((folder, part_of(code)))
        if split is None:
            continue
        image_file = image_folder.find(f"{folder}/{code}.png")
        if image_file is None:
            raise UnusableError(f"no image {shown(f'{folder}/{code}.png')}")
        yield split, *image_file


def _checked_texts(fields: dict[str, Any], key: str, kind: str) -> list[tuple[str, str]]:
    values = fields.get(key)
    if not isinstance(values, list):
        raise UnusableError(f"{key} must be a list, not {shown(values)}")
    return [(kind, checked_text(value, f"{kind} {number}")) for number, value in enumerate(values, 1)]
