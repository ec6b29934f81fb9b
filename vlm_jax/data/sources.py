"""Data sets by name, as sequences of undecoded examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_jax.data.preparation import prepare
from vlm_jax.data.settings import DataSet, Prepared, UserDataset
from vlm_jax.data.user_files.dataset import open_user_dataset
from vlm_jax.errors import InputError, one_of
from vlm_jax.types import Example, Text


class Examples(Sequence[Example]):
    """The first `limit` examples of a prepared split, read from disk one by one."""

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
        self._length = len(records) if limit is None else min(limit, len(records))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        position = index + self._length if index < 0 else index
        if not 0 <= position < self._length:
            raise IndexError(f"example {index} of {self._length}")
        return _example(self._records[position], self._texts)


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


def open_split(data: DataSet, split: str) -> Sequence[Example]:
    """The examples of `split`, at most `limit_of` it.

    They are your own files', or a data set's that is prepared under `data.directory` on first use.
    """
    if isinstance(data, UserDataset):
        return open_user_dataset(data, split)
    return open_prepared(data, split)


def open_prepared(data: Prepared, split: str) -> Examples:
    """The examples of a split that is prepared under `data.directory` on first use."""
    import tensorflow_datasets as tfds

    builder = prepare(data)
    if split not in builder.info.splits:
        raise InputError(f"the data set {data.kind} has no split {split!r}; {one_of(builder.info.splits)}")
    records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    files = [Path(file) for file in builder.info.splits[split].filepaths]
    return Examples(records, data.limit_of(split), texts=data.texts, files=files)
