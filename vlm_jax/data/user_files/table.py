"""Settings of your own tables; `table_reader.py` reads them."""

from pathlib import Path
from typing import Literal

from vlm_jax.data.settings import CaptionFiles, OwnFiles, QuestionFiles, Texts
from vlm_jax.data.user_files.table_reader import TableReader
from vlm_jax.settings.effects import Place


class Table(OwnFiles):
    """A table of your own images and texts."""

    images: Place[Path | None] = None
    """Folder of the images (short: --images), by default that of each file; paths may not leave it."""

    @property
    def reader(self) -> TableReader:
        """Reads questions or captions, as the task wants them."""
        return TableReader("questions" if self.texts == "questions" else "captions", beside=self.images is None)


class TableQuestions(Table, QuestionFiles):
    """A table of your own images and questions: CSV, TSV, a JSON list or JSON Lines."""

    kind: Literal["table"] = "table"


class TableCaptions(Table, CaptionFiles):
    """A table of your own images and captions: CSV, TSV, a JSON list or JSON Lines."""

    kind: Literal["table"] = "table"


class TableImages(Table):
    """A table of your own images: CSV, TSV, a JSON list or JSON Lines."""

    kind: Literal["table"] = "table"
    rows: Literal["questions", "captions"] = "captions"
    """Texts that the files have beside the images."""

    @property
    def texts(self) -> Texts:
        """The texts that a task reads."""
        return self.rows


SETTINGS = {"questions": TableQuestions, "captions": TableCaptions, "images": TableImages}
