"""The model of every task with a trunk, but for its fusion and its image side."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge
from pydantic import model_validator

from vlm_jax.config.architecture import Architecture, AttentionPattern, Head, Layout
from vlm_jax.config.encoders import FeatureFolder, Features, ImageEncoder, VisionTransformer
from vlm_jax.config.layers import Layers
from vlm_jax.config.run import Config, TextTraining, TrunkCompute
from vlm_jax.data.image_settings import RandomResizedCrop
from vlm_jax.settings.effects import Source
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count

if TYPE_CHECKING:
    from vlm_jax.config.initialization import ModelInit, Scratch, TextInit, WordsInit


class BertLayout(Group):
    """Tables, norms and activation as in BERT."""

    kind: Literal["bert"] = "bert"


class CustomLayout(Layout):
    """Tables, norms and activation as other pretrained weights prescribe."""

    kind: Literal["custom"] = "custom"
    text_feature_size: Count | None = None
    """Width of the text embeddings (E), by default the hidden size."""


class TextInput(Group):
    """The text side."""

    tokenizer: Source[str | None] = None
    """A tokenizer's folder, vocabulary file, `package:NAME/folder` or hub id; by default WordPiece is built."""
    vocab_size: Count = 256
    """Rows of the token table. The vocabulary may be smaller: rows without a token are never predicted."""
    max_length: Annotated[int, Ge(3)] = 16
    """Tokens of a text with [CLS] and [SEP]; a longer text loses its end, [SEP] stays."""


class Trunk(Layers):
    """Encoders, trunk and head."""

    text: TextInput = TextInput()
    layout: Annotated[BertLayout | CustomLayout, CHOICE] = BertLayout()
    """Tables, norms and activation."""

    @model_validator(mode="after")
    def check_positions(self) -> "Trunk":
        """The position table has a row for every token."""
        layout, length = self._layout, self.text.max_length
        needed = layout.first_position + length
        if needed > layout.max_position_embeddings:
            raise ValueError(
                f"text.max_length {length} needs {needed} positions, max_position_embeddings is "
                f"{layout.max_position_embeddings}; raise layout.max_position_embeddings (layout.kind custom)"
            )
        return self

    @property
    def _layout(self) -> Layout:
        return self.layout if isinstance(self.layout, CustomLayout) else Layout()

    def architecture(
        self,
        compute: TrunkCompute,
        image: ImageEncoder | FeatureFolder,
        *,
        fusion: str,
        attention_pattern: AttentionPattern,
        head: Head,
    ) -> Architecture:
        """What the model of a task is made of."""
        if isinstance(image, FeatureFolder):
            image = Features(positions=image.positions, projection=image.projection)
        layers = {name: getattr(self, name) for name in Layers.model_fields}
        layout = {name: getattr(self._layout, name) for name in Layout.model_fields}
        return Architecture(
            **layers | layout,
            convolution=compute.convolution,
            dtype=compute.dtype,
            remat="remat" in compute.layers,
            scan_layers="scan" in compute.layers,
            vocab_size=self.text.vocab_size,
            text_feature_size=getattr(self.layout, "text_feature_size", None) or self.hidden_size,
            image=image,
            fusion=fusion,
            attention_pattern=attention_pattern,
            head=head,
        )


class TextConfig(Config):
    """One experiment with a vision-language model."""

    if TYPE_CHECKING:
        model: Trunk
        init: Scratch | TextInit | WordsInit | ModelInit
        training: TextTraining
        compute: TrunkCompute

    @model_validator(mode="after")
    def check_patches(self) -> "TextConfig":
        """Patches of a transformer divide the images."""
        if isinstance(encoder := self.model.image, VisionTransformer):
            try:
                encoder.grid_size(self.image.size)
            except ValueError as error:
                raise ValueError(f"{error} (image.size, model.image.patch_size)") from None
        return self

    @model_validator(mode="after")
    def check_views(self) -> "TextConfig":
        """Parts of images are cut out anew each time, or as often as views are stored."""
        if isinstance(self.image.resize, RandomResizedCrop):
            if isinstance(self.model.image, FeatureFolder):
                raise ValueError(
                    "image.resize.kind is random_resized_crop, and model.image.folder has features of whole images; "
                    "leave out one of them"
                )
            if self.data.stored_views == 1:
                raise ValueError(
                    "image.resize.kind is random_resized_crop, and data.stored_views 1 keeps one view of each image; "
                    "give the number of views, as --data.stored-views 8"
                )
        return self

    @property
    @abstractmethod
    def architecture(self) -> Architecture:
        """What the model is made of."""
