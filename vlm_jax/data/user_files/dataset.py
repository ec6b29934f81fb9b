"""Your own texts and images: which files make up a split, and what happens to rows that cannot be used."""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_jax.data.settings import SPLITS, Reader, UserDataset
from vlm_jax.data.splits import HELD_OUT, divide
from vlm_jax.data.user_files.image_folder import ImageFolder
from vlm_jax.data.user_files.image_validation import without_unreadable
from vlm_jax.data.user_files.rows import BadRow, Reading
from vlm_jax.data.user_files.table_formats import ENDINGS
from vlm_jax.errors import InputError, counted, nearest, one_of, shown
from vlm_jax.invocation import command_name
from vlm_jax.types import Example

NAMED = 5  # bad rows named in a note
LEAST = 10  # images that are divided; a tenth of fewer is less than one image
FEW = 30  # images; scores on a tenth of fewer say little


class Files(NamedTuple):
    """The folder and the files of a data set, `~` expanded."""

    images: str | None
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def image_folder(self, split: str) -> str:
        """The folder of a split's images: without one of its own, that which its files lie in."""
        paths = [Path(path).absolute() for path in getattr(self, split)]
        folders = [str(path if path.is_dir() else path.parent) for path in paths]
        return self.images or os.path.commonpath(folders)


def open_user_dataset(data: UserDataset, split: str) -> Sequence[Example]:
    """The examples of a split of your own files; at most `limit_of` it.

    Whatever the split, files that are missing are named. With `train`, every split is read and what is wrong with any
    of them named, since a training should not end with that; an image that cannot be decoded is a bad row. Files that
    have not changed are read once a process, images once.
    """
    readings = {}
    for name in SPLITS if split == "train" else (split,):
        reading = read_split(data, name)
        limited = reading._replace(examples=reading.examples[: data.limit_of(name)], groups=())
        readings[name] = without_unreadable(limited, data)
    bad_rows = tuple(dict.fromkeys(row for reading in readings.values() for row in reading.bad_rows))
    if bad_rows and data.bad_rows == "refuse" and any(reading.examples for reading in readings.values()):
        raise InputError(
            f"{counted(len(bad_rows), 'bad row')}, the first {bad_rows[0]}; "
            f"run {command_name('inspect_data')} to see all, or set data.bad_rows skip"
        )
    for name, reading in readings.items():
        _check_not_empty(data, name, reading)
        if reading.bad_rows:
            _warn_skipped(reading.bad_rows)
    return readings[split].examples


def check_enough_images(data: UserDataset) -> None:
    """`InputError` where fewer than `LEAST` images are divided into splits: a training learns nothing from so few.

    A `limit` that somebody gave is no mistake: it does not count here.
    """
    taken = _held_out(data, _checked_files(data))
    images = sum(len(read_split(data, name).examples) for name in ("train", *taken))
    if taken and images < LEAST:
        raise InputError(f"{counted(images, 'image')} in {', '.join(map(str, data.train))}; {_shared(taken, LEAST)}")


def read_split(data: UserDataset, split: str) -> Reading:
    """All examples of a split, and the rows that cannot be used of the files it comes from.

    With `first_caption` nothing else is learned of an image; what other splits have is what captions are scored by,
    and stays whole.
    """
    if split not in data.splits:
        raise InputError(f"the data set {data.kind} has no split {split!r}; {one_of(data.splits)}")
    reading = _of_split(data, _checked_files(data), split)
    if data.texts != "first_caption" or split != "train":
        return reading
    return reading._replace(examples=tuple(example._replace(texts=example.texts[:1]) for example in reading.examples))


def _checked_files(data: UserDataset) -> Files:
    """The files with `~` expanded, after a look whether all of them are there."""
    images = None if data.images is None else _expanded(data.images)
    split_paths = {split: [Path(_expanded(path)) for path in getattr(data, split, ())] for split in SPLITS}
    try:
        if images is not None and not Path(images).is_dir():
            what = "is no folder" if Path(images).exists() else "does not exist"
            raise InputError(f"data.images {str(data.images)!r} {what}; give the folder of the images")
        for split, paths in split_paths.items():
            setting = f"data.{split}" if split in type(data).model_fields else "data.images"
            for path in paths:
                _check_file(path, setting, folders=data.takes_folders)
            if len(set(paths)) < len(paths):
                raise InputError(f"data.{split} gives a file twice: {', '.join(map(str, paths))}")
        files = data.files_of(split_paths)
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    return Files(images, **{split: tuple(map(str, paths)) for split, paths in files.items()})


def _check_file(path: Path, setting: str, *, folders: bool) -> None:
    if path.is_file() or (folders and path.is_dir()):
        return
    if path.exists():
        raise InputError(f"{setting}: {path} is no regular file")
    if not path.parent.is_dir():
        raise InputError(f"{setting}: no file {str(path)!r}, and no folder {str(path.parent)!r}")
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in ENDINGS]
    hint = nearest(path.name, names[:1000]) if names else f"its folder holds no {', '.join(ENDINGS)} file"
    raise InputError(f"{setting}: no file {str(path)!r}; {hint}")


