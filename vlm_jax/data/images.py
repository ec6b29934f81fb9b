"""Image files to pixels as a person sees them, and pixels to the model's input."""

import io
import math
import re
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vlm_jax.data.image_settings import CenterCrop, Crop, ImageInput, Pad, StretchCrop
from vlm_jax.data.torchvision_resize import resize_as_torchvision
from vlm_jax.errors import InputError
from vlm_jax.types import StoredImage

# Only raster formats that Pillow decodes by itself: its EPS reader, for one, starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

MOST_ELONGATED = 100  # long side by short side; a longer strip is one pixel wide, or is cut to a hundredth of itself

_HEIC = re.compile(rb"....ftyp(hei[cxms]|hev[cmsx]|mif1|msf1)", re.DOTALL)  # brands of ISO/IEC 23008-12

LARGEST_SCALED = 2**24
"""Pixels: the largest image that is scaled before its centre is cut out."""

_PNG = b"\x89PNG\r\n\x1a\n"

_ORIENTATION = 0x0112  # the EXIF tag, values from EXIF 2.32, section 4.6.4
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PILLOW = r"PIL(\.|$)"
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(_PILLOW), 0)  # as `warnings.filters` lists it


def decode_image(
    source: bytes | str | Path | StoredImage, *, name: str | None = None, max_pixels: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The image as a person sees it: upright, in colour, transparency on white, 16 bits scaled to 8.

    `source` is an encoded image or its place; of an animation the first frame counts. Raises
    `InputError` with `name` (by default the path) for anything that is not a whole image, and for one of
    more than `max_pixels` pixels, before its pixels take memory.
    """
    name = _one_line(name or ("image" if isinstance(source, bytes) else str(source)))
    data = source if isinstance(source, bytes) else read_image_file(source, name=name)
    if not data:
        raise InputError(f"{name} is empty (0 bytes); expected an image file")
    _silence_pillow()
    try:
        try:
            return _decode(data, name, max_pixels)
        except ValueError as error:
            if isinstance(error, InputError) or not data.startswith(_PNG):
                raise
            return _decode(_without_texts(data), name, max_pixels)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large to decode: {error}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{name} is not an image; expected one of {', '.join(_FORMATS)}") from None
    except Exception as error:  # Pillow answers a damaged file with nearly any exception
        raise InputError(f"{name} is a damaged image: {error or type(error).__name__}") from None


def _decode(data: bytes, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    formats = (*_FORMATS, "HEIF") if _HEIC.match(data) and _reads_heic(name) else _FORMATS
    with Image.open(io.BytesIO(data), formats=formats) as image:
        check_size(image.size, name, max_pixels)
        image.load()
        return np.asarray(_rgb(_turn_upright(image)))


def _reads_heic(name: str) -> bool:
    """Let Pillow read HEIC images, as phones write them; `InputError` where the package that can is not installed."""
    try:
        import pillow_heif
    except ImportError:
        raise InputError(f"{name} is a HEIC image; pip install pillow-heif to read it, or save it as JPEG") from None
    pillow_heif.register_heif_opener()
    return True


def opened_image(image: Image.Image, *, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image that Pillow has opened, as `decode_image` gives them."""
    _silence_pillow()
    check_size(image.size, "the image", max_pixels)
    try:
        image.load()
        return np.asarray(_rgb(_turn_upright(image)))
    except Exception as error:  # Pillow answers a damaged file with nearly any exception
        raise InputError(f"the image is damaged: {error or type(error).__name__}") from None


def _without_texts(data: bytes) -> bytes:
    """A PNG without its colour profile and texts, which say nothing of its pixels; Pillow refuses large ones.

    A chunk is its length, its type, its content and a checksum (PNG specification, section 5.3).
    """
    chunks, place = [_PNG], len(_PNG)
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 12 + length
        if data[place + 4 : place + 8] not in (b"iCCP", b"iTXt", b"tEXt", b"zTXt"):
            chunks.append(data[place:end])
        place = end
    return b"".join(chunks)


def read_image_file(source: str | Path | StoredImage, *, name: str | None = None) -> bytes:
    """The bytes of an image file; `InputError` with `name` (by default the path) where there are none to read."""
    name = _one_line(name or str(source))
    if isinstance(source, StoredImage):
        return _read_part(source, name)
    try:
        path = Path(source).expanduser()
        if path.is_file() or path.is_dir() or not path.exists():
            return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no image file {name}") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder; expected an image file") from None
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the path; RuntimeError: ~stranger
        raise InputError(f"cannot read the image {name}: {getattr(error, 'strerror', None) or error}") from None
    raise InputError(f"{name} is a pipe or a device, which may never end; expected an image file")


