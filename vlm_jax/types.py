"""The structures that cross module borders, with their shapes.

Axis letters used everywhere: `I` images in a batch, `K` question slots of an image, `T` text
tokens, `G` image grid positions, `C` image feature channels, `E` text embedding width, `D` trunk width,
`A` answers, `R` accepted answers of a question, `H` attention heads.
"""

from __future__ import annotations  # the field types below import no array library at each start

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    import jax
    import numpy as np
    from jaxtyping import Bool, Float, Int, UInt8

    Array = jax.Array | np.ndarray  # batches hold NumPy arrays on the host and JAX arrays on the device

Parameters = dict[str, Any]
"""A nested dict of arrays; a path such as `trunk/layer_0/attention/query/kernel` names a leaf."""
Json = None | bool | int | float | str | list | dict
"""A value as a JSON file holds it."""


class Text(NamedTuple):
    """One text about one image, as people wrote it: a question, a caption or a prompt."""

    text_id: str
    text: str
    answers: tuple[str, ...] = ()
    """Every accepted answer to a question, repeated as often as people gave it."""
    kind: str = ""
    """The question type that scores are reported by, such as `yes_no` or `open`; `caption` for a caption."""


class StoredImage(NamedTuple):
    """An encoded image that is a part of a file, such as a member of a tar archive: read when it is decoded."""

    file: Path
    offset: int
    size: int
    """Both in bytes."""
    name: str
    """What messages call it."""

    def __str__(self) -> str:
        return self.name


class Example(NamedTuple):
    """One image and all texts about it: what a data set yields, still undecoded."""

    image_id: str
    image: bytes | Path | StoredImage | UInt8[np.ndarray, "h w 3"]
    """The encoded image file (PNG, JPEG, ...), or its place: read when it is decoded; or pixels at the model's size."""
    texts: tuple[Text, ...] = ()
    scene: str | None = None
    """The rendered scene as JSON (`scenes.scene.from_json`); None where it is unknown."""
    image_tokens: Int[np.ndarray, "gh gw"] | None = None
    """What an image tokenizer made of the image: then a batch has these tokens and no pixels."""


class Batch(NamedTuple):
    """What a model sees: `I` images with `K` question slots each. One question an image is K = 1."""

    image: UInt8[Array, "I h w 3"] | Float[Array, "I h w 3"] | Float[Array, "I G C"] | None
    """Pixels, which the device normalises, or precomputed grid features; None where there are image tokens."""
    input_ids: Int[Array, "I K T"]
    text_mask: Bool[Array, "I K T"]
    """True at real tokens."""
    answers: Int[Array, "I K R"]
    """Answer classes; entries of weight 0 are padding and hold 0."""
    answer_weights: Float[Array, "I K R"]
    """The soft target's share on each answer; all 0 where no accepted answer is in the vocabulary."""
    weight: Float[Array, "I K"]
    """1 for a real question, 0 for an empty slot or an image that only fills the batch."""
    index: Int[Array, " I"]
    """Position of the image in the global batch: the seed of its randomness."""
    image_tokens: Int[Array, "I gh gw"] | None = None
    """The ids that an image tokenizer gave; None where there is an image."""


class LoadedBatch(NamedTuple):
    """A batch and what the host must remember of it."""

    batch: Batch
    text_ids: list[list[str]]
    """`[I][K]`, the empty string in empty slots."""


class ModelOutput(NamedTuple):
    """What the model computed. The image stream has one copy an image where no text reaches it (k = 1), else k = K."""

    logits: Float[Array, "I K A"] | Float[Array, "I K N A"] | Float[Array, "I N A"] | Float[Array, "I A"]
    """From [CLS], or at every position with the image's G positions first (N = G + T)."""
    image: Float[Array, "I k G D"] | Float[Array, "I G D"]
    text: Float[Array, "I K T D"] | Float[Array, "I T D"]
