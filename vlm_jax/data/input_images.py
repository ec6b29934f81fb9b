"""Images that a person names on a command line: files, or folders of them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_jax.data.images import decode_image
from vlm_jax.data.user_files.class_folders import images_below
from vlm_jax.data.user_files.image_folder import IMAGE_ENDINGS
from vlm_jax.errors import InputError


def input_images(paths: Sequence[Path], *, max_pixels: int) -> Iterator[Path]:
    """Every image file; of a folder, the files at any depth that are named as images are, by their paths.

    An image of a folder that cannot be decoded is left out, with a note that says why: the others are worth having.
    `InputError` for a folder without images; a file is looked into when it is decoded.
    """
    for path in paths:
        names = _names_in(path)
        if names is None:
            yield path
        elif names:
            yield from _decodable(path, names, max_pixels)
        else:
            raise InputError(f"{path} is a folder without an image ({', '.join(IMAGE_ENDINGS)})")


def _decodable(folder: Path, names: Sequence[str], max_pixels: int) -> Iterator[Path]:
    left_out = 0
    for name in names:
        try:
            decode_image(folder / name, max_pixels=max_pixels)
        except InputError as error:
            left_out += 1
            print(f"note: left out: {error}", file=sys.stderr)
        else:
            yield folder / name
    if left_out == len(names):
        raise InputError(f"none of the {left_out} images in {folder} can be decoded")


def _names_in(path: Path) -> list[str] | None:
    """The image files of a folder; None for what is no folder."""
    try:
        folder = path.expanduser()
        if not folder.is_dir():
            return None
        return list(images_below(folder))
    except OSError as error:
        raise InputError(f"cannot read the folder {path}: {error.strerror}") from None
    except (RuntimeError, ValueError):  # the home of nobody, a NUL: reading it says so
        return None
