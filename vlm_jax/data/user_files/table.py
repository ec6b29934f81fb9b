"""Settings of your own tables; `table_reader.py` reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from vlm_jax.data.settings import CaptionFiles, OwnFiles, QuestionFiles, Texts
from vlm_jax.data.user_files.columns import Columns, renamed_columns
from vlm_jax.data.user_files.table_formats import Source, table_files
from vlm_jax.data.user_files.table_reader import TableReader
from vlm_jax.settings.effects import Place


class Table(OwnFiles):
    """A table of your own images and texts."""

    images: Place[Path | None] = None
    """Folder of the images (short: --images), by default that of each file; paths may not leave it."""
    columns: Place[tuple[str, ...]] = ()
    """Names of columns in the files where they differ: `image=path question=q`."""
    takes_folders: ClassVar[bool] = True

    @field_validator("columns")
    @classmethod
    def check_columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Each has a column that a table can have."""
        renamed_columns(columns)
        return columns

    @property
    def reader(self) -> TableReader:
        """Reads questions or captions, as the task wants them."""
        return self.reader_of("train")

    def reader_of(self, split: str) -> TableReader:
        """Reads the files of a split; questions of a test split need no answers."""
        texts = "questions" if self.texts == "questions" else "captions"
        columns = Columns(texts, renamed_columns(self.columns), needs_answers=split != "test" or texts == "captions")
        source = Source(columns, getattr(self, "question", ""), self.directory)
        return TableReader(texts, source, beside=self.images is None)

    @staticmethod
    def files_of(splits: Mapping[str, Sequence[Path]]) -> dict[str, tuple[Path, ...]]:
        """Files and folders of the splits; a folder stands for what is in it."""
        return table_files(splits)


class TableQuestions(Table, QuestionFiles):
    """A table of your own images and questions: CSV, JSON, parquet, tar or a folder per class."""

    kind: Literal["table"] = "table"
    question: str = "what is this?"
    """The question that the folder of an image answers, where each class has a folder."""


class TableCaptions(Table, CaptionFiles):
    """A table of your own images and captions: CSV, JSON, parquet, tar or a folder per class."""

    kind: Literal["table"] = "table"


class TableImages(Table):
    """A table of your own images: CSV, JSON, parquet, tar or a folder per class."""

    kind: Literal["table"] = "table"
    rows: Literal["questions", "captions"] = "captions"
    """Texts that the files have beside the images."""

    @property
    def texts(self) -> Texts:
        """The texts that a task reads."""
        return self.rows


SETTINGS = {"questions": TableQuestions, "captions": TableCaptions, "images": TableImages}
