"""Rows of your own files: gathered by image where they can be used, named with a reason where they cannot."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from vlm_jax.errors import shown
from vlm_jax.types import Example, Text

LONGEST_KIND = 100  # characters; a kind names a score


class BadRow(NamedTuple):
    """A row that cannot be used."""

    file: str
    place: int | str
    """The line, or where a file is no list of lines, the question or entry."""
    reason: str

    def __str__(self) -> str:
        separator = ":" if isinstance(self.place, int) else ", "
        return f"{self.file}{separator}{self.place}: {self.reason}"


class Reading(NamedTuple):
    """What files gave."""

    examples: tuple[Example, ...]
    bad_rows: tuple[BadRow, ...]
    splits: tuple[str, ...] = ()
    """The split of each example, from files that say so."""
    groups: tuple[tuple[str, ...], ...] = ()
    """The groups of each example, from files with a `group` in any row: what automatic splits keep together."""


class UnusableError(Exception):
    """Why one row cannot be used; the other rows of its file can."""


class Rows:
    """Texts gathered by image, both in the order in which they first appeared; equal values are kept once.

    `id_name` is what the files call a text's id.
    """

    def __init__(self, id_name: str = "question_id") -> None:
        self.bad: list[BadRow] = []
        self._id_name = id_name
        self._images: dict[str, tuple[Path, list[Text]]] = {}
        self._groups: dict[str, dict[str, None]] = {}
        self._ids: set[str] = set()
        self._known: dict[Any, Any] = {}

    def add(self, image_id: str, image: Path, text: Text, *, group: str | None = None) -> None:
        """Keep one text, perhaps of a group; `UnusableError` where its id is taken."""
        if text.text_id in self._ids:
            raise UnusableError(f"the {self._id_name} {shown(text.text_id)} belongs to an earlier row")
        self._ids.add(text.text_id)
        answers = tuple(self._once(answer) for answer in text.answers)
        stored = Text(text.text_id, self._once(text.text), self._once(answers), self._once(text.kind))
        self._images.setdefault(image_id, (image, []))[1].append(stored)
        if group is not None:
            self._groups.setdefault(image_id, {})[group] = None

    def refuse(self, file: Path, place: int | str, reason: object) -> None:
        """Remember a row that cannot be used."""
        self.bad.append(BadRow(str(file), place, str(reason)))

    def reading(self) -> Reading:
        """All that was gathered."""
        images = self._images.items()
        examples = tuple(Example(image_id, image, tuple(texts)) for image_id, (image, texts) in images)
        groups = tuple(tuple(self._groups.get(image_id, ())) for image_id in self._images) if self._groups else ()
        return Reading(examples, tuple(self.bad), groups=groups)

    def _once(self, value: Any) -> Any:
        return self._known.setdefault(value, value)


def checked_text(value: object, name: str) -> str:
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


def checked_kind(value: object, name: str) -> str:
    """A question type: a short text on one line."""
    kind = checked_text(value, name)
    if len(kind) > LONGEST_KIND or not kind.isprintable():
        raise UnusableError(f"{name} must be at most {LONGEST_KIND} printable characters, not {shown(kind)}")
    return kind


def checked_id(value: object, name: str) -> str:
    """An id: a text or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UnusableError(f"{name} must be a text or a whole number, not {shown(value)}")
    return checked_text(value, name)


def unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; `UnusableError` where a key stands in it twice."""
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise UnusableError(f"the key {shown(key)} stands in it twice")
        unique[key] = value
    return unique


def plain_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    """A JSON object; None where a key stands in it twice, so that this spoils one entry of a file and not the file."""
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None
