"""Data sets that are built once: one file each."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_jax.config.data import Prepared

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# The builder's class, in the module of the data set's name.
DATASETS = {"easy_vqa": "EasyVqa", "shape_scenes": "ShapeScenes", "sort_of_clevr": "SortOfClevr"}


def open_builder(data: Prepared, directory: Path, **more: Any) -> "tfds.core.DatasetBuilder":
    """The builder of a data set with its records below `directory`, made of the settings of `data`."""
    builder = getattr(import_module(f"{__name__}.{data.kind}"), DATASETS[data.kind])
    options = {name: getattr(data, name) for name in builder.SETTINGS} | more
    return builder(**options, data_dir=str(directory), file_format="array_record")
