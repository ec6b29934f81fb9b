"""Your own questions and pictures: which files make up a split, and what happens to rows that cannot be used."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vlm_jax.config import Data, Files
from vlm_jax.data.checked_pictures import without_unreadable
from vlm_jax.data.jsonl import read_jsonl
from vlm_jax.data.picture_folder import PictureFolder
from vlm_jax.data.rows import BadRow, Reading, counted
from vlm_jax.data.splits import tenth
from vlm_jax.data.vqa_v2 import read_vqa_v2
from vlm_jax.errors import InputError, nearest
from vlm_jax.types import Example

SPLITS = ("train", "validation", "test")
# A split without files of its own gets this tenth of the training pictures.
TENTHS = {"validation": 0, "test": 1}
NAMED = 5  # bad rows named in a note


def open_own(data: Data, split: str) -> Sequence[Example]:
    """The examples of a split of your own files; at most `data.limit` of them.

    Whatever the split, files that are missing are named. With `train`, every split is read and what is wrong with any
    of them named, since a training should not end with that; a picture that cannot be decoded is a bad row. Files that
    have not changed are read once a process, pictures once.
    """
    names = SPLITS if split == "train" else (split,)
    readings = {name: _usable(data, name) for name in names}
    bad_rows = tuple(dict.fromkeys(row for reading in readings.values() for row in reading.bad_rows))
    if bad_rows and data.files.bad_rows == "refuse":
        raise InputError(
            f"{counted(len(bad_rows), 'bad row')}, the first {bad_rows[0]}; "
            "run experiments.inspect_data to see all, or set data.files.bad_rows skip"
        )
    for name, reading in readings.items():
        _check_not_empty(data, name, reading)
        if reading.bad_rows:
            _say_skipped(reading.bad_rows)
    return readings[split].examples


def _usable(data: Data, split: str) -> Reading:
    """At most `data.limit` examples whose pictures can be decoded."""
    reading = read_split(data, split)
    return without_unreadable(reading._replace(examples=reading.examples[: data.limit]), data)


def read_split(data: Data, split: str) -> Reading:
    """All examples of a split, and the rows that cannot be used of the files it comes from."""
    if split not in SPLITS:
        raise InputError(f"the data set {data.name} has no split {split!r}; {nearest(split, SPLITS)}")
    files = _checked(data)
    owned = {number: name for name, number in TENTHS.items() if not getattr(files, name)}
    source = "train" if split in owned.values() else split
    reading = _read(data.name, files.images, getattr(files, source), _state(files, source))
    if source != "train":
        return reading
    mine = (example for example in reading.examples if owned.get(tenth(example.image_id), "train") == split)
    return reading._replace(examples=tuple(mine))


def _check_not_empty(data: Data, split: str, reading: Reading) -> None:
    if reading.examples:
        return
    own = getattr(data.files, split)
    files = ", ".join(own or data.files.train)
    bad = f"; {counted(len(reading.bad_rows), 'bad row')}, the first {reading.bad_rows[0]}" if reading.bad_rows else ""
    tenth_of = "a tenth of the training pictures, by hash"
    remedy = "" if own else f"; it gets {tenth_of}: give more, or --data.files.{split} FILE"
    raise InputError(f"the {split} split is empty: no picture for it in {files}{remedy}{bad}")


@functools.lru_cache(maxsize=len(SPLITS))
def _read(name: str, images: str, paths: tuple[str, ...], state: tuple[tuple[int, int], ...]) -> Reading:
    """`state` makes it read again what has changed."""
    try:
        return READERS[name]([Path(path) for path in paths], PictureFolder(Path(images)))
    except OSError as error:
        raise InputError(f"cannot read {error.filename or ', '.join(paths)}: {error.strerror}") from None


def _state(files: Files, source: str) -> tuple[tuple[int, int], ...]:
    found = [Path(path).stat() for path in (files.images, *getattr(files, source))]
    return tuple((entry.st_size, entry.st_mtime_ns) for entry in found)


def _checked(data: Data) -> Files:
    """The files with `~` expanded, after a look whether all of them are there."""
    files = data.files
    if not files.images or not files.train:
        missing = [f"--data.files.{name} {value}" for name, value in (("images", "FOLDER"), ("train", "FILE"))
                   if not getattr(files, name)]  # fmt: skip
        raise InputError(f"the data set {data.name} reads your own files; give {' and '.join(missing)}")
    images = _expanded(files.images)
    found = {split: tuple(map(_expanded, getattr(files, split))) for split in SPLITS}
    try:
        if not Path(images).is_dir():
            what = "is no folder" if Path(images).exists() else "does not exist"
            raise InputError(f"data.files.images {files.images!r} {what}; give the folder of the pictures")
        for split, paths in found.items():
            for path in paths:
                _check_file(Path(path), f"data.files.{split}")
            if len(set(paths)) < len(paths):
                raise InputError(f"data.files.{split} gives a file twice: {', '.join(paths)}")
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return Files(images, bad_rows=files.bad_rows, **found)


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


@functools.cache
def _say_skipped(bad_rows: tuple[BadRow, ...]) -> None:
    """Once for the same rows: how many rows are left out, and the first of them."""
    named = "; ".join(map(str, bad_rows[:NAMED]))
    more = f"; and {len(bad_rows) - NAMED:,} more" if len(bad_rows) > NAMED else ""
    print(f"note: {counted(len(bad_rows), 'bad row')} left out: {named}{more}", file=sys.stderr)


READERS: dict[str, Callable[[Sequence[Path], PictureFolder], Reading]] = {
    "jsonl": read_jsonl,
    "vqa_v2": read_vqa_v2,
}