def _expanded(path: Path) -> str:
    try:
        return str(path.expanduser())
    except RuntimeError:  # the home of nobody
        return str(path)


def _of_split(data: UserDataset, files: Files, split: str) -> Reading:
    """A split as its files say, or in part by hash."""
    if data.divided:
        full_reading = _read_files(data, files, "train")
        divided = zip(full_reading.examples, full_reading.splits, strict=True)
        return Reading(tuple(example for example, its in divided if its == split), full_reading.bad_rows)
    taken = _held_out(data, files)
    source = "train" if split in taken else split
    reading = _read_files(data, files, source)
    if source != "train" or not taken:
        return reading
    splits = divide([example.image_id for example in reading.examples], reading.groups)
    its = [name if name in taken else "train" for name in splits]
    counts = tuple((name, its.count(name)) for name in ("train", *taken))
    if 0 < len(its) < FEW:
        _warn_few(files.train, counts)
    mine = [place for place, name in enumerate(its) if name == split]
    groups = tuple(reading.groups[place] for place in mine) if reading.groups else ()
    return reading._replace(examples=tuple(reading.examples[place] for place in mine), groups=groups)


def _check_not_empty(data: UserDataset, split: str, reading: Reading) -> None:
    if reading.examples:
        return
    files = ", ".join(map(str, getattr(data, split, ()) or data.train))
    taken = _held_out(data, _checked_files(data))
    remedy = ""
    if taken and (split == "train" or split in taken):
        remedy = f"; {_shared(taken, len(taken) + 1)}"
    if bad_rows := reading.bad_rows:
        count = counted(len(bad_rows), "bad row")
        raise InputError(f"{bad_rows[0]}; that is 1 of {count}, and the {split} split is empty: {files}{remedy}")
    raise InputError(f"the {split} split is empty: no image for it in {files}{remedy}")


def _held_out(data: UserDataset, files: Files) -> list[str]:
    """The splits that take their images from the training images."""
    return [] if data.divided else [name for name in HELD_OUT if not getattr(files, name)]


def _shared(taken: Sequence[str], least: int) -> str:
    """What to do where splits have too few images of data.train to share."""
    shares = " and ".join(("train", *taken))
    return (
        f"{shares} share the images of data.train: give at least {least} images (or groups of images), "
        f"or --data.{taken[0]} FILE"
    )


def _read_files(data: UserDataset, files: Files, source: str) -> Reading:
    """What the files of a split hold; what they were read as is printed once."""
    paths = getattr(files, source)
    reading = _read(data.reader_of(source), files.image_folder(source), paths, _state(files, source))
    text = "question" if data.texts == "questions" else "caption"
    counts = len(reading.examples), sum(len(example.texts) for example in reading.examples)
    _report_reading(paths, reading.layout or data.kind, reading.columns, counts, text)
    return reading


@functools.lru_cache(maxsize=len(SPLITS))
def _read(reader: Reader, images: str, paths: tuple[str, ...], state: tuple[tuple[int, int], ...]) -> Reading:
    """`state` makes it read again what has changed."""
    try:
        return reader([Path(path) for path in paths], ImageFolder(Path(images)))
    except OSError as error:
        raise InputError(f"cannot read {error.filename or ', '.join(paths)}: {error.strerror}") from None


def _state(files: Files, source: str) -> tuple[tuple[int, int], ...]:
    paths = [Path(path) for path in getattr(files, source)]
    below = [place for path in paths if path.is_dir() for place, _, _ in os.walk(path)]
    entries = [Path(path).stat() for path in (files.image_folder(source), *paths, *below)]
    return tuple((entry.st_size, entry.st_mtime_ns) for entry in entries)


@functools.cache
def _report_reading(
    paths: tuple[str, ...], layout: str, columns: tuple[str, ...], counts: tuple[int, int], text: str
) -> None:
    """Once for the same files: what they were read as, and how much they hold."""
    files = paths[0] if len(paths) == 1 else counted(len(paths), "file")
    named = f"; columns {', '.join(map(_printable, columns))}" if columns else ""
    images, texts = counted(counts[0], "image"), counted(counts[1], text)
    print(f"read {files} as {layout}: {images}, {texts}{named}", file=sys.stderr)


def _printable(name: str) -> str:
    return name if name.isprintable() else shown(name)


@functools.cache
def _warn_skipped(bad_rows: tuple[BadRow, ...]) -> None:
    """Once for the same rows: how many rows are left out, and the first of them."""
    named = "; ".join(map(str, bad_rows[:NAMED]))
    more = f"; and {len(bad_rows) - NAMED:,} more" if len(bad_rows) > NAMED else ""
    print(f"note: {counted(len(bad_rows), 'bad row')} left out: {named}{more}", file=sys.stderr)


@functools.cache
def _warn_few(files: tuple[str, ...], counts: tuple[tuple[str, int], ...]) -> None:
    """Once for the same files: how few images the splits have."""
    shares = ", ".join(f"{name} {count}" for name, count in counts)
    print(
        f"note: {', '.join(files)}: {counted(sum(count for _, count in counts), 'image')} divided into {shares}; "
        "scores on so few images say little: give more, or files of their own (data.validation, data.test)",
        file=sys.stderr,
    )
