"""The image tokenizer: its quantizers, each with the settings of its own, its encoder and its decoder."""

import math
from typing import Annotated, Literal

from annotated_types import Ge, MinLen
from pydantic import model_validator

from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count, Counts, Levels, NotNegative, Whole, check_stages, nearest_multiple

MAX_CODEBOOK_SIZE = 2**16
MIN_SIDE = 16  # pixels: what the structural similarity of two images needs, and a little more


class FSQ(Group):
    """Finite scalar quantization: a few numbers, each rounded to a few levels."""

    kind: Literal["fsq"] = "fsq"
    levels: Annotated[tuple[Levels, ...], MinLen(1)] = (8, 5, 5, 5)
    """Levels of each number; their product is the codebook size."""

    @model_validator(mode="after")
    def check_levels(self) -> "FSQ":
        """The codebook is not too large."""
        if self.codebook_size > MAX_CODEBOOK_SIZE:
            raise ValueError(
                f"levels {self.levels} make a codebook of {self.codebook_size:,}; choose at most {MAX_CODEBOOK_SIZE:,}"
            )
        return self

    @property
    def codebook_size(self) -> int:
        """The number of image tokens."""
        return math.prod(self.levels)


class VQ(Group):
    """Vector quantization: the nearest of learned vectors."""

    kind: Literal["vq"] = "vq"
    codebook_size: Annotated[int, Ge(2)] = 1000
    """The number of image tokens."""
    embedding_size: Count = 16
    """Size of a token's vector."""
    commitment: NotNegative = 0.25
    """Weight of the loss that keeps features near their token's vector."""


Quantizer = Annotated[FSQ | VQ, CHOICE]


class ImageTokenizerSettings(Group):
    """From an image to a small grid of image tokens, and back."""

    quantizer: Quantizer = FSQ()
    """How features become image tokens."""
    encoder: Literal["patchwise", "convolutional"] = "patchwise"
    """`patchwise`: a token depends on its own patch alone; `convolutional`: on its neighbours as well."""
    patch_size: Count = 4
    """Side in pixels of the squares that the first stage reads; each later stage halves height and width."""
    widths: Counts = (64, 128)
    """Channels of each stage of the encoder; the decoder mirrors it."""
    depths: tuple[Whole, ...] = (2, 2)
    """Residual blocks of each stage, in the encoder and in the decoder."""

    @model_validator(mode="after")
    def check_depths(self) -> "ImageTokenizerSettings":
        """Every stage has a width and a depth."""
        check_stages(self.widths, self.depths, "depths")
        return self

    @property
    def token_side(self) -> int:
        """Side in pixels of the square that one image token stands for."""
        return self.patch_size * 2 ** (len(self.widths) - 1)

    def grid_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of image tokens of an image of `size` pixels."""
        return size[0] // self.token_side, size[1] // self.token_side

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise `ValueError` where an image of `size` pixels does not divide into image tokens."""
        side = self.token_side
        for pixels in size:
            if pixels % side or pixels < MIN_SIDE:
                nearest = nearest_multiple(max(pixels, MIN_SIDE + side // 2), side)
                raise ValueError(
                    f"image.size {size} is below {MIN_SIDE} pixels, or does not divide into squares of {side} pixels "
                    f"(image_tokenizer); the nearest side is {nearest}"
                )
