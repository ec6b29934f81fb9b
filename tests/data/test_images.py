"""Images of every kind come out as a person sees them, and everything else is refused by name."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from vlm_jax.data.augmentation import augment_image
from vlm_jax.data.image_settings import AugmentedImages, CenterCrop, Crop, ImageInput, Pad, Stretch
from vlm_jax.data.images import decode_image, normalise, resize_image
from vlm_jax.errors import InputError
from vlm_jax.inference.images import ImageProcessor

MANY = 50_000_000
random = np.random.default_rng(0)
PHOTO = np.asarray(Image.fromarray(random.integers(0, 256, (3, 5, 3), np.uint8)).resize((50, 30), Image.BICUBIC))


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def decode(data, **options):
    return decode_image(data, **{"max_pixels": MANY, **options})


@pytest.mark.parametrize(
    "format, options",
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_keep_every_pixel(format, options):
    np.testing.assert_array_equal(decode(encoded(PHOTO, format, **options)), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_exif_rotation_is_applied(orientation, format):
    # How a camera held in each way stores the upright PHOTO: the inverse of what a viewer does.
    stored = {
        1: PHOTO,
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.swapaxes(0, 1),
        6: np.rot90(PHOTO, 1),
        7: PHOTO[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(PHOTO, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    image = decode(encoded(np.ascontiguousarray(stored), format, exif=exif, **options))
    assert image.shape == PHOTO.shape
    assert np.abs(image.astype(int) - PHOTO).max() <= (8 if format == "JPEG" else 0)


def test_damaged_exif_still_gives_the_pixels():
    data = encoded(PHOTO, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12garbage")
    np.testing.assert_array_equal(decode(data), PHOTO)


def test_grey_palette_and_bilevel():
    grey = PHOTO[..., 0]
    np.testing.assert_array_equal(decode(encoded(grey)), np.repeat(grey[..., None], 3, -1))
    palette = Image.fromarray(PHOTO).quantize(64)
    np.testing.assert_array_equal(decode(encoded(palette)), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(decode(encoded(grey > 100))[..., 1], np.where(grey > 100, 255, 0))


def test_transparency_is_white():
    rgba = np.full((2, 3, 4), (200, 10, 20, 0), np.uint8)
    rgba[0, 0, 3], rgba[1, 1, 3] = 255, 128
    image = decode(encoded(rgba))
    np.testing.assert_array_equal(image[0, 0], (200, 10, 20))
    np.testing.assert_array_equal(image[0, 2], (255, 255, 255))
    np.testing.assert_allclose(image[1, 1], (227, 132, 137), atol=1)
    assert (decode(encoded(rgba[..., [0, 3]]))[1, 2] == 255).all()  # grey with alpha
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.putpixel((0, 0), 0)
    np.testing.assert_array_equal(decode(encoded(palette, transparency=0))[0], [(255, 255, 255), (9, 8, 7)])
    keyed = np.uint8([[[1, 2, 3], [4, 5, 6]]])
    np.testing.assert_array_equal(decode(encoded(keyed, transparency=(1, 2, 3)))[0], [(255, 255, 255), (4, 5, 6)])


def test_deep_images_are_scaled_not_clipped():
    levels = np.arange(256).reshape(4, 64)
    ramp = np.uint16(levels * 257)
    for format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(ramp, format))[..., 0], levels)
    floats = np.linspace(0, 1, 256, dtype=np.float32).reshape(4, 64)
    np.testing.assert_array_equal(decode(encoded(floats, "TIFF"))[..., 2], levels)
    np.testing.assert_array_equal(decode(encoded(floats * 255, "TIFF"))[..., 2], levels)
    wide = np.array([[-1000.0, 0.0, np.nan, 1000.0]], np.float32)
    np.testing.assert_array_equal(decode(encoded(wide, "TIFF"))[0, :, 1], (0, 128, 128, 255))
    header = b"P5 4 1 65535\n" + np.array([0, 257, 32896, 65535], ">u2").tobytes()
    np.testing.assert_array_equal(decode(header)[0, :, 0], (0, 1, 128, 255))


def test_cmyk_animation_and_phone_images():
    cmyk = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert (decode(cmyk)[0, 0] > (200, -1, -1)).all() and decode(cmyk)[0, 0, 1] < 60
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(animation)[0, 0], (255, 0, 0))
    phone = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(decode(phone)[0, 0].astype(int) - (255, 0, 0)).max() < 5


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_named(format):
    data = encoded(random.integers(0, 256, (64, 64, 3), np.uint8), format)
    with pytest.raises(InputError, match=r"^cat\.png is .*"):
        decode(data[: len(data) // 2], name="cat.png")


@pytest.mark.parametrize(
    "data, message", [(b"", "empty"), (b"not an image at all", "not an image"), (b"\0" * 99, "not")]
)
def test_what_is_no_image_is_named(data, message):
    with pytest.raises(InputError, match=f"cat.png is {message}"):
        decode(data, name="cat.png")


def test_paths(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(encoded(PHOTO))
    np.testing.assert_array_equal(decode(path), PHOTO)
    np.testing.assert_array_equal(decode(str(path)), PHOTO)
    (tmp_path / "text.png").write_text("hello")
    for bad in ("text.png", "gone.png", ".", "nul\0.png", "cat.png/below"):
        with pytest.raises(InputError) as error:
            decode(tmp_path / bad)
        assert str(tmp_path / bad).replace("\0", r"\x00") in str(error.value) and "\n" not in str(error.value)


def bomb(width, height):
    """A valid PNG of one bit a pixel, written row by row: the file is small, the image is not."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\0" * ((width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 14_000])  # below and above what Pillow itself refuses
