"""Lists of images, one name a line, as Flickr8k's splits come: `Flickr_8k.trainImages.txt`."""

import re
from collections.abc import Sequence
from pathlib import Path

from vlm_jax.data.user_files.image_folder import IMAGE_ENDINGS
from vlm_jax.data.user_files.json_files import lines
from vlm_jax.data.user_files.rows import Rows, UnusableError
from vlm_jax.errors import shown

_ENDINGS = tuple(ending.encode() for ending in IMAGE_ENDINGS)


class ImageLists:
    """The images that files list."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._places: dict[str, tuple[Path, int]] = {}
        self._unusable: list[tuple[Path, int, UnusableError]] = []
        self._used: set[str] = set()
        for path in paths:
            for number, line in lines(path):
                if isinstance(line, UnusableError):
                    self._unusable.append((path, number, line))
                else:
                    self._places.setdefault(line.strip(), (path, number))

    def __contains__(self, image: object) -> bool:
        """Whether an image is listed; then it counts as used."""
        if not isinstance(image, str) or image not in self._places:
            return False
        self._used.add(image)
        return True

    def check_used(self, rows: Rows) -> None:
        """Make bad rows of the lines without a text in any table."""
        for path, number, error in self._unusable:
            with rows.row(path, number):
                raise error
        for image, (path, number) in self._places.items():
            with rows.row(path, number):
                if image not in self._used:
                    raise UnusableError(f"no text is about the image {shown(image)}")


def is_image_list(path: Path) -> bool:
    """Whether a file has the name of an image on its first line and nothing else."""
    if path.is_dir() or path.suffix.lower() != ".txt":
        return False
    with path.open("rb") as file:
        first = re.split(rb"[\r\n]", file.read(4096).removeprefix(b"\xef\xbb\xbf"))[0]
    return first.lower().strip().endswith(_ENDINGS) and not re.search(rb"[\t,;|]", first)
