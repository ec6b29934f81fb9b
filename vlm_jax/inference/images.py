"""Images as a user has them to pixels at a model's size, and to its input."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.images import check_size, decode_image, normalise, opened_image, resize_image
from vlm_jax.data.input_images import input_images
from vlm_jax.errors import InputError
from vlm_jax.figures import thumbnail

ImageLike = str | Path | bytes | Image.Image | np.ndarray
"""A path, the content of an image file, an image of Pillow, or uint8 [h, w, 3]."""
Images = ImageLike | Sequence[ImageLike]
KINDS = "a path, a Pillow image, or a uint8 array [h, w, 3]"


class ImageProcessor:
    """The preprocessing of a model's images: `processor(image)` is its normalised input."""

    def __init__(self, settings: ImageInput, *, max_pixels: int) -> None:
        self.settings, self._max_pixels = settings, max_pixels

    def __call__(self, image: ImageLike) -> Float[np.ndarray, "h w 3"]:
        """The image at the model's size, normalised; `InputError` where it is no image."""
        return normalise(self.pixels(image), self.settings)

    def pixels(self, image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
        """The image at the model's size; `InputError` where it is no image."""
        return resize_image(self.decode(image), self.settings)

    def decode(self, image: ImageLike) -> UInt8[np.ndarray, "H W 3"]:
        """The pixels of an image at its own size; `InputError` where it is no image."""
        if isinstance(image, (str, Path, bytes)):
            source = Path(image) if isinstance(image, str) else image
            return decode_image(source, max_pixels=self._max_pixels)
        if isinstance(image, Image.Image):
            return opened_image(image, max_pixels=self._max_pixels)
        if not isinstance(image, np.ndarray):
            raise InputError(f"an image is of type {type(image).__name__}; expected {KINDS}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise InputError(f"an image is {image.dtype}{list(image.shape)}; expected uint8 [h, w, 3], levels 0 to 255")
        check_size(image.shape[1::-1], "the image", self._max_pixels)
        return image


def grid_features(image: ImageLike, shape: tuple[int | None, ...]) -> Float[np.ndarray, "*grid C"]:
    """The features of an image, an array or a .npy file, as float32; None in `shape` stands for any length."""
    expected = f"grid features, float [{', '.join('G' if size is None else str(size) for size in shape)}]"
    if isinstance(image, (str, Path)) and str(image).endswith(".npy"):
        try:
            image = np.load(Path(image).expanduser(), allow_pickle=False)
        except Exception as error:  # NumPy answers a damaged file with nearly any exception
            raise InputError(f"{image} cannot be read ({type(error).__name__}); expected {expected}") from None
    if not isinstance(image, np.ndarray):
        what = str(image) if isinstance(image, (str, Path)) else f"of type {type(image).__name__}"
        raise InputError(f"an image is {what}; expected {expected}, an array or a .npy file")
    fits = len(shape) == image.ndim and all(size in (None, own) for size, own in zip(shape, image.shape, strict=True))
    if image.dtype.kind != "f" or not fits:
        raise InputError(f"an image is {image.dtype}{list(image.shape)}; expected {expected}")
    return image.astype(np.float32, copy=False)


def named_images(paths: Sequence[Path], *, max_pixels: int) -> tuple[list[str], list[Path]]:
    """The names and files of the images that a command line names; see `input_images`."""
    files = list(input_images(paths, max_pixels=max_pixels))
    return list(map(str, files)), files


def thumbnails(
    images: Sequence[ImageLike], processor: ImageProcessor | None, output: Path | None
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The images as small as a contact sheet shows them; none without an output file."""
    if output is not None and processor is None:
        raise InputError(f"--output {output} shows images, and this model reads features; leave it out")
    return [] if output is None else [thumbnail(processor.decode(image)) for image in images]


def as_images(images: Images) -> list[ImageLike]:
    """One image or several as a list; `InputError` for an empty list."""
    listed = list(images) if isinstance(images, (list, tuple)) else [images]
    if not listed:
        raise InputError(f"the list of images is empty; expected {KINDS}, or a list of them")
    return listed


def as_texts(texts: object, what: str) -> list[str]:
    """One text or several as a list; `InputError` for an empty list, and for what is no text."""
    listed = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, (list, tuple)) else [texts]
    if not listed:
        raise InputError(f"the list of {what}s is empty; expected a text, or a list of texts")
    for text in listed:
        if not isinstance(text, str):
            raise InputError(f"a {what} is of type {type(text).__name__}; expected a text, or a list of texts")
    return listed


def as_pairs(pairs: object, texts: list[str]) -> list[str] | None:
    """The second text of each text; `InputError` where there are more or fewer, and for what is no text."""
    if pairs is None:
        return None
    seconds = as_texts(pairs, "pair")
    if len(seconds) != len(texts):
        raise InputError(f"{len(texts)} texts and {len(seconds)} pairs came; give one second text for each text")
    return seconds


def bucket(count: int, most: int) -> int:
    """The batch that holds `count` rows: the next power of two, so that few programs are compiled; at most `most`."""
    return min(most, 1 << (count - 1).bit_length())


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows, with copies of the first behind them up to `size`."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)]) if len(rows) < size else rows