def _read_part(image: StoredImage, name: str) -> bytes:
    try:
        with image.file.open("rb") as file:
            file.seek(image.offset)
            data = file.read(image.size)
    except OSError as error:
        raise InputError(f"cannot read {name} in {image.file}: {error.strerror}") from None
    if len(data) < image.size:
        raise InputError(f"{image.file} is cut short: {name} is not in it any more")
    return data


def _one_line(name: str) -> str:
    """A file's name as a message shows it: it may hold line breaks, or bytes that are no text."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in name)


def _silence_pillow() -> None:
    """Keep Pillow's warnings about odd files to itself.

    `warnings.catch_warnings` is not thread-safe before Python 3.14 and images are decoded in threads,
    so the filter stays; it is looked up each time because others reset the list.
    """
    if _PILLOW_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW)


def check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise `InputError` for an image of too many pixels, of none, or of a shape of which no model sees anything.

    The size is width and height.
    """
    width, height = size
    if width * height > max_pixels:
        raise InputError(
            f"{name} has {width} x {height} pixels, over the limit of {max_pixels:,}; "
            "scale it down, or raise data.max_pixels"
        )
    if width * height == 0:
        raise InputError(f"{name} has {width} x {height} pixels; expected at least one")
    if max(size) > MOST_ELONGATED * min(size):
        raise InputError(
            f"{name} has {width} x {height} pixels; expected the long side at most {MOST_ELONGATED} times the short one"
        )


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION))
    except Exception:  # unreadable EXIF: the pixels are still good, so show them as stored
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _to_eight_bits(np.asarray(image))
        if "transparency" in image.info:  # one value that stands for "nothing here", as PNG allows
            grey[np.asarray(image) == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_eight_bits(values: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """Grey values of 16 or 32 bits or floats on 0 to 255: full scale where it is known, else their own range."""
    scales = (1.0, 255.0) if values.dtype.kind == "f" else (65535.0,)
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    top = next((scale for scale in scales if low >= 0 and high <= scale), None)
    if top is None:
        values, top = values - low, (high - low) or 1.0
    return np.rint(values * (255.0 / top)).astype(np.uint8)


def resize_image(image: UInt8[np.ndarray, "H W 3"], settings: ImageInput) -> UInt8[np.ndarray, "h w 3"]:
    """The image at `settings.size`, by antialiased resampling; `pad` fills with the mean colour."""
    height, width = settings.size
    method = settings.resize
    if image.shape[:2] == (height, width) and not isinstance(method, (CenterCrop, StretchCrop)):
        return image
    pil_image, resample = Image.fromarray(image), Image.Resampling[method.resample.upper()]
    if isinstance(method, Pad):
        scale = min(height / pil_image.height, width / pil_image.width)
        inner = (max(1, round(pil_image.width * scale)), max(1, round(pil_image.height * scale)))
        fill = tuple(round(255 * channel) for channel in settings.mean)
        canvas = Image.new("RGB", (width, height), fill)
        corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        canvas.paste(pil_image.resize(inner, resample), corner)
        return np.asarray(canvas)
    if isinstance(method, (CenterCrop, StretchCrop)):
        return _scaled_and_cut(pil_image, settings.size, method)
    if getattr(method, "backend", "pillow") == "torchvision":
        return resize_as_torchvision(image, settings.size, method.resample)
    # Cutting before scaling: an image of 1 x 50,000,000 would grow first otherwise.
    box = _largest_centre(pil_image, settings.size) if isinstance(method, Crop) else None
    return np.asarray(pil_image.resize((width, height), resample, box=box))


def _scaled_and_cut(
    pil_image: Image.Image, size: tuple[int, int], method: CenterCrop | StretchCrop
) -> UInt8[np.ndarray, "h w 3"]:
    """The centre of the scaled image.

    The image is scaled whole: Pillow orders its two passes by their work and rounds in between, so the same part
    scaled by itself is another one by up to 23 of 255 levels. Beyond `LARGEST_SCALED` only the part is scaled.
    """
    resample = Image.Resampling[method.resample.upper()]
    is_stretched = isinstance(method, StretchCrop)
    scaled_size = method.scaled_size if is_stretched else _scaled_size(pil_image, method.short_side)
    # torchvision.transforms.functional.center_crop rounds; `center_crop` of transformers' image processors floors.
    whole = round if method.corner == "rounded" else math.floor
    top, left = (whole((scaled - side) / 2) for scaled, side in zip(scaled_size, size, strict=True))
    box = (left, top, left + size[1], top + size[0])
    if math.prod(scaled_size) <= LARGEST_SCALED:
        if method.backend == "torchvision":
            return resize_as_torchvision(np.asarray(pil_image), scaled_size, method.resample, box)
        return np.asarray(pil_image.resize(scaled_size[::-1], resample).crop(box))
    scales = (pil_image.width / scaled_size[1], pil_image.height / scaled_size[0]) * 2
    box = [min(edge * scale, length) for edge, scale, length in zip(box, scales, pil_image.size * 2, strict=True)]
    return np.asarray(pil_image.resize(size[::-1], resample, box=tuple(map(float, box))))


def _largest_centre(pil_image: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest box of the shape of `size` around the centre."""
    scale = min(pil_image.height / size[0], pil_image.width / size[1])
    left, top = (pil_image.width - size[1] * scale) / 2, (pil_image.height - size[0] * scale) / 2
    box = (left, top, left + size[1] * scale, top + size[0] * scale)
    return max(0.0, box[0]), max(0.0, box[1]), min(float(pil_image.width), box[2]), min(float(pil_image.height), box[3])


def _scaled_size(pil_image: Image.Image, short_side: int) -> tuple[int, int]:
    """Height and width that torchvision's Resize(short_side) gives: the long side loses its fraction of a pixel."""
    short = min(pil_image.size)
    height, width = (
        short_side if length == short else int(short_side * length / short) for length in pil_image.size[::-1]
    )
    return height, width


def normalise(pixels: UInt8[np.ndarray, "*batch h w 3"], settings: ImageInput) -> Float[np.ndarray, "*batch h w 3"]:
    """(pixel / 255 - mean) / std, as float32."""
    width = pixels.shape[-2]
    mean, std = np.float64(settings.mean), np.float64(settings.std)
    # A whole row at a time: NumPy is five times slower on an inner axis of three channels.
    scale = np.tile(1 / (255 * std), width).astype(np.float32)
    offset = np.tile(-mean / std, width).astype(np.float32)
    rows = np.multiply(pixels.reshape(*pixels.shape[:-2], width * 3), scale, dtype=np.float32)
    rows += offset
    return rows.reshape(pixels.shape)


def denormalise(image: Float[np.ndarray, "*batch h w 3"], settings: ImageInput) -> UInt8[np.ndarray, "*batch h w 3"]:
    """The pixels that `normalise` made these values of; what no pixel can be becomes the nearest that one can."""
    levels = 255 * (np.asarray(image) * np.float32(settings.std) + np.float32(settings.mean))
    return np.rint(levels).clip(0, 255).astype(np.uint8)
