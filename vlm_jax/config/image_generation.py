"""The task image_generation: an image from a prompt, as tokens of an image tokenizer."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from pydantic import model_validator

from vlm_jax.config.architecture import Architecture, AttentionPattern
from vlm_jax.config.encoders import GridEncoder, ImageTokens, Positions
from vlm_jax.config.initialization import ModelInit, Scratch, TextInit
from vlm_jax.config.optimizers import AdamW, TrunkOptimizer
from vlm_jax.config.quantizers import ImageTokenizerSettings
from vlm_jax.config.run import TextTraining, TrunkCompute
from vlm_jax.config.trunk import TextConfig, Trunk
from vlm_jax.config.use import Generate, Predict
from vlm_jax.data.data_sets import CaptionSet
from vlm_jax.data.datasets.shape_scenes import SceneCaptions
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.settings.effects import Decoding, Source
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count, NotNegative, Positive, Share, ShareBelowOne, Whole

SCENE_SIDE = 64  # pixels: the detector of scene objects reads images whose sides are a multiple of it


class Concat(Group):
    """One sequence of image tokens and the prompt."""

    kind: Literal["concat"] = "concat"


class Cross(Group):
    """Image tokens attend to the prompt in every layer."""

    kind: Literal["cross"] = "cross"


class TokenGrid(GridEncoder):
    """The image side: the grid of image tokens."""

    positions: Positions = "grid"
    """A vector for each grid position in reading order, the sum of its row's and its column's, or one for all."""


class Model(Trunk):
    """Embeddings, trunk and the head over image tokens."""

    fusion: Annotated[Concat | Cross, CHOICE] = Concat()
    """Where prompt and image meet."""
    image: TokenGrid = TokenGrid()


class TrainedImageTokenizer(ImageTokenizerSettings):
    """The image tokenizer of another run; its settings are the same here."""

    run: Source[Path]
    """Directory of the image tokenizer's run. This run keeps a copy of it."""


class Generation(Group):
    """How images are learned and generated."""

    cond_drop_prob: ShareBelowOne = 0.1
    """Probability that a training image is learned without its prompt, for guidance."""
    token_frequency_power: Share = 0.0
    """The loss of an image token is weighted by its frequency in training to the power of minus this."""
    guidance_scale: Decoding[Annotated[float, Ge(1)]] = 3.0
    """Classifier-free guidance: unconditional logits plus this times (conditional - unconditional); 1 is none."""
    temperature: Decoding[Positive] = 1.0
    """Divides the logits before a token is sampled."""


class Masked(Generation):
    """MaskGIT: masked tokens are predicted in any order, several a step."""

    kind: Literal["masked"] = "masked"
    mask_schedule: Literal["cosine", "linear", "square"] = "cosine"
    """The share of masked tokens, from all to none: random in training, step by step in decoding."""
    loss_weighting: Literal["uniform", "elbo"] = "uniform"
    """`uniform`: every masked token counts alike; `elbo`: every image, however few of its tokens are masked."""
    num_decoding_steps: Decoding[Count] = 12
    """Steps in which the tokens of an image are sampled."""
    choice_temperature: Decoding[NotNegative] = 4.5
    """Gumbel noise in the choice of tokens to keep: at first this much, in the last step none."""
    num_refinement_rounds: Decoding[Whole] = 0
    """Rounds in which every token of the finished image is then sampled again, an eighth at a time."""
    attention_pattern: ClassVar[AttentionPattern] = "text_to_image"


class Autoregressive(Generation):
    """One token after the other, in reading order."""

    kind: Literal["autoregressive"] = "autoregressive"
    attention_pattern: ClassVar[AttentionPattern] = "autoregressive"


class ImageGeneration(TextConfig):
    """An image from a prompt, as tokens of an image tokenizer."""

    generates_images: ClassVar[bool] = True
    predict_options: ClassVar[type[Predict] | None] = Generate
    task: Literal["image_generation"] = "image_generation"
    data: Annotated[CaptionSet, CHOICE] = SceneCaptions()
    """The data set."""
    image: ImageInput = ImageInput()
    image_tokenizer: TrainedImageTokenizer
    model: Model = Model()
    init: Annotated[Scratch | TextInit | ModelInit, CHOICE] = Scratch()
    """Weights that training starts from."""
    optimizer: TrunkOptimizer = AdamW()
    """How gradients become updates."""
    training: TextTraining = TextTraining(texts_per_image=1)
    generation: Annotated[Masked | Autoregressive, CHOICE] = Masked()
    """How images are learned and generated."""
    compute: TrunkCompute = TrunkCompute()

    @model_validator(mode="after")
    def check_settings(self) -> "ImageGeneration":
        """The image divides into tokens, and the settings of training go together."""
        generation, size = self.generation, self.image.size
        self.image_tokenizer.check_size(size)
        if self.data.scenes and (size[0] != size[1] or size[0] % SCENE_SIDE):
            raise ValueError(
                f"image.size is {size}; data.kind {self.data.kind} needs square images of a multiple of "
                f"{SCENE_SIDE} pixels"
            )
        if generation.guidance_scale > 1 and generation.cond_drop_prob == 0:
            raise ValueError(
                f"generation.cond_drop_prob is {generation.cond_drop_prob}, and generation.guidance_scale "
                f"{generation.guidance_scale} needs images learned without their prompt; raise it, or set "
                "guidance_scale 1"
            )
        if generation.token_frequency_power and self.training.label_smoothing:
            raise ValueError(
                f"training.label_smoothing {self.training.label_smoothing} and generation.token_frequency_power "
                f"{generation.token_frequency_power} do not go together; leave one of them out"
            )
        return self

    @property
    def architecture(self) -> Architecture:
        """What the model is made of."""
        grid, quantizer = self.model.image, self.image_tokenizer.quantizer
        return self.model.architecture(
            self.compute,
            ImageTokens(positions=grid.positions, projection=grid.projection, quantizer=quantizer),
            fusion=self.model.fusion.kind,
            attention_pattern=self.generation.attention_pattern,
            head="image_tokens",
        )
