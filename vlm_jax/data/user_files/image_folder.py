"""A folder of images that paths from untrusted files cannot leave."""

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from vlm_jax.data.user_files.rows import MissingImageError, UnusableError
from vlm_jax.errors import shown

IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".heic",
    ".heif",
)  # fmt: skip
UNREADABLE_ENDINGS = (".svg", ".jp2", ".jxl", ".psd", ".ico", ".raw", ".dng", ".cr2", ".nef", ".arw")
"""Images as well, of formats that nothing here decodes: named instead of left out."""


class ImageFolder:
    """Finds image files below one folder.

    A folder is listed once, so that an image in it costs no call to the file system; only symbolic links are
    followed and checked, each by itself.
    """

    def __init__(self, folder: Path):
        # Absolute: a path in a file may begin with "~", which must never come first.
        self._root = folder.absolute()
        self._real_root = self._root.resolve()
        self._listings: dict[str, dict[str, bool]] = {}

    def find(self, path: str, *, prefix: str = "") -> tuple[str, Path] | None:
        """The normalised relative path and the file; None where there is none. The path is relative to `prefix`.

        Raises `UnusableError` for a path that leaves the folder and for what is no regular file.
        """
        if "\0" in path:
            raise UnusableError(f"the image path {shown(path)} holds a NUL")
        if posixpath.isabs(path):
            raise UnusableError(f"the image path {shown(path)} is absolute; it must be relative to the folder")
        if ".." in path.split("/"):
            raise UnusableError(f"the image path {shown(path)} holds '..'; it may not leave the folder")
        normal = posixpath.normpath(posixpath.join(prefix, path))
        folder, name = posixpath.split(normal)
        try:
            plain = self._listing(folder).get(name) if normal != "." else False
            if plain is None:
                return None
            file = self._root / normal
            if not plain and not self._real(file, path).is_file():
                raise UnusableError(f"{shown(path)} is no regular file")
        except OSError as error:
            raise UnusableError(f"cannot read {shown(path)}: {error.strerror}") from None
        return normal, file

    def find_first(self, paths: Iterable[str]) -> tuple[str, Path] | None:
        """The first of several paths that is there."""
        return next((image_file for path in paths if (image_file := self.find(path))), None)

    def existing(self, path: str, *, prefix: str = "") -> tuple[str, Path]:
        """As `find` below `prefix`; `UnusableError` where there is none."""
        if (image_file := self.find(path, prefix=prefix)) is None:
            raise self.missing(path, prefix=prefix)
        return image_file

    def missing(self, path: str, *, prefix: str = "") -> MissingImageError:
        """The error that names an image which is not there."""
        return MissingImageError(f"no image {shown(path)}", (self._root / prefix / path).parent)

    def relative(self, folder: Path) -> str:
        """The path of a folder below this one, as `prefix` takes it."""
        return folder.absolute().relative_to(self._root).as_posix()

    def _listing(self, folder: str) -> dict[str, bool]:
        """Names in a folder: True for a regular file, False for what has to be looked at; empty without a folder."""
        if folder not in self._listings:
            try:
                place = self._real(self._root / folder, folder)
                with os.scandir(place) as entries:
                    listing = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                listing = {}
            self._listings[folder] = listing
        return self._listings[folder]

    def _real(self, place: Path, path: str) -> Path:
        """Where a path leads when every link is followed; `UnusableError` where that is outside."""
        try:
            real = place.resolve(strict=True)
        except RuntimeError:  # before Python 3.13, links in a circle
            raise UnusableError(f"{shown(path)} is a link that leads nowhere") from None
        except OSError as error:
            if place.is_symlink():
                raise UnusableError(f"{shown(path)} is a link that leads nowhere: {error.strerror}") from None
            raise
        if not real.is_relative_to(self._real_root):
            raise UnusableError(f"{shown(path)} leads outside the folder of images")
        return real
