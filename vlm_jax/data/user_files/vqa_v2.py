"""The official files of VQA v2: questions in one, the ten answers to each in the other, images from COCO.

Layout: https://visualqa.org/download.html. A file is known by its content, so the order in which they are given does
not matter, and several pairs are read as one split.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from vlm_jax.data.settings import Accuracy, OwnFiles, QuestionFiles, Reader
from vlm_jax.data.user_files.coco_captions import FOLDERS
from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.json_files import load_json, plain_object
from vlm_jax.data.user_files.rows import (
    UNANSWERED,
    Reading,
    Rows,
    UnusableError,
    checked_coco_id,
    checked_id,
    checked_kind,
    checked_list,
    checked_object,
    checked_text,
    without_surrogates,
)
from vlm_jax.errors import InputError, shown
from vlm_jax.settings.effects import Use
from vlm_jax.types import Json, Text


class Entry(NamedTuple):
    """One entry of a file's list, not yet looked into."""

    file: Path
    number: int
    subtype: str
    """Such as `train2014`; part of the names of images."""
    fields: Json

    @property
    def place(self) -> str:
        """The question's id for a message, or where there is none the entry's number, from 1."""
        name = self.fields.get("question_id") if isinstance(self.fields, dict) else None
        return f"entry {self.number}" if name is None else f"question {shown(name)}"

    def question_id(self) -> str:
        """The id of the question that the entry is, or that it answers."""
        return checked_id(checked_object(self.fields).get("question_id"), "question_id")

    def image_id(self) -> int:
        """The image that the entry is about."""
        return checked_coco_id(self.fields.get("image_id"), "image_id")


def read_vqa_v2(paths: Sequence[Path], image_folder: ImageFolder, *, needs_answers: bool = True) -> Reading:
    """The questions by image, with all their answers as people gave them; an image's id is its COCO number.

    Where answers are not needed, the annotations may be left out, as of VQA's own test questions.
    """
    contents = {path: _content(path) for path in paths}
    for name in ("questions", "annotations") if needs_answers else ("questions",):
        if not any(name in content for content in contents.values()):
            file_names = ", ".join(map(str, paths))
            raise InputError(
                f"no {name} in {file_names}; a split of vqa_v2 takes the questions and the annotations file"
            )
    rows = Rows()
    annotations: dict[str, Entry] = {}
    for entry in _entries(contents, "annotations"):
        with rows.row(entry.file, entry.place):
            question_id = entry.question_id()
            if question_id in annotations:
                raise UnusableError("an earlier annotation has the same question_id")
            annotations[question_id] = entry
    matched: set[str] = set()
    for entry in _entries(contents, "questions"):
        with rows.row(entry.file, entry.place):
            question_id = entry.question_id()
            matched.add(question_id)
            if any("annotations" in content for content in contents.values()):
                _add(entry, annotations.get(question_id), question_id, image_folder, rows)
            else:
                _add_unanswered(entry, question_id, image_folder, rows)
    for question_id, entry in annotations.items():
        with rows.row(entry.file, entry.place):
            if question_id not in matched:
                raise UnusableError("no question has this question_id")
    return rows.reading()


def _content(path: Path) -> dict[str, Json]:
    known: dict[str, str] = {}

    def reduced(pairs: list[tuple[str, Json]]) -> Json:
        """An object; of one that holds an answer the answer alone, which saves most of the memory."""
        if (fields := plain_object(pairs)) is None:
            return None
        answer = fields.get("answer")
        return known.setdefault(answer, answer) if isinstance(answer, str) else fields

    content = load_json(path, expected="a file of VQA v2", object_hook=reduced)
    lists = [name for name in ("questions", "annotations") if isinstance(content, dict) and name in content]
    if not lists or not all(isinstance(content[name], list) for name in lists):
        raise InputError(f"{path} holds no list of questions or annotations; expected a file of VQA v2")
    subtype = content.get("data_subtype", "")
    if not isinstance(subtype, str) or not re.fullmatch(r"[\w-]{0,50}", subtype):
        raise InputError(f"{path} has the data_subtype {shown(subtype)}; expected one such as 'train2014'")
    return content


def _entries(contents: dict[Path, dict[str, Json]], name: str) -> Iterator[Entry]:
    for path, content in contents.items():
        for number, fields in enumerate(content.get(name, ()), 1):
            yield Entry(path, number, content.get("data_subtype", ""), fields)


def _add(entry: Entry, annotation: Entry | None, question_id: str, image_folder: ImageFolder, rows: Rows) -> None:
    text = checked_text(entry.fields.get("question"), "the question")
    image = entry.image_id()
    if annotation is None:
        raise UnusableError("no annotation has this question_id")
    if annotation.image_id() != image:
        raise UnusableError(f"the question is about image {image}, its annotation about {annotation.image_id()}")
    answers = checked_list(annotation.fields.get("answers"), "answers")
    for number, answer in enumerate(answers, 1):
        if not isinstance(answer, str):
            raise UnusableError(f"answer {number} has no text")
        without_surrogates(answer, f"answer {number}")
    if not any(answer.strip() for answer in answers):
        raise UnusableError("every answer is empty")
    kind = checked_kind(annotation.fields.get("answer_type"), "answer_type")
    file = _find_image(image, entry.subtype or annotation.subtype, image_folder)
    rows.add(str(image), file, Text(question_id, text, tuple(answers), kind))


def _add_unanswered(entry: Entry, question_id: str, image_folder: ImageFolder, rows: Rows) -> None:
    text, image = checked_text(entry.fields.get("question"), "the question"), entry.image_id()
    rows.add(str(image), _find_image(image, entry.subtype, image_folder), Text(question_id, text, (), UNANSWERED))


_read_test = partial(read_vqa_v2, needs_answers=False)


def _find_image(image: int, subtype: str, image_folder: ImageFolder) -> Path:
    """The file of an image, named as in COCO 2014 or as in COCO 2017, in the folder or an archive's folder in it."""
    plain = f"{image:012d}.jpg"
    names = [f"COCO_{subtype}_{plain}", plain] if subtype else [plain]
    folders = list(dict.fromkeys(["", *([f"{subtype}/"] if subtype else []), *FOLDERS]))
    image_file = image_folder.find_first(folder + name for name in names for folder in folders)
    if image_file is None:
        raise image_folder.missing(names[0])
    return image_file[1]


class VQAv2(QuestionFiles):
    """VQA v2: its questions and annotations."""

    kind: Literal["vqa_v2"] = "vqa_v2"
    accuracy: Use[Accuracy] = "vqa"
    """`soft`: the share of people who gave the answer; `vqa`: the official VQA accuracy."""
    reader: ClassVar[Reader] = staticmethod(read_vqa_v2)

    def reader_of(self, split: str) -> Reader:
        """Reads the files of a split; the test questions need no annotations."""
        return _read_test if split == "test" else read_vqa_v2


class VQAv2Images(OwnFiles):
    """Images of VQA v2."""

    kind: Literal["vqa_v2"] = "vqa_v2"
    reader: ClassVar[Reader] = staticmethod(read_vqa_v2)


SETTINGS = {"questions": VQAv2, "images": VQAv2Images}
