"""Examples of prepared records, read from disk one by one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_jax.types import Example, Text

KEPT_BYTES = 2**24
"""Examples of smaller files are read once: to parse a record takes 0.1 ms, and a run looks at each many times."""


class Examples(Sequence[Example]):
    """The first `limit` examples of a prepared split, read from disk one by one; those of small files are kept."""

    def __init__(
        self,
        records: Sequence[Mapping[str, object]],
        limit: int | None = None,
        *,
        texts: str = "questions",
        files: Sequence[Path] = (),
    ) -> None:
        self._records, self._texts = records, texts
        self.files = tuple(files)
        """Where the records are."""
        self.part = ""
        """Which of the records in the files these are; empty where they are all of a split."""
        self._length = len(records) if limit is None else min(limit, len(records))
        is_small = bool(files) and sum(file.stat().st_size for file in files) <= KEPT_BYTES
        self._kept: dict[int, Example] | None = {} if is_small else None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        position = index + self._length if index < 0 else index
        if not 0 <= position < self._length:
            raise IndexError(f"example {index} of {self._length}")
        if self._kept is None:
            return self._example(self._records[position], position)
        if position not in self._kept:
            self._kept[position] = self._example(self._records[position], position)
        return self._kept[position]

    @property
    def depends_on(self) -> tuple[str, ...]:
        """What the examples depend on beside their files."""
        return (self._texts, *([self.part] if self.part else []))

    def _example(self, record: Mapping[str, object], position: int) -> Example:
        return _example(record, self._texts)


def _example(record: Mapping[str, object], texts: str) -> Example:
    image_id = _text(record["image_id"])
    questions = (
        _questions(record["questions"])
        if texts == "questions"
        else tuple(
            Text(f"{image_id}#{n}", _text(caption), (), "caption") for n, caption in enumerate(record["captions"], 1)
        )
    )
    scene = _text(record["scene"]) if "scene" in record else None
    return Example(image_id, record["image"], questions[:1] if texts == "first_caption" else questions, scene)


def _questions(fields: Mapping[str, Sequence[bytes | str]]) -> tuple[Text, ...]:
    rows = zip(fields["question_id"], fields["text"], fields["answers"], fields["kind"], strict=True)
    return tuple(Text(_text(i), _text(text), (_text(answer),), _text(kind)) for i, text, answer, kind in rows)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
