"""Your own tables: a question a row, or the captions of an image; JSON Lines, a JSON list, CSV or TSV.

    {"image": "cat.png", "question": "what colour?", "answers": ["black"]}
    {"image": "cat.png", "captions": ["a cat", "a black cat"]}

`tables.ALIASES` has other names of these keys, such as `answer` for one answer; a row of CSV or TSV has one. Optional
are `group`, such as a patient: automatic splits keep its images together; and of questions `question_id` (by default
FILE NAME:LINE) and `answer_type` (by default `yes_no` or `open`). Other keys are left alone. Several rows about one
image add up.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

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
from vlm_jax.data.user_files.text_tables import table_rows, with_columns
from vlm_jax.metrics.vqa_accuracy import canonical
from vlm_jax.types import Json, Text

COLUMNS = {"questions": ("image", "question", "answers"), "captions": ("image", "captions")}


class TableReader(NamedTuple):
    """Reads tables: the texts by image, and the rows that cannot be used.

    An image's id is its normalised relative path; a caption's id is FILE NAME:LINE#NUMBER, from 1.
    """

    texts: Literal["questions", "captions"]
    beside: bool = False
    """Image paths are relative to the folder of their file, and not to the folder of all images."""

    def __call__(self, paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
        """What all rows say about images."""
        rows = Rows()
        for path, file in zip(paths, _file_names(paths), strict=True):
            prefix = image_folder.relative(path.parent) if self.beside else ""
            for number, row in table_rows(path):
                with rows.row(path, number):
                    if isinstance(row, UnusableError):
                        raise row
                    fields = with_columns(row, COLUMNS[self.texts])
                    texts = (_question if self.texts == "questions" else _captions)(fields, f"{file}:{number}")
                    image_path = checked_text(fields["image"], "the image path")
                    image_id, image = image_folder.existing(image_path, prefix=prefix)
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


def _question(row: dict[str, Json], default_id: str) -> tuple[Text, ...]:
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
