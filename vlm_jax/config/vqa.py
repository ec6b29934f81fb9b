"""The task vqa: one answer to a question about an image."""

from typing import Annotated, ClassVar, Literal

from vlm_jax.config.architecture import Architecture, AttentionPattern, Head
from vlm_jax.config.encoders import ImageSide, SmallCNN, for_images
from vlm_jax.config.initialization import PartsInit, PixelModelInit, Scratch, WordsInit
from vlm_jax.config.optimizers import AdamW, TrunkOptimizer
from vlm_jax.config.run import TextTraining, TrunkCompute
from vlm_jax.config.trunk import TextConfig, Trunk
from vlm_jax.config.use import Answer, Predict
from vlm_jax.data.data_sets import QuestionSet
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count


class Cls(Group):
    """Classifies the pooled [CLS]."""

    kind: Literal["cls"] = "cls"


class TokenBeforeSep(Group):
    """Classifies the token before [SEP], as VisualBERT does."""

    kind: Literal["token_before_sep"] = "token_before_sep"


class PerToken(Group):
    """Classifies every position; [CLS] answers."""

    kind: Literal["per_token"] = "per_token"
    classes: Count | None = None
    """Number of classes, by default the size of the answer vocabulary."""


class Concat(Group):
    """One sequence of grid features and tokens."""

    kind: Literal["concat"] = "concat"
    attention_pattern: Literal["image_to_text", "bidirectional"] = "image_to_text"
    """With `image_to_text` the image does not attend to the question: the questions of an image share its side."""
    head: Annotated[Cls | TokenBeforeSep | PerToken, CHOICE] = Cls()
    """What the head reads."""


class TwoStreams(Group):
    """Image and question in a stream each."""

    head: Annotated[Cls | PerToken, CHOICE] = Cls()
    """What the head reads."""


class Cross(TwoStreams):
    """The question attends to the image in every layer."""

    kind: Literal["cross"] = "cross"
    attention_pattern: ClassVar[AttentionPattern] = "image_to_text"


class CoAttention(TwoStreams):
    """Image and question attend to each other in every layer."""

    kind: Literal["co_attention"] = "co_attention"
    attention_pattern: ClassVar[AttentionPattern] = "bidirectional"


class Late(Group):
    """Two encoders that meet in the head."""

    kind: Literal["late"] = "late"
    join: Literal["product", "concatenation"] = "product"
    """How [CLS] and the mean grid feature are joined."""
    attention_pattern: ClassVar[AttentionPattern] = "dual_encoder"


class Model(Trunk):
    """The vision-language model: encoders, trunk and head."""

    fusion: Annotated[Concat | Cross | CoAttention | Late, CHOICE] = Concat()
    """Where image and question meet."""
    image: ImageSide = SmallCNN()
    """The image encoder, or features in its place."""


class VQA(TextConfig):
    """One answer to a question about an image."""

    predict_options: ClassVar[type[Predict] | None] = Answer
    task: Literal["vqa"] = "vqa"
    data: Annotated[QuestionSet, CHOICE] = EasyVQA()
    """The data set."""
    image: AugmentedImages = AugmentedImages()
    model: Model = Model()
    init: Annotated[Scratch | PartsInit | WordsInit | PixelModelInit, CHOICE] = Scratch()
    """Weights that training starts from."""
    optimizer: TrunkOptimizer = AdamW()
    """How gradients become updates."""
    training: TextTraining = TextTraining()
    compute: TrunkCompute = TrunkCompute()

    @property
    def architecture(self) -> Architecture:
        """What the model is made of."""
        fusion = self.model.fusion
        head: Head = fusion.join if isinstance(fusion, Late) else fusion.head.kind
        return self.model.architecture(
            self.compute,
            for_images(self.model.image, self.image.size),
            fusion=fusion.kind,
            attention_pattern=fusion.attention_pattern,
            head=head,
        )

    @property
    def classes(self) -> int | None:
        """The number of the head's classes; None where it is the size of the answer vocabulary."""
        return getattr(getattr(self.model.fusion, "head", None), "classes", None)
