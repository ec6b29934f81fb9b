"""The task captioning: a sentence about an image."""

from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import ImageSide, SmallCNN, for_images
from vlm_jax.config.initialization import PartsInit, PixelModelInit, Scratch, WordsInit
from vlm_jax.config.optimizers import AdamW, TrunkOptimizer
from vlm_jax.config.run import TextTraining, TrunkCompute
from vlm_jax.config.trunk import TextConfig, Trunk
from vlm_jax.config.use import Caption, Predict
from vlm_jax.data.data_sets import CaptionSet
from vlm_jax.data.datasets.shape_scenes import SceneCaptions
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.settings import effects
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count, NGram, Positive, PositiveShare, Whole


class Fusion(Group):
    """Where image and caption meet."""

    attention_pattern: Literal["prefix", "causal"] = "prefix"
    """Grid features attend to each other (`prefix`), or only to those before (`causal`)."""


class Concat(Fusion):
    """One sequence of grid features and tokens."""

    kind: Literal["concat"] = "concat"


class Cross(Fusion):
    """The caption attends to the image in every layer."""

    kind: Literal["cross"] = "cross"


class Decoding(Group):
    """How captions are generated."""

    min_length: Whole = 0
    """Tokens that a caption has at least before [SEP]: [CLS] and `prefix` count, as in transformers."""
    no_repeat_ngram_size: NGram = 0
    """A caption has no sequence of this many tokens twice; 0 allows it."""
    prefix: str = ""
    """Every caption begins with this text."""


class Greedy(Decoding):
    """The most probable token each time."""

    kind: Literal["greedy"] = "greedy"
    num_return_sequences: ClassVar[int] = 1


class Sample(Decoding):
    """A token sampled at random each time."""

    kind: Literal["sample"] = "sample"
    num_return_sequences: Count = 1
    """Captions of an image."""
    temperature: Positive = 1.0
    """Divides the logits before a token is sampled."""
    top_k: Count | None = None
    """Sample among this many of the most probable tokens."""
    top_p: PositiveShare | None = None
    """Sample among the most probable tokens that together have this probability (nucleus)."""


class Beam(Decoding):
    """The most probable caption that a beam search finds."""

    kind: Literal["beam"] = "beam"
    num_return_sequences: Count = 1
    """Captions of an image: the best of the search."""
    num_beams: Count = 5
    """Captions that the search follows side by side."""
    length_penalty: float = 0.0
    """The score is divided by the length to this power: above 0 the search prefers longer captions."""
    early_stopping: bool | Literal["never"] = "never"
    """End the search when `num_beams` captions have ended (`true`), when none can become better by the length so far
    (`false`), or when none can become better at all (`never`)."""

    @model_validator(mode="after")
    def check_beams(self) -> "Beam":
        """The search returns no more captions than it follows."""
        if self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"num_return_sequences is {self.num_return_sequences}, num_beams is {self.num_beams}; raise num_beams"
            )
        return self


DecodingMethod = Annotated[Greedy | Sample | Beam, CHOICE]


class Model(Trunk):
    """The vision-language model: encoders, trunk and head."""

    fusion: Annotated[Concat | Cross, CHOICE] = Concat()
    """Where image and caption meet."""
    image: ImageSide = SmallCNN()
    """The image encoder, or features in its place."""


class Captioning(TextConfig):
    """A sentence about an image."""

    predict_options: ClassVar[type[Predict] | None] = Caption
    task: Literal["captioning"] = "captioning"
    data: Annotated[CaptionSet, CHOICE] = SceneCaptions()
    """The data set."""
    image: AugmentedImages = AugmentedImages()
    model: Model = Model()
    init: Annotated[Scratch | PartsInit | WordsInit | PixelModelInit, CHOICE] = Scratch()
    """Weights that training starts from."""
    optimizer: TrunkOptimizer = AdamW()
    """How gradients become updates."""
    training: TextTraining = TextTraining(texts_per_image=1)
    decoding: effects.Decoding[DecodingMethod] = Greedy()
    """How validation generates captions."""
    compute: TrunkCompute = TrunkCompute()

    @model_validator(mode="after")
    def check_min_length(self) -> "Captioning":
        """A caption has room for its shortest length."""
        check_min_length(self.decoding, self.model.text.max_length)
        return self

    @property
    def architecture(self) -> Architecture:
        """What the model is made of."""
        fusion = self.model.fusion
        return self.model.architecture(
            self.compute,
            for_images(self.model.image, self.image.size),
            fusion=fusion.kind,
            attention_pattern=fusion.attention_pattern,
            head="lm",
        )


def check_min_length(decoding: Decoding, max_length: int) -> None:
    """Raise `ValueError` where a caption of `max_length` tokens is shorter than `decoding.min_length`."""
    if decoding.min_length > (most := max_length - 1):
        raise ValueError(
            f"decoding.min_length is {decoding.min_length}, and a text of model.text.max_length {max_length} has "
            f"{most} tokens before [SEP]; lower it"
        )
