"""Examples of a data set that TensorFlow Datasets prepared as array_record: read by record, without TensorFlow."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlm_jax.data.datasets.tfds import TfdsSet
from vlm_jax.data.records import Examples
from vlm_jax.data.user_files.columns import Columns, renamed_columns
from vlm_jax.data.user_files.rows import Row, UnusableError, checked_texts
from vlm_jax.data.user_files.table_reader import caption_texts, question_text
from vlm_jax.errors import InputError, one_of
from vlm_jax.text_lines import first_line
from vlm_jax.types import Example, Json, Text

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}


class TfdsExamples(Examples):
    """The first `limit` examples of a split; an image's id is SPLIT/NUMBER, from 0."""

    def __init__(self, data: TfdsSet, builder: "tfds.core.DatasetBuilder", split: str) -> None:
        import tensorflow_datasets as tfds

        self._split, part = split, _part(set(builder.info.splits), split)
        self._features = dict(builder.info.features)
        self._question = getattr(data, "question", "")
        self._columns = Columns("questions" if data.texts == "questions" else "captions", renamed_columns(data.columns))
        self._image = self._image_feature()
        records = builder.as_data_source(split=part, decoders={self._image: tfds.decode.SkipDecoding()})
        files = [Path(file) for file in builder.info.splits[part.partition("[")[0]].filepaths]
        super().__init__(records, data.limit_of(split), texts=data.texts, files=files)
        self.part = part
        if len(self):
            _ = self[0]  # a feature that is missing is missing from the first record on

    @property
    def depends_on(self) -> tuple[str, ...]:
        """What the examples depend on beside their files."""
        renamed = (f"{column}={name}" for column, name in self._columns.renamed)
        return (*super().depends_on, self._question, *renamed)

    def _image_feature(self) -> str:
        """The feature that an alias names, or the only one that is an image."""
        names = [name for name, feature in self._features.items() if type(feature).__name__ == "Image"]
        named = [name for name in self._columns.names("image") if name in names]
        if not named and len(names) != 1:
            has = ", ".join(self._features)
            raise InputError(f"no feature is the image; there are {has}; give --data.columns image=NAME")
        return (named or names)[0]

    def _example(self, record: Mapping[str, object], position: int) -> Example:
        image_id = f"{self._split}/{position}"
        try:
            texts = tuple(self._texts_of(record, image_id))
        except UnusableError as error:
            raise InputError(f"{image_id} cannot be used: {error}; it has {', '.join(record)}") from None
        return Example(image_id, record[self._image], texts[:1] if self._texts == "first_caption" else texts)

    def _texts_of(self, record: Mapping[str, object], image_id: str) -> Iterator[Text]:
        fields = {name: _plain(self._features[name], value) for name, value in record.items() if name != self._image}
        for number, row in enumerate(_rows(fields, self._columns), 1):
            row[self._columns.names("image")[0]] = image_id
            if self._columns.texts == "captions":
                yield from caption_texts(self._columns.fields(row), f"{image_id}#{number}")
                continue
            row.setdefault(self._columns.names("question")[0], self._question)
            fields = self._columns.fields(row)
            yield question_text(fields, checked_texts(fields["answers"], "answers"), f"{image_id}#{number}")


def open_tfds(data: TfdsSet, split: str) -> TfdsExamples:
    """The examples of a split; validation and test, where the data set has none, are the last tenths of training."""
    builder = _builder(data.dataset, data.folder.expanduser())
    try:
        return TfdsExamples(data, builder, split)
    except InputError:
        raise
    except Exception as error:  # TFDS answers damaged files, and those that are no array_record, with several ones
        why = first_line(error)
        raise InputError(f"{builder.name} cannot be read by record: {why}; prepare it as array_record") from None


def _builder(name: str, folder: Path) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    prepared = Path(name).expanduser()
    try:
        if (prepared / "features.json").is_file():
            return tfds.builder_from_directory(prepared)
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=str(folder))
    except Exception as error:  # TFDS answers a name that it does not know with several exceptions
        raise InputError(f"no data set {name!r} that TFDS prepared in {folder}: {first_line(error)}") from None


def _part(splits: set[str], split: str) -> str:
    """What TFDS calls a split, or which part of the training split stands for it."""
    names = {name: next((alias for alias in aliases if alias in splits), None) for name, aliases in SPLIT_NAMES.items()}
    if split not in names or names["train"] is None:
        raise InputError(f"the data set has no split {split!r}; {one_of(sorted(splits))}")
    if names[split] is not None and split != "train":
        return names[split]
    taken = [name for name in ("validation", "test") if names[name] is None]
    ends = [100 - 10 * (len(taken) - place) for place in range(len(taken) + 1)]
    first, last = (0, ends[0]) if split == "train" else ends[taken.index(split) :][:2]
    return f"{names['train']}[{first}%:{last}%]" if taken else names["train"]


def _plain(feature: "tfds.features.FeatureConnector", value: object) -> Json:
    """A value as a row of a table has it: texts, whole numbers, lists of them, and lists by name; None for others."""
    kind = type(feature).__name__
    if kind == "ClassLabel":
        return feature.int2str(int(value))
    if kind == "FeaturesDict":
        return {name: _plain(feature[name], inner) for name, inner in value.items()}
    if kind == "Sequence":
        if isinstance(value, Mapping):
            return {name: [_plain(feature.feature[name], entry) for entry in inner] for name, inner in value.items()}
        return [_plain(feature.feature, entry) for entry in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return int(value) if np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.integer) else None


def _rows(fields: Mapping[str, Json], columns: Columns) -> Sequence[Row]:
    """A row, or as many as a feature has questions."""
    row = {name: value for name, value in fields.items() if value is not None and not isinstance(value, dict)}
    row |= {name: [row[name]] for name in columns.lists if isinstance(row.get(name), str)}
    (question, *_), captions = columns.names("question"), columns.names("captions")
    for name, inner in fields.items():
        if not isinstance(inner, dict):
            continue
        if question in inner:
            count = len(inner[question])
            return [row | {key: values[number] for key, values in inner.items()} for number in range(count)]
        if (texts := next((inner[alias] for alias in captions if alias in inner), None)) is not None:
            row[name if name in captions else captions[0]] = texts
    return [row]
