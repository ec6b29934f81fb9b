"""A zoo of image files: what a folder of images may hold, and what comes of each.

An image is described by its size and the colours in the middle of its squares, row by row. Most show the same flag of
red, green and blue over white, black and grey, 20 pixels a square: "60 x 40 rgb/wk-".
"""

import fnmatch
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_jax.data.image_settings import Crop, ImageInput, Pad, Stretch
from vlm_jax.data.images import decode_image, resize_image
from vlm_jax.data.settings import MAX_PIXELS
from vlm_jax.errors import InputError

ROOT = Path(__file__).parents[2]
LIMIT = MAX_PIXELS

COLOURS = {
    "r": (255, 0, 0),
    "g": (0, 255, 0),
    "b": (0, 0, 255),
    "w": (255, 255, 255),
    "k": (0, 0, 0),
    "-": (128, 128, 128),
}


def paint(rows, side=20):
    squares = np.uint8([[COLOURS[letter] for letter in row] for row in rows.split("/")])
    return squares.repeat(side, axis=0).repeat(side, axis=1)


def describe(image, size):
    """`size` and a letter for each square of 20 pixels, at most three each way; `?` is a colour without a letter."""
    down, across = (min(3, max(1, side // 20)) for side in size[:2])
    rows = [image.shape[0] * (2 * row + 1) // (2 * down) for row in range(down)]
    columns = [image.shape[1] * (2 * column + 1) // (2 * across) for column in range(across)]
    letters = "/".join("".join(letter_of(image[row, column]) for column in columns) for row in rows)
    return f"{size[1]} x {size[0]} {letters}"


def letter_of(colour):
    close = (letter for letter, wanted in COLOURS.items() if np.abs(np.subtract(colour, wanted, dtype=int)).max() <= 3)
    return next(close, "?")


FLAG, GREYS = paint("rgb/wk-"), paint("k-w")
NEXT = Image.fromarray(paint("kkk/kkk"))


def file(image, format="PNG", **options):
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, format, **options)
    return data.getvalue()


def moving(format, **options):
    return file(FLAG, format, save_all=True, append_images=[NEXT, NEXT], duration=100, **options)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size, depth, colour, rows, *extra):
    """A PNG by hand, since Pillow reads more than it writes: `colour` 0 is grey, 2 RGB, 6 RGBA (PNG, 11.2.1)."""
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def deep(image, colour, *extra):
    """A PNG of 16 bits a channel, which repeats each byte: 0x80 becomes 0x8080."""
    rows = (row.astype(">u2") * 257 for row in image)
    return png(image.shape[1::-1], 16, colour, (row.astype(">u2").tobytes() for row in rows), *extra)


def bits(width, height):
    """One black bit a pixel, written row by row: the file is small, the image is not."""
    return png((width, height), 1, 0, (bytes((width + 7) // 8) for _ in range(height)))


def held_upright():
    """The flag as a camera held upright stores it: on its side, with a note to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(np.ascontiguousarray(np.rot90(FLAG)), "JPEG", exif=exif, quality=95, subsampling=0)


def clear(image, *columns):
    """`image` with those columns of squares fully transparent, their colour still stored beneath."""
    alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    for column in columns:
        alpha[:, 20 * column : 20 * column + 20] = 0
    return np.concatenate([image, alpha], axis=-1)


def one_byte_wrong(data, place):
    place = int(len(data) * place)
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def no_file(path):
    """Nothing lies at this path."""


NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)

# A file's name, its bytes or what makes it, and what comes of it (`?` and `*` stand for any sign and any words).
ZOO = [
    ("plain.png", file(FLAG), "60 x 40 rgb/wk-"),
    ("猫 🐈 l'été.png", file(FLAG), "60 x 40 rgb/wk-"),
    ("one pixel.png", file(FLAG[:1, :1]), "1 x 1 r"),
    ("very wide.png", file(paint("rgb", 1).repeat(6667, axis=1)[:, :20_000]), "{path} has 20000 x 1 pixels; *"),
    ("very tall.png", file(paint("r/g/b", 1).repeat(6667, axis=0)[:20_000]), "{path} has 1 x 20000 pixels; *"),
    (
        "12 KB.png",
        bits(10_000, 10_000),
        "{path} has 10000 x 10000 pixels, over the limit of 50,000,000; scale it down, *",
    ),
    # Deep
    ("grey of 16 bits.png", deep(GREYS[..., 0], 0), "60 x 20 k-w"),
    ("grey of 16 bits, black is clear.png", deep(GREYS[..., 0], 0, chunk(b"tRNS", b"\0\0")), "60 x 20 w-w"),
    ("colour of 16 bits.png", deep(FLAG, 2), "60 x 40 rgb/wk-"),
    ("colour of 16 bits, one column clear.png", deep(clear(FLAG, 0), 6), "60 x 40 wgb/wk-"),
    ("floats up to 1.tiff", file(np.float32(GREYS[..., 0] / 255), "TIFF"), "60 x 20 k-w"),
    ("floats up to 255.tiff", file(np.float32(GREYS[..., 0]), "TIFF"), "60 x 20 k-w"),
    # Not what is stored but what is shown
    ("two columns clear.png", file(clear(FLAG, 1, 2)), "60 x 40 rww/www"),
    ("grey, one column clear.png", file(clear(GREYS, 0)[..., [0, 3]]), "60 x 20 w-w"),
    ("for a printer.jpg", file(Image.fromarray(FLAG).convert("CMYK"), "JPEG", quality=95), "60 x 40 rgb/wk-"),
    ("held upright.jpg", held_upright(), "60 x 40 rgb/wk-"),
    ("moving.gif", moving("GIF"), "60 x 40 rgb/wk-"),
    ("moving.webp", moving("WEBP", lossless=True), "60 x 40 rgb/wk-"),
    ("moving.png", moving("PNG"), "60 x 40 rgb/wk-"),
    ("in truth a JPEG.png", file(FLAG, "JPEG", quality=95, subsampling=0), "60 x 40 rgb/wk-"),
    # Damaged: PNG has a checksum, JPEG has none
    ("one byte wrong.png", one_byte_wrong(file(NOISE), 0.5), "{path} is a damaged image: ?*"),
    ("one byte wrong.jpg", one_byte_wrong(file(FLAG, "JPEG", subsampling=0), 0.95), "60 x 40 rgb/???"),
    ("half.png", file(NOISE)[:2000], "{path} is a damaged image: image file is truncated*"),
    ("half.jpg", file(NOISE, "JPEG")[:2000], "{path} is a damaged image: image file is truncated*"),
    # No image at all
    ("words.png", b"hello, I am an image", "{path} is not an image; expected one of PNG, JPEG, *"),
    ("empty.png", b"", "{path} is empty (0 bytes); expected an image file"),
    ("folder.png", Path.mkdir, "{path} is a folder; expected an image file"),
    ("missing.png", no_file, "no image file {path}"),
    ("file/below.png", lambda path: path.parent.touch(), "cannot read the image {path}: Not a directory"),
    ("to itself.png", lambda path: path.symlink_to(path), "cannot read the image {path}: Too many levels of *"),
    # Names
    ("long" * 99, no_file, "cannot read the image {path}: File name too long"),
    ("nul\0.png", no_file, r"cannot read the image {folder}/nul\x00.png: embedded null byte"),
    ("two\nlines.png", b"", r"{folder}/two\nlines.png is empty (0 bytes); expected an image file"),
    (os.fsdecode(b"no text \xff.png"), b"", r"{folder}/no text \udcff.png is empty (0 bytes); expected an image file"),
]


@pytest.mark.parametrize("name, content, outcome", ZOO, ids=[name for name, *_ in ZOO])
def test_what_comes_of_each_file(name, content, outcome, tmp_path):
    path = tmp_path / name
    content(path) if callable(content) else path.write_bytes(content)
    try:
        image = decode_image(path, max_pixels=LIMIT)
    except InputError as error:
        outcome_text = str(error)
        assert "\n" not in outcome_text
    else:
        outcome_text = describe(image, image.shape)
        resized = {how.kind: resize_image(image, ImageInput(resize=how)) for how in (Crop(), Pad(), Stretch())}
        assert {(image.shape, image.dtype.name) for image in resized.values()} == {((64, 64, 3), "uint8")}
        assert describe(resized["stretch"], image.shape) == outcome_text, "stretched, it shows the same squares"
    assert fnmatch.fnmatchcase(outcome_text, outcome.format(path=path, folder=tmp_path)), outcome_text


def test_a_user_who_is_not_there():
    with pytest.raises(InputError, match=r"^cannot read the image ~nobody-here/cat\.png: .*home directory"):
        decode_image("~nobody-here/cat.png", max_pixels=LIMIT)


WEIGH = """
import sys
from vlm_jax.data.images import InputError, decode_image
def most():
    return next(int(line.split()[1]) // 1000 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = most()
try:
    decode_image(sys.argv[1], max_pixels=int(sys.argv[2]))
    print("decoded")
except InputError as error:
    print(error)
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_refused_image_allocates_nothing(tmp_path):
    """In a process of its own. Its `ru_maxrss` would not do: a child inherits that of pytest, so nothing would show."""

    def weigh(side):
        path = tmp_path / f"{side}.png"
        path.write_bytes(bits(side, side))
        assert path.stat().st_size < 15_000
        command = [sys.executable, "-c", WEIGH, str(path), str(LIMIT)]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert answer.returncode == 0, answer.stderr
        outcome_text, megabytes = answer.stdout.splitlines()
        return outcome_text.replace(str(path), "it"), int(megabytes)

    outcome_text, megabytes = weigh(10_000)
    assert outcome_text.startswith("it has 10000 x 10000 pixels, over the limit of 50,000,000; ")
    assert megabytes < 20
    outcome_text, megabytes = weigh(6_000)
    assert outcome_text == "decoded" and megabytes > 100, "the scales show an image that is decoded"
