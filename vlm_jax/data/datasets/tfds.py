"""Settings of data sets that TensorFlow Datasets prepared; `data/tfds_examples.py` reads them."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from vlm_jax.data.settings import MAX_PIXELS, Accuracy, Captions, DataSet, Texts
from vlm_jax.data.user_files.columns import renamed_columns
from vlm_jax.settings.effects import Place, Use
from vlm_jax.settings.rules import Count


class TfdsSet(DataSet):
    """A data set that TensorFlow Datasets prepared as array_record."""

    dataset: Place[str]
    """NAME, NAME/CONFIG or NAME:VERSION, or the folder of a prepared version (short: --data tfds:NAME)."""
    folder: Place[Path] = Path("~/tensorflow_datasets")
    """Folder in which TensorFlow Datasets keeps what it prepared."""
    columns: Place[tuple[str, ...]] = ()
    """Names of features where they differ: `image=photo question=q`."""
    max_pixels: Place[Count] = MAX_PIXELS
    """An image with more pixels is refused before it is decoded."""

    @field_validator("columns")
    @classmethod
    def check_columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        """Each has a column that a data set can have."""
        renamed_columns(columns)
        return columns


class TfdsQuestions(TfdsSet):
    """A data set that TensorFlow Datasets prepared, with questions and answers, or with labels."""

    kind: Literal["tfds"] = "tfds"
    question: str = "what is this?"
    """The question that a label answers, where the data set has no questions."""
    min_answer_count: Count = 1
    """An answer joins the vocabulary if people gave it this often in training."""
    accuracy: Use[Accuracy] = "soft"
    """`soft`: the share of people who gave the answer; `vqa`: the official VQA accuracy."""


class TfdsCaptions(TfdsSet):
    """A data set that TensorFlow Datasets prepared, with captions."""

    kind: Literal["tfds"] = "tfds"
    holds: ClassVar[Texts] = "captions"
    captions: Captions = "all"
    """Captions of an image that are learned. All captions stay references for the scores."""


SETTINGS = {"questions": TfdsQuestions, "captions": TfdsCaptions, "images": TfdsCaptions}
