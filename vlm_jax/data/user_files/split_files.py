"""The files that the settings name: which a data set takes, and whether they are there."""

from pathlib import Path
from typing import NamedTuple

from vlm_jax.config.data import EmojiImages, UserDataset
from vlm_jax.data.user_files import emoji
from vlm_jax.errors import InputError, nearest

SPLITS = ("train", "validation", "test")
# Data sets whose one file says which split an image is in.
DIVIDED: dict[str, tuple[str, ...]] = {"karpathy": SPLITS, "emoji": emoji.SPLITS}


def splits_of(name: str) -> tuple[str, ...]:
    """The splits of a data set of your own files, `train` first."""
    return DIVIDED.get(name, SPLITS)


class Files(NamedTuple):
    """The folder and the files of a data set, `~` expanded."""

    images: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def checked_files(data: UserDataset) -> Files:
    """The files with `~` expanded, after a look whether all of them are there."""
    images = _expanded(data.images)
    split_paths = {split: tuple(map(_expanded, getattr(data, split, ()))) for split in SPLITS}
    if isinstance(data, EmojiImages):
        split_paths["train"] = (str(Path(images) / emoji.CAPTIONS),)
    try:
        if not Path(images).is_dir():
            what = "is no folder" if Path(images).exists() else "does not exist"
            raise InputError(f"data.images {str(data.images)!r} {what}; give the folder of the images")
        for split, paths in split_paths.items():
            for path in paths:
                _check_file(Path(path), "data.images" if isinstance(data, EmojiImages) else f"data.{split}")
            if len(set(paths)) < len(paths):
                raise InputError(f"data.{split} gives a file twice: {', '.join(paths)}")
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return Files(images, **split_paths)


def _check_file(path: Path, setting: str) -> None:
    if path.is_file():
        return
    if path.exists():
        raise InputError(f"{setting}: {path} is no regular file")
    if not path.parent.is_dir():
        raise InputError(f"{setting}: no file {str(path)!r}, and no folder {str(path.parent)!r}")
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix in (".json", ".jsonl")]
    hint = nearest(path.name, names[:1000]) if names else "its folder holds no .json or .jsonl file"
    raise InputError(f"{setting}: no file {str(path)!r}; {hint}")


def _expanded(path: Path) -> str:
    try:
        return str(path.expanduser())
    except RuntimeError:  # the home of nobody
        return str(path)
