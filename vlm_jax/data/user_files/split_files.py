"""The files that the settings name, and whether they are there."""

from pathlib import Path
from typing import NamedTuple

from vlm_jax.data.settings import SPLITS, UserDataset
from vlm_jax.errors import InputError, nearest


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
    try:
        if not Path(images).is_dir():
            what = "is no folder" if Path(images).exists() else "does not exist"
            raise InputError(f"data.images {str(data.images)!r} {what}; give the folder of the images")
        for split, paths in split_paths.items():
            setting = f"data.{split}" if split in type(data).model_fields else "data.images"
            for path in paths:
                _check_file(Path(path), setting)
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
