"""What a run reads in place of computing it again: its images from a cache, or stored features."""

import dataclasses
from collections.abc import Mapping, Sequence

from vlm_jax.config.run import Config
from vlm_jax.data.cached_images import cache_images
from vlm_jax.data.feature_folder import description, features_of
from vlm_jax.errors import InputError
from vlm_jax.files import read_settings_file
from vlm_jax.run_folder import IMAGE_FEATURES, RunFolder
from vlm_jax.tasks.base import Task
from vlm_jax.training.setup import given_features
from vlm_jax.training.stored_features import cache_features, check_frozen
from vlm_jax.types import Example, Parameters


def cache(
    task: Task, params: Parameters, config: Config, splits: Mapping[str, Sequence[Example]], *, trains: bool = True
) -> None:
    """Have a task read the images of splits, as `open_split` opened them, from a cache, which is filled first.

    With `data.stored_views` it reads the outputs of the image encoder in their place, and with `model.image.folder`
    the features that the user gives. A task whose examples are image tokens reads no image. Parameters are those that
    the run begins with. Only a run that `trains` reads augmented views.
    """
    given = given_features(config)
    task.encode = dataclasses.replace(task.encode, cached=None)  # what is not cached is decoded
    if config.data.stored_views:
        check_frozen(task, params, config)
    cached = features_of(given, splits, config.data) if given is not None else None
    if config.data.stored_views:
        cached = cache_features(task, params, config, splits, trains=trains)
        if cached is None:  # computed in every step they would differ by float16's rounding, or be of other views
            raise InputError(
                f"data.stored_views is {config.data.stored_views}, and the features cannot be kept below "
                f"data.directory {config.data.directory}; make room, raise data.cache_gigabytes, or leave it out"
            )
    if cached is None and task.reads_images:
        cached = cache_images(list(splits.values()), task.encode, config.data)
    task.encode = dataclasses.replace(task.encode, cached=cached)


def reads_features(config: Config) -> bool:
    """Whether a run reads features in the place of images."""
    return bool(config.data.stored_views) or given_features(config) is not None


def check_features(config: Config, folder: RunFolder) -> None:
    """Keep what a run's given features are, and raise `InputError` where they are other ones than it began with."""
    given = given_features(config)
    if given is None:
        return
    now = description(given)
    if not folder.sealed:
        folder.write_json(IMAGE_FEATURES, now)
    elif (known := read_settings_file(folder.file(IMAGE_FEATURES))) != now:
        names = sorted(name for name in known.keys() | now.keys() if known.get(name) != now.get(name))
        raise InputError(
            f"model.image.folder {config.model.image.folder} holds other features than {folder.path} began with "
            f"({', '.join(names)}); give those, or another --workdir"
        )
