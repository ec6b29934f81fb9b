"""Weights that training starts from."""

from typing import Literal

from pydantic import model_validator

from vlm_jax.settings.effects import Source
from vlm_jax.settings.groups import Group


class Scratch(Group):
    """Every parameter starts at random."""

    kind: Literal["scratch"] = "scratch"


class TextInit(Group):
    """The text side starts from pretrained weights."""

    kind: Literal["parts"] = "parts"
    text: Source[str | None] = None
    """Pretrained weights of the text side: folder, file, hub id, `package:NAME/folder`, `published:NAME` or run."""
    trunk: bool = True
    """Start the trunk's text layers from `text` as well, or the embeddings alone."""
    positions: Literal["exact", "cut", "interpolate"] = "exact"
    """What happens where the pretrained position table has another length than the model's."""


class PartsInit(TextInit):
    """The image encoder, the text side, or both start from pretrained weights."""

    image: Source[str | None] = None
    """Pretrained weights of the image encoder, given like `text`."""

    @model_validator(mode="after")
    def check_parts(self) -> "PartsInit":
        """At least one part has a source."""
        if self.text is None and self.image is None:
            raise ValueError("text and image are not given; give at least one of them")
        return self


class WordsInit(Group):
    """The word table starts from pretrained word vectors, whatever the tokenizer; the trunk starts at random."""

    kind: Literal["words"] = "words"
    text: Source[str]
    """Any text encoder, given as in `parts`: a token gets its own vector there, or the mean of those of its pieces.
    `model.text.tokenizer` is one's own choice; by default WordPiece is built."""
    image: Source[str | None] = None
    """Pretrained weights of the image encoder, given like `text`."""


class ModelInit(Group):
    """The whole model starts from a run, or from VisualBERT."""

    kind: Literal["model"] = "model"
    model: Source[str]
    """A run, a folder, a file, a hub id, or `package:NAME/folder`."""
    positions: Literal["exact", "cut", "interpolate"] = "exact"
    """What happens where the pretrained position table has another length than the model's."""


class PixelModelInit(ModelInit):
    """The whole model starts from a run, or from VisualBERT."""

    image: Source[str | None] = None
    """Pretrained weights of the image encoder, which VisualBERT lacks."""
