"""How training images vary: mirrored, moved, and of photographs random parts in other colours."""

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance

from vlm_jax.data.image_settings import AugmentedImages, ImageInput, RandomResizedCrop

Pixels = UInt8[np.ndarray, "h w 3"]
ATTEMPTS = 10  # as in torchvision's RandomResizedCrop


def augment_image(image: Pixels, settings: ImageInput, random: np.random.Generator) -> Pixels:
    """The image, perhaps mirrored, and moved by up to `shift` pixels each way with its border repeated."""
    if not isinstance(settings, AugmentedImages):
        return image
    if settings.flip and random.random() < 0.5:
        image = _mirrored(image)
    if settings.shift:
        down, right = random.integers(-settings.shift, settings.shift + 1, size=2).tolist()
        bordered = np.pad(image, ((settings.shift,) * 2, (settings.shift,) * 2, (0, 0)), "edge")
        top, left = settings.shift - down, settings.shift - right
        image = bordered[top : top + len(image), left : left + image.shape[1]]
    return image


def augmentation_of(settings: ImageInput) -> str:
    """What decides the views of an image beside its pixels; empty where all are the image itself."""
    if not isinstance(settings, AugmentedImages):
        return ""
    crop = f" {settings.resize.model_dump_json()}" if isinstance(settings.resize, RandomResizedCrop) else ""
    if not (settings.flip or settings.shift or crop):
        return ""
    return f"flip {settings.flip} shift {settings.shift}{crop}"


def random_part(image: UInt8[np.ndarray, "H W 3"], settings: ImageInput, random: np.random.Generator) -> Pixels:
    """A random part of an image in its own size, scaled to `settings.size`, in other colours."""
    crop = settings.resize
    height, width = settings.size
    left, top, right, bottom = crop_box(image.shape[1], image.shape[0], crop, random)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    part = Image.fromarray(part).resize((width, height), Image.Resampling[crop.resample.upper()])
    return np.asarray(_in_other_colours(part, crop, random))


def crop_box(
    width: int, height: int, crop: RandomResizedCrop, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part (RandomResizedCrop.get_params of torchvision.transforms).

    Where no part of the wanted area and shape fits, the largest centre whose shape is allowed.
    """
    low, high = crop.ratio
    for _ in range(ATTEMPTS):
        area = width * height * random.uniform(*crop.scale)
        shape = math.exp(random.uniform(math.log(low), math.log(high)))
        inner = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < inner[0] <= width and 0 < inner[1] <= height:
            left, top = (int(random.integers(free + 1)) for free in (width - inner[0], height - inner[1]))
            return left, top, left + inner[0], top + inner[1]
    inner = min(width, max(1, round(height * high))), min(height, max(1, round(width / low)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    return left, top, left + inner[0], top + inner[1]


def _in_other_colours(image: Image.Image, crop: RandomResizedCrop, random: np.random.Generator) -> Image.Image:
    """Each by a random factor, in a random order (ColorJitter of torchvision.transforms, without hue)."""
    changes = {
        ImageEnhance.Brightness: crop.brightness, ImageEnhance.Contrast: crop.contrast,
        ImageEnhance.Color: crop.saturation,
    }  # fmt: skip
    factors = [(change, random.uniform(1 - most, 1 + most)) for change, most in changes.items() if most]
    for place in random.permutation(len(factors)):
        change, factor = factors[place]
        image = change(image).enhance(factor)
    return image


def _mirrored(image: Pixels) -> Pixels:
    """Left to right; channel by channel, since NumPy is five times slower on runs of three bytes."""
    mirrored = np.empty_like(image)
    for channel in range(3):
        mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored
