"""Data sets by name, as sequences of undecoded examples."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_jax.config import Data
from vlm_jax.data.own_files import READERS, open_own
from vlm_jax.data.preparation import prepare
from vlm_jax.errors import InputError, nearest
from vlm_jax.types import Example, Question

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


class Examples(Sequence[Example]):
    """The first `limit` examples of a prepared split, read from disk when asked for."""

    def __init__(self, records: Sequence[dict[str, Any]], limit: int | None = None):
        self._records = records
        self._length = len(records) if limit is None else min(limit, len(records))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        position = index + self._length if index < 0 else index
        if not 0 <= position < self._length:
            raise IndexError(f"example {index} of {self._length}")
        return _example(self._records[position])


def _example(record: dict[str, Any]) -> Example:
    fields = record["questions"]
    rows = zip(fields["question_id"], fields["text"], fields["answers"], fields["kind"], strict=True)
    questions = tuple(Question(_text(i), _text(text), _texts(answers), _text(kind)) for i, text, answers, kind in rows)
    return Example(_text(record["image_id"]), record["image"], questions)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(value: Any) -> tuple[str, ...]:
    return (_text(value),) if isinstance(value, bytes | str) else tuple(_text(item) for item in value)


def open_split(data: Data, split: str) -> Sequence[Example]:
    """The examples of `split`, at most `data.limit` of them.

    They are your own files' (`jsonl`, `vqa_v2`), or a data set's that is prepared under `data.directory` on first use.
    """
    if data.name in READERS:
        return open_own(data, split)
    if data.name not in BUILDERS:
        raise InputError(f"no data set {data.name!r}; {nearest(data.name, BUILDERS | READERS)}")
    import tensorflow_datasets as tfds

    builder = prepare(partial(BUILDERS[data.name], data), Path(data.directory).expanduser())
    if split not in builder.info.splits:
        raise InputError(f"the data set {data.name} has no split {split!r}; {nearest(split, builder.info.splits)}")
    records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return Examples(records, data.limit)


def _easy_vqa(data: Data, directory: Path) -> "tfds.core.DatasetBuilder":
    from vlm_jax.data.builders.easy_vqa import EasyVqa

    return EasyVqa(data_dir=str(directory), file_format="array_record")


def _sort_of_clevr(data: Data, directory: Path) -> "tfds.core.DatasetBuilder":
    from vlm_jax.data.builders.sort_of_clevr import SortOfClevr

    return SortOfClevr(seed=data.drawing_seed, data_dir=str(directory), file_format="array_record")


BUILDERS: dict[str, Callable[[Data, Path], "tfds.core.DatasetBuilder"]] = {
    "easy_vqa": _easy_vqa,
    "sort_of_clevr": _sort_of_clevr,
}
