"""Data sets by name, as sequences of undecoded examples."""

from collections.abc import Sequence
from pathlib import Path

from vlm_jax.data.datasets.tfds import TfdsSet
from vlm_jax.data.preparation import prepare
from vlm_jax.data.records import Examples
from vlm_jax.data.settings import DataSet, Prepared, UserDataset
from vlm_jax.data.tfds_examples import open_tfds
from vlm_jax.data.user_files.dataset import open_user_dataset
from vlm_jax.errors import InputError, one_of
from vlm_jax.types import Example


def open_split(data: DataSet, split: str) -> Sequence[Example]:
    """The examples of `split`, at most `limit_of` it.

    They are your own files', those that TFDS prepared, or a data set's that is prepared under `data.directory` on
    first use.
    """
    if isinstance(data, TfdsSet):
        return open_tfds(data, split)
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
