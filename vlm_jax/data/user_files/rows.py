"""Rows of your own files: gathered by image where they can be used, named with a reason where they cannot."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from vlm_jax.errors import shown
from vlm_jax.types import Example, Json, StoredImage, Text

UNANSWERED = "unanswered"  # the kind of a question without answers that says no other
REMEMBERED = 2**17  # texts and lists of answers that are kept once
MANY = 10  # missing images of one folder that are one bad row
LONGEST_KIND = 100  # characters; a kind names a score

Value = TypeVar("Value", bound=Hashable)
ImageSource = Path | StoredImage | bytes
Row = dict[str, Json | tuple[str, StoredImage | bytes]]
"""A row of a table by its keys; an image is a path, or an id with its place in a file or its bytes."""


class BadRow(NamedTuple):
    """A row that cannot be used."""

    file: str
    place: int | str
    """The line, or where a file is no list of lines, the question or entry."""
    reason: str

    def __str__(self) -> str:
        if isinstance(self.place, int):
            return f"{self.file}:{self.place}: {self.reason}"
        return f"{self.file}, {self.place if self.place.isprintable() else shown(self.place)}: {self.reason}"


class Reading(NamedTuple):
    """What files gave."""

    examples: tuple[Example, ...]
    bad_rows: tuple[BadRow, ...]
    splits: tuple[str, ...] = ()
    """The split of each example, from files that say so."""
    groups: tuple[tuple[str, ...], ...] = ()
    """The groups of each example, from files with a `group` in any row: what automatic splits keep together."""
    layout: str = ""
    """What the files were read as, such as `CSV`; empty where the kind of the data set says it."""
    columns: tuple[str, ...] = ()
    """The names of the columns that were used."""


class UnusableError(Exception):
    """Why one row cannot be used; the other rows of its file can."""


class MissingImageError(UnusableError):
    """A row names an image that is not there."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder
        """Where the image should be."""


class Rows:
    """Texts gathered by image, both in the order in which they first appeared; common values are kept once.

    `id_name` is what the files call a text's id.
    """

    def __init__(self, id_name: str = "question_id") -> None:
        self.splits: dict[str, str] = {}
        """The split of each image, in files that say so."""
        self._bad: list[BadRow] = []
        self._id_name = id_name
        self._missing: dict[tuple[str, Path], list[int]] = {}
        self._images: dict[str, tuple[ImageSource, list[Text]]] = {}
        self._groups: dict[str, dict[str, None]] = {}
        self._ids: set[str] = set()
        self._known: dict[Hashable, Hashable] = {}

    @contextmanager
    def row(self, file: Path, place: int | str) -> Iterator[None]:
        """A row is read inside: `UnusableError` ends it, and makes it a bad row."""
        try:
            yield
        except UnusableError as error:
            bad_row = BadRow(str(file), place, str(error))
            if isinstance(error, MissingImageError):
                self._missing.setdefault((str(file), error.folder), []).append(len(self._bad))
            self._bad.append(bad_row)

    def add(self, image_id: str, image: ImageSource, text: Text, *, group: str | None = None) -> None:
        """Keep one text, perhaps of a group; `UnusableError` where its id is taken."""
        if text.text_id in self._ids:
            raise UnusableError(f"the {self._id_name} {shown(text.text_id)} belongs to an earlier row")
        self._ids.add(text.text_id)
        answers = tuple(self._once(answer) for answer in text.answers)
        stored = Text(text.text_id, self._once(text.text), self._once(answers), self._once(text.kind))
        self._images.setdefault(image_id, (image, []))[1].append(stored)
        if group is not None:
            self._groups.setdefault(image_id, {})[group] = None

    def reading(self) -> Reading:
        """All that was gathered."""
        images = self._images.items()
        examples = tuple(Example(image_id, image, tuple(texts)) for image_id, (image, texts) in images)
        splits = tuple(self.splits[image_id] for image_id in self._images) if self.splits else ()
        groups = tuple(tuple(self._groups.get(image_id, ())) for image_id in self._images) if self._groups else ()
        return Reading(examples, self._bad_rows(), splits, groups)

    def _bad_rows(self) -> tuple[BadRow, ...]:
        """The bad rows; those whose images are all missing from a folder are one, with their number."""
        parents = {image.parent for image, _ in self._images.values() if isinstance(image, Path)}
        used = {folder for parent in parents for folder in (parent, *parent.parents)}
        bad_rows: dict[int, BadRow] = dict(enumerate(self._bad))
        for (_, folder), (first, *others) in self._missing.items():
            if len(others) + 1 >= MANY and folder not in used:
                missing = f"all {len(others) + 1:,} images that rows name in {folder} are missing; give --data.images"
                bad_rows[first] = bad_rows[first]._replace(reason=f"{bad_rows[first].reason}; {missing}")
                for place in others:
                    del bad_rows[place]
        return tuple(bad_rows.values())

    def _once(self, value: Value) -> Value:
        if len(self._known) < REMEMBERED:
            return self._known.setdefault(value, value)
        return self._known.get(value, value)


def checked_object(value: Json, name: str = "the entry") -> dict[str, Json]:
    """A JSON object; None stands for one with a key twice, as `plain_object` makes it."""
    if not isinstance(value, dict):
        raise UnusableError(f"{name} is no object with keys that differ")
    return value


def checked_list(value: Json, name: str, *, empty: bool = False) -> list[Json]:
    """A list such as `answers`, with at least one value unless it may be `empty`."""
    if not isinstance(value, list):
        raise UnusableError(f"{name} must be a list, not {shown(value)}")
    if not value and not empty:
        raise UnusableError(f"{name} is empty; give at least one {name.removesuffix('s')}")
    return value


def checked_texts(value: Json, name: str, *, empty: bool = False) -> tuple[str, ...]:
    """The texts of a list such as `answers`."""
    values = enumerate(checked_list(value, name, empty=empty), 1)
    return tuple(checked_text(text, f"{name.removesuffix('s')} {number}") for number, text in values)


def checked_text(value: Json, name: str) -> str:
    """A text that has more than white space in it and can be written as UTF-8; `UnusableError` otherwise."""
    if not isinstance(value, str):
        raise UnusableError(f"{name} must be a text, not {shown(value)}")
    if not value.strip():
        raise UnusableError(f"{name} is empty")
    return without_surrogates(value, name)


def without_surrogates(value: str, name: str) -> str:
    """The text as it is; `UnusableError` where half of a surrogate pair stands in it, which no file can hold."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UnusableError(f"{name} holds half a surrogate pair, {shown(value[error.start])}") from None
    return value


def checked_kind(value: Json, name: str) -> str:
    """A question type: a short text on one line."""
    kind = checked_text(value, name)
    if len(kind) > LONGEST_KIND or not kind.isprintable():
        raise UnusableError(f"{name} must be at most {LONGEST_KIND} printable characters, not {shown(kind)}")
    return kind


def checked_id(value: Json, name: str) -> str:
    """An id: a text or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UnusableError(f"{name} must be a text or a whole number, not {shown(value)}")
    return checked_text(value, name)


def checked_coco_id(value: Json, name: str) -> int:
    """The number of an image of COCO."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**12:
        raise UnusableError(f"{name} must be a whole number of at most 12 digits, not {shown(value)}")
    return value
