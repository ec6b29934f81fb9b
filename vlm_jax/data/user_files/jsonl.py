"""Your own tables: a question a row, or the captions of an image; JSON Lines, a JSON list, CSV or TSV.

    {"image": "cat.png", "question": "what colour?", "answers": ["black"]}
    {"image": "cat.png", "captions": ["a cat", "a black cat"]}

`tables.ALIASES` has other names of these keys, such as `answer` for one answer; a row of CSV or TSV has one. Optional
are `group`, such as a patient: automatic splits keep its images together; and of questions `question_id` (by default
FILE NAME:LINE) and `answer_type` (by default `yes_no` or `open`). Other keys are left alone. Several rows about one
image add up.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from vlm_jax.data.settings import CaptionFiles, OwnFiles, QuestionFiles, Reader, Texts
from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.rows import (
    Reading,
    Rows,
    UnusableError,
    checked_id,
    checked_kind,
    checked_text,
    checked_texts,
)
from vlm_jax.data.user_files.tables import table_rows, with_columns
from vlm_jax.metrics.vqa_accuracy import canonical
from vlm_jax.types import Json, Text


def read_question_lines(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """The questions by image, and the lines that cannot be used; an image's id is its normalised relative path."""
    return _read_lines(paths, image_folder, keys=("image", "question", "answers"), texts_of=_question)


def read_caption_lines(paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
    """The captions by image, and the lines that cannot be used; a caption's id is FILE NAME:LINE#NUMBER, from 1."""
    return _read_lines(paths, image_folder, keys=("image", "captions"), texts_of=_captions)


def _read_lines(
    paths: Sequence[Path],
    image_folder: ImageFolder,
    *,
    keys: Sequence[str],
    texts_of: Callable[[dict[str, Json], str], Sequence[Text]],
) -> Reading:
    """What lines with `keys`, `image` among them, say about images; `texts_of` reads a row and its FILE NAME:LINE."""
    rows = Rows()
    for path, file in zip(paths, _file_names(paths), strict=True):
        for number, row in table_rows(path):
            with rows.row(path, number):
                if isinstance(row, UnusableError):
                    raise row
                fields = with_columns(row, keys)
                texts = texts_of(fields, f"{file}:{number}")
                image_id, image = image_folder.existing(checked_text(fields["image"], "the image path"))
                group = None if fields.get("group") is None else checked_id(fields["group"], "group")
                for text in texts:
                    rows.add(image_id, image, text, group=group)
    return rows.reading()


def _file_names(paths: Sequence[Path]) -> list[str]:
    """What ids call each file: its name, or its path below the folder that all of that name lie in.

    Not its whole path: ids stay what they are when the data moves.
    """
    names = []
    for path in paths:
        same = [str(other.absolute().parent) for other in paths if other.name == path.name]
        names.append(path.absolute().relative_to(os.path.commonpath(same)).as_posix())
    return names


def _question(row: dict[str, Json], default_id: str) -> tuple[Text]:
    text = checked_text(row["question"], "the question")
    answers = checked_texts(row["answers"], "answers")
    question_id, kind = row.get("question_id"), row.get("answer_type")
    yes_no = all(canonical(answer) in ("yes", "no") for answer in answers)
    question = Text(
        text_id=default_id if question_id is None else checked_id(question_id, "question_id"),
        text=text,
        answers=answers,
        kind=("yes_no" if yes_no else "open") if kind is None else checked_kind(kind, "answer_type"),
    )
    return (question,)


def _captions(row: dict[str, Json], line_id: str) -> tuple[Text, ...]:
    texts = enumerate(checked_texts(row["captions"], "captions"), 1)
    return tuple(Text(f"{line_id}#{number}", text, (), "caption") for number, text in texts)


class JsonLinesQuestions(QuestionFiles):
    """Your own images and questions: JSON Lines, a JSON list, CSV or TSV."""

    kind: Literal["jsonl"] = "jsonl"
    reader: ClassVar[Reader] = staticmethod(read_question_lines)


class JsonLinesCaptions(CaptionFiles):
    """Your own images and captions: JSON Lines, a JSON list, CSV or TSV."""

    kind: Literal["jsonl"] = "jsonl"
    reader: ClassVar[Reader] = staticmethod(read_caption_lines)


class JsonLinesImages(OwnFiles):
    """Your own images: JSON Lines, a JSON list, CSV or TSV."""

    kind: Literal["jsonl"] = "jsonl"
    rows: Literal["questions", "captions"] = "captions"
    """Texts that the files have beside the images."""

    @property
    def texts(self) -> Texts:
        """The texts that a task reads."""
        return self.rows

    @property
    def reader(self) -> Reader:
        """Reads what the files have."""
        return read_question_lines if self.rows == "questions" else read_caption_lines


SETTINGS = {"questions": JsonLinesQuestions, "captions": JsonLinesCaptions, "images": JsonLinesImages}
