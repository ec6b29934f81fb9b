"""What data sets have in common; each adds its own settings in the file that reads it (`data/data_sets.py`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen

from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.rows import Reading
from vlm_jax.settings.effects import Place, Speed, Use
from vlm_jax.settings.groups import Group
from vlm_jax.settings.rules import Count, NotNegative, Whole

Texts = Literal["questions", "captions", "first_caption"]
Accuracy = Literal["soft", "vqa"]
Captions = Literal["all", "first"]
Reader = Callable[[Sequence[Path], ImageFolder], Reading]
Record = tuple[str, Mapping[str, object]]
"""The id of an image, and its fields."""

MAX_PIXELS = 50_000_000
SPLITS = ("train", "validation", "test")


class DataSet(Group):
    """Where images and texts come from."""

    directory: Place[Path] = Path("~/.cache/vlm_jax")
    """Folder where data sets are prepared once and then read."""
    limit: Count | None = None
    """Use only this many images of each split (for a quick look)."""
    evaluation_limit: Use[Count | None] = None
    """Use only this many images of every split but `train`: the first ones, so that scoring takes less time."""
    threads: Speed[Count] = 2
    """Threads that decode images."""
    cache_gigabytes: Speed[NotNegative] = 50.0
    """Decoded images and stored views are kept below `directory`, at most this much of them; 0 keeps none."""
    stored_views: Whole = 0
    """Views of a training image whose outputs of a frozen image encoder are computed once and kept in float16. One is
    all that there is without augmentation. With 0 the encoder runs in every step."""
    holds: ClassVar[Texts] = "questions"
    scenes: ClassVar[bool] = False
    """Whether each example has its scene, by which captions and generated images are checked."""

    @property
    def texts(self) -> Texts:
        """The texts that a task reads."""
        return "first_caption" if getattr(self, "captions", "all") == "first" else self.holds

    def limit_of(self, split: str) -> int | None:
        """The largest number of images that a split may use; None without a limit."""
        limits = (self.limit, None if split == "train" else self.evaluation_limit)
        return min((limit for limit in limits if limit is not None), default=None)


class Prepared(DataSet):
    """A data set that is downloaded or rendered, and written once as records."""

    max_pixels: ClassVar[int] = MAX_PIXELS
    min_answer_count: ClassVar[int] = 1
    accuracy: ClassVar[Accuracy] = "soft"
    image_size: ClassVar[tuple[int, int]]
    """Height and width of every image in pixels."""
    variant: ClassVar[str] = ""
    """Names the records that the settings make; empty where they always make the same."""

    def records(self) -> dict[str, Iterable[Record]]:
        """The records of every split: images as files, with questions, or with captions and a scene as well."""
        raise NotImplementedError


class UserDataset(DataSet):
    """Your own images."""

    images: Place[Path]
    """Folder of the images (short: --images); paths in the files are relative to it and may not leave it."""
    bad_rows: Place[Literal["refuse", "skip"]] = "refuse"
    """What happens with a row that cannot be used: stop and name it, or leave it out, counted and named."""
    max_pixels: Place[Count] = MAX_PIXELS
    """An image with more pixels is refused before it is decoded."""
    splits: ClassVar[tuple[str, ...]] = SPLITS
    """The splits of the data set, `train` first."""
    divided: ClassVar[bool] = False
    """Whether one file holds all splits, and tells which one each image is in."""
    takes_folders: ClassVar[bool] = False
    """Whether a folder may stand where a file does."""
    reader: ClassVar[Reader]
    """Reads files of the layout."""

    def reader_of(self, split: str) -> Reader:
        """Reads the files of a split; those of a test split may lack what only scores need."""
        return self.reader

    @staticmethod
    def files_of(splits: Mapping[str, Sequence[Path]]) -> dict[str, tuple[Path, ...]]:
        """The files of the splits, of what is given for them."""
        return {split: tuple(paths) for split, paths in splits.items()}


class OwnFiles(UserDataset):
    """Your own images and texts."""

    train: Place[Annotated[tuple[Path, ...], MinLen(1)]]
    """Files of the training split (short: --data)."""
    validation: Place[tuple[Path, ...]] = ()
    """Files of the validation split; without them a tenth of the training images, by hash."""
    test: Place[tuple[Path, ...]] = ()
    """Files of the test split; without them another tenth of the training images, by hash."""


class QuestionFiles(OwnFiles):
    """Your own images with questions and answers."""

    min_answer_count: Count = 1
    """An answer joins the vocabulary if people gave it this often in training."""
    accuracy: Use[Accuracy] = "soft"
    """`soft`: the share of people who gave the answer; `vqa`: the official VQA accuracy."""


class CaptionFiles(OwnFiles):
    """Your own images with captions."""

    holds: ClassVar[Texts] = "captions"
    captions: Captions = "all"
    """Captions of an image that are learned. All captions stay references for the scores."""
