"""Pictures that a person names on a command line: files, or folders of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_jax.data.images import read_picture
from vlm_jax.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif")


def given_pictures(paths: Sequence[Path]) -> Iterator[tuple[str, bytes | Path]]:
    """Every picture with its name; of a folder, those of its files that are named as pictures are, still unread.

    `InputError` for a file that cannot be read and for a folder without pictures.
    """
    for path in paths:
        names = _names_in(path)
        if names is None:
            yield str(path), read_picture(path)
        elif names:
            yield from ((str(path / name), path.expanduser() / name) for name in names)
        else:
            raise InputError(f"{path} is a folder without a picture ({', '.join(ENDINGS)})")


def _names_in(path: Path) -> list[str] | None:
    """The picture files of a folder; None for what is no folder."""
    try:
        folder = path.expanduser()
        if not folder.is_dir():
            return None
        files = (entry.name for entry in folder.iterdir() if entry.is_file())
        return sorted(name for name in files if name.lower().endswith(ENDINGS))
    except OSError as error:
        raise InputError(f"cannot read the folder {path}: {error.strerror}") from None
    except (RuntimeError, ValueError):  # the home of nobody, a NUL: reading it says so
        return None
