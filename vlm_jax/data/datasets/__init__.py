"""Data sets that are built once: one module each, by its name, with its builder as `BUILDER`."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_jax.config.data import Prepared

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def open_builder(data: Prepared, directory: Path, **more: Any) -> "tfds.core.DatasetBuilder":
    """The builder of a data set with its records below `directory`, made of the settings of `data`."""
    builder = import_module(f"{__name__}.{data.kind}").BUILDER
    options = {name: getattr(data, name) for name in builder.SETTINGS} | more
    return builder(**options, data_dir=str(directory), file_format="array_record")
