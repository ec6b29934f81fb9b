"""Every data set, by the module that has its settings and reads it."""

from importlib import import_module
from typing import Union

from vlm_jax.data.settings import Prepared
from vlm_jax.settings.help import summary

DATA_SETS = (
    "datasets.easy_vqa",
    "datasets.sort_of_clevr",
    "datasets.shape_scenes",
    "user_files.table",
    "user_files.vqa_v2",
    "user_files.coco_captions",
    "user_files.karpathy",
    "user_files.emoji",
    "datasets.tfds",
)
_SETTINGS = [import_module(f"vlm_jax.data.{name}").SETTINGS for name in DATA_SETS]

# The settings that a task can choose from, by what it reads: `CHOICE` beside a union makes it a choice.
QuestionSet = Union[tuple(settings["questions"] for settings in _SETTINGS if "questions" in settings)]  # noqa: UP007
CaptionSet = Union[tuple(settings["captions"] for settings in _SETTINGS if "captions" in settings)]  # noqa: UP007
ImageSet = Union[tuple(settings["images"] for settings in _SETTINGS if "images" in settings)]  # noqa: UP007


def summaries() -> dict[str, str]:
    """The first line of each data set's documentation, by its `kind`."""
    groups = [next(iter(settings.values())) for settings in _SETTINGS]
    return {group.model_fields["kind"].default: summary(group) for group in groups}


def prepared_names() -> list[str]:
    """Data sets that are prepared below `data.directory`, by their directories there."""
    groups = [next(iter(settings.values())) for settings in _SETTINGS]
    return [group.model_fields["kind"].default for group in groups if issubclass(group, Prepared)]
