"""The files that the settings name: which a data set takes, and whether they are there."""

from pathlib import Path

from vlm_jax.config import Data, Files
from vlm_jax.data import emoji
from vlm_jax.errors import InputError, nearest

SPLITS = ("train", "validation", "test")
# Data sets whose one file says which split an image is in.
DIVIDED: dict[str, tuple[str, ...]] = {"karpathy": SPLITS, "emoji": emoji.SPLITS}


def splits_of(name: str) -> tuple[str, ...]:
    """The splits of a data set of your own files, `train` first."""
    return DIVIDED.get(name, SPLITS)


def checked_files(data: Data) -> Files:
    """The files with `~` expanded, after a look whether all of them are there."""
    files = data.files
    needed = {"images": "FOLDER"} if data.name == "emoji" else {"images": "FOLDER", "train": "FILE"}
    if missing := [f"--data.files.{name} {value}" for name, value in needed.items() if not getattr(files, name)]:
        raise InputError(f"the data set {data.name} reads your own files; give {' and '.join(missing)}")
    if data.name in DIVIDED:
        _check_divided(data.name, files)
    images = _expanded(files.images)
    split_paths = {split: tuple(map(_expanded, getattr(files, split))) for split in SPLITS}
    if data.name == "emoji":
        split_paths["train"] = (str(Path(images) / emoji.CAPTIONS),)
    try:
        if not Path(images).is_dir():
            what = "is no folder" if Path(images).exists() else "does not exist"
            raise InputError(f"data.files.images {files.images!r} {what}; give the folder of the images")
        for split, paths in split_paths.items():
            for path in paths:
                _check_file(Path(path), "data.files.images" if data.name == "emoji" else f"data.files.{split}")
            if len(set(paths)) < len(paths):
                raise InputError(f"data.files.{split} gives a file twice: {', '.join(paths)}")
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return Files(images, bad_rows=files.bad_rows, **split_paths)


def _check_divided(name: str, files: Files) -> None:
    """No more files than a data set has that says itself which split an image is in."""
    for split in SPLITS:
        paths = getattr(files, split)
        if paths and (split != "train" or name == "emoji"):
            place = f"{emoji.CAPTIONS} in data.files.images" if name == "emoji" else "the file of data.files.train"
            raise InputError(
                f"data.files.{split} is given, but {place} holds every split of the data set {name}; leave it out"
            )
    if len(files.train) > 1:
        raise InputError(f"data.files.train has {len(files.train)} files; the data set {name} is one file")


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


def _expanded(path: str) -> str:
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # the home of nobody
        return path
