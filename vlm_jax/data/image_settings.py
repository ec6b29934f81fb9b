"""How an image file becomes the model's input."""

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import Count, Positive, PositiveShare, Share, Whole

Resample = Literal["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]
Corner = Literal["rounded", "floored"]
Backend = Literal["pillow", "torchvision"]
TORCHVISION: tuple[Resample, ...] = ("nearest", "bilinear", "bicubic")
"""The filters that torchvision has for tensors."""


class Crop(Group):
    """Scale both sides alike, as little as possible, and cut out the centre; bicubic."""

    kind: Literal["crop"] = "crop"
    resample: ClassVar[Resample] = "bicubic"


class CenterCrop(Group):
    """Scale the short side to a number of pixels, and cut out the centre."""

    kind: Literal["center_crop"] = "center_crop"
    short_side: Count = 256
    """Pixels of the short side before the cut."""
    resample: Resample = "bicubic"
    """Pillow's filter, always antialiased."""
    corner: Corner = "rounded"
    """Half a pixel of the cut's corner is rounded to even as in torchvision, or floored as in transformers."""
    backend: Backend = "pillow"
    """Whose rounding: Pillow's, or that of torchvision for tensors, which has nearest, bilinear and bicubic."""


class Pad(Group):
    """Scale the long side, and fill the rest with the mean colour."""

    kind: Literal["pad"] = "pad"
    resample: Resample = "bicubic"
    """Pillow's filter, always antialiased."""


class Stretch(Group):
    """Scale each side by itself."""

    kind: Literal["stretch"] = "stretch"
    resample: Resample = "bicubic"
    """Pillow's filter, always antialiased."""
    backend: Backend = "pillow"
    """Whose rounding: Pillow's, or that of torchvision for tensors, which has nearest, bilinear and bicubic."""


class RandomResizedCrop(Stretch):
    """Scale each side by itself; of training images a random part, in other colours."""

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    scale: tuple[PositiveShare, PositiveShare] = (0.5, 1.0)
    """The least and the largest share of the image's area."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """The least and the largest width of the part, in heights."""
    brightness: Share = 0.2
    """Multiply brightness by 1 and up to this much more or less."""
    contrast: Share = 0.2
    """Multiply the distance from the mean grey, likewise."""
    saturation: Share = 0.2
    """Multiply the distance from the grey image, likewise."""

    @model_validator(mode="after")
    def check_ranges(self) -> "RandomResizedCrop":
        """The least is not above the largest."""
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is {low:g} to {high:g}; give the least first")
        return self


class StretchCrop(Group):
    """Scale each side by itself, and cut out the centre."""

    kind: Literal["stretch_crop"] = "stretch_crop"
    scaled_size: tuple[Count, Count] = (256, 256)
    """Height and width in pixels before the cut."""
    resample: Resample = "bicubic"
    """Pillow's filter, always antialiased."""
    corner: Corner = "rounded"
    """Half a pixel of the cut's corner is rounded to even as in torchvision, or floored as in transformers."""
    backend: Backend = "pillow"
    """Whose rounding: Pillow's, or that of torchvision for tensors, which has nearest, bilinear and bicubic."""


Resize = Crop | CenterCrop | Pad | Stretch | StretchCrop | RandomResizedCrop


class ImageInput(Group):
    """How an image file becomes the model's input. Saved with the checkpoint, used wherever the model is."""

    size: tuple[Count, Count] = (64, 64)
    """Height and width in pixels."""
    resize: Annotated[Resize, CHOICE] = Crop()
    """How an image of another size gets this one."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from each colour channel, on a scale of 0 to 1."""
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    """Divides each colour channel afterwards."""

    @model_validator(mode="after")
    def check_resize(self) -> "ImageInput":
        """The scaled image covers the size, and the backend has the filter."""
        resize = self.resize
        if getattr(resize, "backend", "pillow") == "torchvision" and resize.resample not in TORCHVISION:
            raise ValueError(f"resize.backend torchvision has no {resize.resample}; choose one of {TORCHVISION}")
        if isinstance(resize, StretchCrop) and any(map(operator.lt, resize.scaled_size, self.size)):
            raise ValueError(f"resize.scaled_size {resize.scaled_size} is less than size {self.size}; raise it")
        if isinstance(resize, CenterCrop) and resize.short_side < max(self.size):
            raise ValueError(
                f"resize.short_side {resize.short_side} is less than size {self.size}; the smallest is {max(self.size)}"
            )
        return self

    def at_size(self, size: tuple[int, int]) -> "ImageInput":
        """The same part of images at another size: what is scaled before a cut is scaled by the same factor."""
        factors = [new / old for new, old in zip(size, self.size, strict=True)]
        changes, resize = {"size": size}, self.resize
        if isinstance(resize, CenterCrop):
            changes["resize.short_side"] = round(resize.short_side * max(factors))
        elif isinstance(resize, StretchCrop):
            scaled = zip(resize.scaled_size, factors, strict=True)
            changes["resize.scaled_size"] = tuple(round(side * factor) for side, factor in scaled)
        return with_changes(self, changes)


class AugmentedImages(ImageInput):
    """How an image file becomes the model's input, and how training images vary."""

    flip: bool = False
    """Mirror half of the training images left to right."""
    shift: Whole = 0
    """Move training images by up to this many pixels each way; uncovered edges repeat the border."""
