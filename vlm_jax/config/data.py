"""Data sets, each with the settings of its own.

`texts` of a data set names the texts that a task reads: questions, captions, or the first caption of each image.
The unions at the end list the data sets of each kind of text.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen
from pydantic import model_validator

from vlm_jax.config.rules import Count, Seed
from vlm_jax.settings.effects import Place, Speed, Use
from vlm_jax.settings.groups import Group

Texts = Literal["questions", "captions", "first_caption"]
Accuracy = Literal["soft", "vqa"]
Captions = Literal["all", "first"]
MAX_PIXELS = 50_000_000


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
    """A data set that the project downloads or renders."""

    max_pixels: ClassVar[int] = MAX_PIXELS
    min_answer_count: ClassVar[int] = 1
    accuracy: ClassVar[Accuracy] = "soft"


class EasyVQA(Prepared):
    """48,248 questions about one coloured shape."""

    kind: Literal["easy_vqa"] = "easy_vqa"


class SortOfClevr(Prepared):
    """Questions about relations between six shapes, rendered here."""

    kind: Literal["sort_of_clevr"] = "sort_of_clevr"
    seed: Seed = 0
    """Seed of the rendered images: another seed gives another data set of the same kind."""


class ShapeScenes(Prepared):
    """Scenes of a few objects, rendered here."""

    kind: Literal["shape_scenes"] = "shape_scenes"
    seed: Seed = 0
    """Seed of the rendered images: another seed gives another data set of the same kind."""
    size: Count = 64
    """Height and width of the images in pixels."""
    objects: tuple[Count, Count] = (1, 4)
    """The smallest and the largest number of objects in a scene."""

    holds: ClassVar[Texts] = "captions"
    scenes: ClassVar[bool] = True

    @model_validator(mode="after")
    def check_objects(self) -> "ShapeScenes":
        """The smallest number comes first."""
        if self.objects[0] > self.objects[1]:
            raise ValueError(f"objects is {self.objects}; give the smallest number first")
        return self


class SceneQuestions(ShapeScenes):
    """Scenes of a few objects with questions, rendered here."""

    holds: ClassVar[Texts] = "questions"


class SceneCaptions(ShapeScenes):
    """Scenes of a few objects with captions, rendered here."""

    captions: Captions = "all"
    """Captions that are learned: all of an image, or the first, which names every object."""


class UserDataset(DataSet):
    """Your own images."""

    images: Place[Path]
    """Folder of the images; paths in the files are relative to it and may not leave it."""
    bad_rows: Place[Literal["refuse", "skip"]] = "refuse"
    """What happens with a row that cannot be used: stop and name it, or leave it out, counted and named."""
    max_pixels: Place[Count] = MAX_PIXELS
    """An image with more pixels is refused before it is decoded."""


class OwnFiles(UserDataset):
    """Your own images and texts."""

    train: Place[Annotated[tuple[Path, ...], MinLen(1)]]
    """Files of the training split."""
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


class JsonLinesQuestions(QuestionFiles):
    """Your own images and questions: one JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"


class VQAv2(QuestionFiles):
    """VQA v2: its questions and annotations."""

    kind: Literal["vqa_v2"] = "vqa_v2"
    accuracy: Use[Accuracy] = "vqa"
    """`soft`: the share of people who gave the answer; `vqa`: the official VQA accuracy."""


class JsonLinesCaptions(CaptionFiles):
    """Your own images and captions: one JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"


class CocoCaptions(CaptionFiles):
    """COCO's captions."""

    kind: Literal["coco_captions"] = "coco_captions"


class KarpathyImages(UserDataset):
    """Images of Karpathy's splits of COCO, Flickr8k or Flickr30k."""

    kind: Literal["karpathy"] = "karpathy"
    train: Place[tuple[Path]]
    """The one file, which holds every split."""
    holds: ClassVar[Texts] = "captions"


class Karpathy(KarpathyImages):
    """Karpathy's splits of COCO, Flickr8k or Flickr30k."""

    captions: Captions = "all"
    """Captions of an image that are learned. All captions stay references for the scores."""


class EmojiImages(UserDataset):
    """Images of emoji (`experiments.prepare_emoji`)."""

    kind: Literal["emoji"] = "emoji"
    holds: ClassVar[Texts] = "captions"


class Emoji(EmojiImages):
    """Images of emoji and their names (`experiments.prepare_emoji`)."""

    captions: Captions = "all"
    """Names of an emoji that are learned: its label and all tags, or the label alone."""


class JsonLinesImages(OwnFiles):
    """Your own images: one JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    rows: Literal["questions", "captions"] = "captions"
    """Texts that the files have beside the images."""

    @property
    def texts(self) -> Texts:
        """The texts that a task reads."""
        return self.rows


class VQAv2Images(OwnFiles):
    """Images of VQA v2."""

    kind: Literal["vqa_v2"] = "vqa_v2"


class CocoImages(OwnFiles):
    """Images of COCO's captions."""

    kind: Literal["coco_captions"] = "coco_captions"
    holds: ClassVar[Texts] = "captions"


QuestionSet = EasyVQA | SortOfClevr | SceneQuestions | JsonLinesQuestions | VQAv2
CaptionSet = SceneCaptions | JsonLinesCaptions | CocoCaptions | Karpathy | Emoji