def test_a_huge_image_is_refused_before_allocation(side):
    import tracemalloc

    data = bomb(side, side)
    assert len(data) < 100_000
    tracemalloc.start()
    with pytest.raises(InputError, match=r"^bomb\.png .*pixels"):
        decode(data, name="bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    with pytest.raises(InputError, match="50 x 30 pixels, over the limit of 1,499"):
        decode(encoded(PHOTO), max_pixels=1499)
    assert decode(encoded(PHOTO), max_pixels=1500).shape == (30, 50, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_a_strip_is_no_image(turned):
    """A file, an opened image and an array alike: the long side is at most 100 times the short one."""
    processor = ImageProcessor(ImageInput(size=(8, 8)), max_pixels=MANY)
    for long in (100, 101, 5000):
        strip = Image.new("RGB", (long, 1) if turned else (1, long))
        for image in (encoded(strip), strip, np.asarray(strip)):
            if long == 100:
                assert processor(image).shape == (8, 8, 3)
                continue
            with pytest.raises(InputError, match=rf"{strip.width} x {strip.height} pixels.* 100 times") as refusal:
                processor(image)
            assert "\n" not in str(refusal.value)


def test_no_warning_leaks_from_any_thread():
    strange = [bomb(9500, 9500), encoded(Image.fromarray(PHOTO).quantize(4), transparency=b"\0\x80\xff\xff")]
    caught = []

    def work():
        for data in strange * 3:
            try:
                decode(data, max_pixels=1_000_000)
            except InputError:
                caught.append("refused")
            except Warning as warning:
                caught.append(warning)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=work) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert caught == ["refused"] * 12


def test_resize_modes():
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = (250, 0, 0)
    wide[:, 30:] = (0, 0, 250)
    cropped = resize_image(wide, ImageInput(size=(10, 10), resize=Crop()))
    assert (cropped[:, 2:-2] == (250, 0, 0)).all() and (cropped[..., 0] > 200).all()
    stretched = resize_image(wide, ImageInput(size=(20, 20), resize=Stretch()))
    assert (stretched[:, 0] == 0).all() and (stretched[:, -1] == (0, 0, 250)).all()
    padded = resize_image(wide, ImageInput(size=(40, 40), resize=Pad(), mean=(0.2, 0.4, 0.6)))
    assert (padded[:10] == (51, 102, 153)).all() and (padded[30:] == (51, 102, 153)).all()
    np.testing.assert_array_equal(padded[10:30], wide)


@pytest.mark.parametrize("resize", [Crop(), Pad(), Stretch()])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_resize_of_extreme_shapes(resize, shape):
    resized = resize_image(np.full((*shape, 3), 77, np.uint8), ImageInput(size=(6, 9), resize=resize))
    assert resized.shape == (6, 9, 3) and (resized == 77).any()


def scaled_and_cut(image, short_side, size, resample):
    """torchvision's Resize(short_side) and CenterCrop(size) on Pillow images, step by step."""
    pil_image = Image.fromarray(image)
    width, height = pil_image.size
    short, long = min(width, height), max(width, height)
    longer = int(short_side * long / short)
    pil_image = pil_image.resize((short_side, longer) if width <= height else (longer, short_side), resample)
    top, left = round((pil_image.height - size[0]) / 2.0), round((pil_image.width - size[1]) / 2.0)
    return np.asarray(pil_image.crop((left, top, left + size[1], top + size[0])))


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(100, 173), (173, 100), (90, 90), (41, 300), (20, 30), (32, 32), (28, 28)])
@pytest.mark.parametrize("size", [(28, 28), (28, 20)])
def test_a_published_crop(shape, size, resample):
    """Scaled whole, and cut out then."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = resize_image(image, ImageInput(size=size, resize=CenterCrop(short_side=32, resample=resample)))
    expected = scaled_and_cut(image, 32, size, Image.Resampling[resample.upper()])
    assert np.array_equal(ours, expected)
    resized = resize_image(image, ImageInput(size=size))
    assert np.abs(resized.astype(int) - expected).max() > 20


def test_a_published_crop_allocates_little():
    resize_image(np.zeros((1, 5_000_000, 3), np.uint8), ImageInput(size=(28, 28), resize=CenterCrop(short_side=32)))


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # thinner than a target pixel: must become grey, not black or white
    small = resize_image(stripes, ImageInput(size=(16, 16)))
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() < 16


def test_normalisation_is_exact_whatever_stands_before_the_image():
    settings = ImageInput(size=(30, 50), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = (PHOTO / 255 - np.array(settings.mean)) / np.array(settings.std)
    normalised = normalise(resize_image(PHOTO, settings), settings)  # already of that size, so unchanged
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised, expected, atol=1e-6)
    np.testing.assert_array_equal(normalise(np.stack([PHOTO, PHOTO[::-1]])[None], settings)[0, 1], normalised[::-1])


def test_flip_and_shift():
    flip = AugmentedImages(size=(30, 50), flip=True)
    seen = [augment_image(PHOTO, flip, np.random.default_rng(seed)) for seed in range(200)]
    mirrored = [np.array_equal(image, PHOTO[:, ::-1]) for image in seen]
    assert all(m or np.array_equal(image, PHOTO) for m, image in zip(mirrored, seen, strict=True))
    assert 70 < sum(mirrored) < 130
    shift = AugmentedImages(size=(30, 50), shift=2)
    padded = np.pad(PHOTO, ((2, 2), (2, 2), (0, 0)), mode="edge")
    windows = {padded[y : y + 30, x : x + 50].tobytes(): (y, x) for y in range(5) for x in range(5)}
    seen = {windows[augment_image(PHOTO, shift, np.random.default_rng(seed)).tobytes()] for seed in range(400)}
    assert len(seen) == 25
    huge = augment_image(PHOTO, AugmentedImages(size=(30, 50), shift=500), np.random.default_rng(1))
    assert huge.shape == PHOTO.shape


def test_augmentation_repeats_with_its_generator():
    settings = AugmentedImages(size=(20, 20), flip=True, shift=3)
    resized = resize_image(PHOTO, settings)
    twice = [augment_image(resized, settings, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    many = {augment_image(resized, settings, np.random.default_rng(seed)).tobytes() for seed in range(30)}
    assert len(many) > 15


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


MUCH = zlib.compress(b"x" * 3_000_000)  # Pillow takes a megabyte of a chunk


@pytest.mark.parametrize(
    "chunks",
    [
        chunk(b"iCCP", b"profile\0\0" + MUCH),
        chunk(b"zTXt", b"Comment\0\0" + MUCH),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + MUCH),
        chunk(b"tEXt", b"Comment\0" + b"y" * 900_000) * 80,
    ],
    ids=["profile", "text", "xmp", "texts"],
)
@pytest.mark.parametrize("place", [33, -12])
def test_png_metadata_does_not_matter(chunks, place):
    """Before the pixels, or after them; the orientation is still read."""
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    data = stream.getvalue()
    decoded = decode_image(data[:place] + chunks + data[place:], max_pixels=100)
    np.testing.assert_array_equal(decoded, np.rot90(pixels, -1))
