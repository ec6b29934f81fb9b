"""What a task is to training, evaluation, studies and commands: one class a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, Key

from vlm_jax.config.run import Config
from vlm_jax.config.use import ImageScoring
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.figures import Card
from vlm_jax.models.inspection import ModuleRow
from vlm_jax.run_folder import RunFolder
from vlm_jax.types import Batch, Example, Json, Parameters


class Sums(NamedTuple):
    """Sums over questions or tokens, never means: they add up over micro-batches, devices and batches."""

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    """Number of targets: the divisor of the loss."""
    correct: Float[Array, ""]
    examples: Float[Array, ""]
    """Texts: questions, or captions of many tokens."""


class ImageSums(NamedTuple):
    """Sums over images."""

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    """Images: the divisor of the loss."""
    examples: Float[Array, ""]


@runtime_checkable
class Prediction(Protocol):
    """The prediction of one item: a question, an image or a prompt."""

    @property
    def image_id(self) -> str:
        """The image of the item."""

    @property
    def right(self) -> bool | None:
        """Whether it is right; None where no reference decides."""

    def as_dict(self) -> dict[str, Json]:
        """One line of `predictions.jsonl`."""

    def card(self, image: np.ndarray | None) -> Card:
        """For a contact sheet; `image` is None where the example holds image tokens."""


Predicted = TypeVar("Predicted", bound=Prediction)


class Item(NamedTuple):
    """A line of `predictions.jsonl` as comparisons of runs read it."""

    image_id: str
    score: float
    """Of this item alone: 0 wrong to 1 right; decibels for an image tokenizer."""
    text: str = ""
    """The question or the prompt; empty where there is none."""
    kind: str = ""
    references: tuple[str, ...] = ()
    hypothesis: str = ""
    """The answer or the caption; empty where the task makes images."""
    right: bool | None = None
    """None where no rule decides."""


class Inspection(NamedTuple):
    """A model module by module, between lines that say which model it is."""

    before: list[str]
    rows: list[ModuleRow]
    after: list[str]


LoadTask = Callable[[RunFolder], tuple["Task", Parameters, int]]
"""Opens a run with the parameters of its best checkpoint, and their optimizer step."""


class Task(ABC, Generic[Predicted]):
    """The task of one config.

    A task has the members up to `read_item`. The others have a default.
    """

    config: Config
    encode: ExampleEncoder
    metric: str
    """The score that selects the best checkpoint; higher is better."""
    scores: ClassVar[tuple[str, ...]]
    """Names of its scores. Some are also computed for each kind of text (`accuracy/yes_no`)."""
    unit: ClassVar[str]
    """The score of one item, in words."""

    @abstractmethod
    def init_params(self, key: Key[Array, ""]) -> Parameters:
        """Fresh float32 parameters."""

    @abstractmethod
    def loss_sums(self, params: Parameters, batch: Batch, keys: Key[Array, " I"] | None) -> Sums | ImageSums:
        """Sums that a train step differentiates; `keys`, one an image, switch dropout on."""

    @abstractmethod
    def predict(self, params: Parameters, examples: Sequence[Example]) -> Sequence[Predicted]:
        """The predictions of `examples`, in their order."""

    @abstractmethod
    def score(self, predictions: Sequence[Predicted]) -> dict[str, float]:
        """The scores of predictions; `metric` is among them."""

    @abstractmethod
    def baselines(
        self,
        params: Parameters,
        examples: Sequence[Example],
        train: Sequence[Example],
        predictions: Sequence[Predicted],
    ) -> dict[str, float]:
        """What is reached without looking: `baseline/NAME`, or `baseline/NAME/METRIC`."""

    @abstractmethod
    def title(self, metrics: dict[str, float]) -> str:
        """The scores in a few words."""

    @classmethod
    @abstractmethod
    def inspect(cls, config: Config, classes: int | None) -> Inspection:
        """The model of a config; `classes` answers are assumed where the config leaves them to the data."""

    @classmethod
    @abstractmethod
    def read_item(cls, line: dict[str, Json]) -> Item:
        """A prediction from its line of `predictions.jsonl`."""

    shares: ClassVar[tuple[str, ...]] = ()
    """The scores that are shown in percent."""
    by_kind: ClassVar[tuple[str, ...]] = ()
    """The scores that are also computed for each kind of text."""
    shuffled: ClassVar[str] = ""
    """The baseline with exchanged inputs, such as `shuffled_images`; empty where there is none."""
    reads_images: ClassVar[bool] = True
    """Whether batches of its prepared examples hold images, and not image tokens."""
    contact_sheets: ClassVar[bool] = False
    """Whether each validation writes a contact sheet."""
    classifies: ClassVar[bool] = False
    """Whether the head classifies the answers of the training set."""
    answers: tuple[str, ...] = ()
    """The meanings of the head's classes."""

    @classmethod
    def metric_of(cls, config: Config) -> str:
        """The `metric` of a config's task, where it depends on the config."""
        return cls.metric

    @classmethod
    def scale_of(cls, config: Config) -> tuple[str, ...]:
        """Settings, or groups of them, that scores are measured by: runs in which one differs do not compare."""
        return ()

    @classmethod
    def num_classes(cls, config: Config) -> int | None:
        """Classes of the head, if need be counted in the data; None where the head has none."""
        return None

    @classmethod
    def parameter_shapes(cls, config: Config) -> Parameters:
        """The parameters that pretrained weights can replace, as shapes."""
        return {}

    @classmethod
    def check_sources(cls, config: Config) -> None:
        """Raise `InputError` where a run that the task reads is missing or does not fit."""

    @classmethod
    def build(
        cls, config: Config, encode: ExampleEncoder, folder: RunFolder, load: LoadTask, scoring: ImageScoring
    ) -> "Task":
        """The task of a run, with the files that it keeps in the run's folder."""
        return cls(config, encode)

    def place(self, where: Sharding) -> None:
        """Put the parameters of other models that the task uses on the devices that hold its own."""

    def prepare(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples of a split as the task reads them."""
        return examples

    def learn_from(self, train: Sequence[Example]) -> None:
        """Compute from the prepared training set what the loss needs, before the first step."""

    def start(self, params: Parameters, key: Key[Array, ""]) -> Parameters:
        """Fresh parameters as a run begins with them, before pretrained weights replace some."""
        return params

    def reach(self, train: Sequence[Example], validation: Sequence[Example]) -> list[str]:
        """Lines printed before training: references of an item, and the highest `metric` that is possible."""
        return []

    def warnings(self, predictions: Sequence[Predicted], metrics: dict[str, float]) -> list[str]:
        """Warnings about the scores."""
        return []

    def can_score(self, examples: Sequence[Example]) -> bool:
        """Whether examples have what predictions are scored by; without it they are only predicted."""
        return True

    def metadata(self) -> dict[str, Json]:
        """Further entries of a result, beside its scores."""
        return {}

    def files(self, predictions: Sequence[Predicted]) -> dict[str, Json]:
        """Further files of a scored split, by name, as JSON."""
        return {}
