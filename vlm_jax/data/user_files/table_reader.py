"""Your own tables: a question a row, or the captions of an image, in any format of `table_formats.py`.

    {"image": "cat.png", "question": "what colour?", "answers": ["black"]}
    {"image": "cat.png", "captions": ["a cat", "a black cat"]}

`columns.ALIASES` has other names of these keys, such as `answer` for one answer; a row of CSV or TSV has one. Optional
are `group`, such as a patient: automatic splits keep its images together; and of questions `question_id` (by default
FILE NAME:LINE) and `answer_type` (by default `yes_no` or `open`). Other keys are left alone. Several rows about one
image add up.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.image_lists import ImageLists, is_image_list
from vlm_jax.data.user_files.rows import (
    UNANSWERED,
    ImageSource,
    Reading,
    Row,
    Rows,
    UnusableError,
    checked_id,
    checked_kind,
    checked_text,
    checked_texts,
)
from vlm_jax.data.user_files.table_formats import Source, open_table
from vlm_jax.errors import InputError
from vlm_jax.metrics.vqa_accuracy import canonical
from vlm_jax.types import Json, Text


class TableReader(NamedTuple):
    """Reads tables: the texts by image, and the rows that cannot be used.

    An image's id is its normalised relative path; a caption's id is FILE NAME:LINE#NUMBER, from 1.
    """

    texts: Literal["questions", "captions"]
    source: Source
    beside: bool = False
    """Image paths are relative to the folder of their file, and not to the folder of all images."""

    def __call__(self, paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
        """What all rows say about images; lists of images among the files choose the images that are read.

        Where answers are not needed, all questions have some, or none has: others would be scored without some.
        """
        reading = self._read(paths, image_folder)
        answered = {bool(text.answers) for example in reading.examples for text in example.texts}
        if len(answered) < 2:
            return reading
        columns = self.source.columns._replace(needs_answers=True)
        return self._replace(source=self.source._replace(columns=columns))(paths, image_folder)

    def _read(self, paths: Sequence[Path], image_folder: ImageFolder) -> Reading:
        rows, layouts, used = Rows(), {}, {}
        lists = ImageLists([path for path in paths if is_image_list(path)])
        tables = [path for path in paths if path not in lists.paths]
        if not tables:
            raise InputError(f"{paths[0]} only lists images; give the file of their texts, too")
        for path, file in zip(tables, _file_names(tables), strict=True):
            if path.is_dir() and not self.beside:
                raise InputError(f"{path} has its images in it; give no data.images")
            prefix = image_folder.relative(path if path.is_dir() else path.parent) if self.beside else ""
            table = open_table(path, file, self.source)
            layouts[table.layout] = None
            for place, row in table.rows:
                with rows.row(path, place):
                    if isinstance(row, UnusableError):
                        raise row
                    if table.names_columns:
                        used |= dict.fromkeys(self.source.columns.sources(tuple(row)).values())
                    fields = self.source.columns.fields(row)
                    if lists.paths and fields["image"] not in lists:
                        continue
                    texts = self._texts(fields, f"{file}:{place}")
                    image_id, image = _image(fields["image"], image_folder, prefix)
                    group = None if fields.get("group") is None else checked_id(fields["group"], "group")
                    for text in texts:
                        rows.add(image_id, image, text, group=group)
        lists.check_used(rows)
        return rows.reading()._replace(layout=" and ".join(layouts), columns=tuple(used))

    def _texts(self, fields: Row, default_id: str) -> tuple[Text, ...]:
        if self.texts == "captions":
            return caption_texts(fields, default_id)
        if not self.source.columns.needs_answers and not fields.get("answers"):
            return (question_text(fields, (), default_id),)
        return (question_text(fields, checked_texts(fields["answers"], "answers"), default_id),)


def _image(value: Json | tuple[str, ImageSource], folder: ImageFolder, prefix: str) -> tuple[str, ImageSource]:
    """The id of an image and where it is."""
    if isinstance(value, tuple):
        return value
    return folder.existing(checked_text(value, "the image path"), prefix=prefix)


def _file_names(paths: Sequence[Path]) -> list[str]:
    """What ids call each file: its name, or its path below the folder that all of that name lie in.

    Not its whole path: ids stay what they are when the data moves.
    """
    names = []
    for path in paths:
        same = [str(other.absolute().parent) for other in paths if other.name == path.name]
        names.append(path.absolute().relative_to(os.path.commonpath(same)).as_posix())
    return names


def question_text(row: Row, answers: tuple[str, ...], default_id: str) -> Text:
    """The question of a row; `default_id` is its id where the row has none."""
    text = checked_text(row["question"], "the question")
    question_id, kind = row.get("question_id"), row.get("answer_type")
    return Text(
        text_id=default_id if question_id is None else checked_id(question_id, "question_id"),
        text=text,
        answers=answers,
        kind=_default_kind(answers) if kind is None else checked_kind(kind, "answer_type"),
    )


def _default_kind(answers: Sequence[str]) -> str:
    if not answers:
        return UNANSWERED
    return "yes_no" if all(canonical(answer) in ("yes", "no") for answer in answers) else "open"


def caption_texts(row: Row, line_id: str) -> tuple[Text, ...]:
    """The captions of a row, with ids that begin with that of its line."""
    texts = enumerate(checked_texts(row["captions"], "captions"), 1)
    return tuple(Text(f"{line_id}#{number}", text, (), "caption") for number, text in texts)
