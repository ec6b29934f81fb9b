"""What a run reads from caches in place of computing it again."""

import dataclasses
from collections.abc import Mapping, Sequence

from vlm_jax.config.run import Config
from vlm_jax.data.cached_images import cache_images
from vlm_jax.tasks.base import Task
from vlm_jax.training.stored_features import cache_features
from vlm_jax.types import Example, Parameters


def cache(task: Task, params: Parameters, config: Config, splits: Mapping[str, Sequence[Example]]) -> None:
    """Have a task read the images of splits, as `open_split` opened them, from a cache, which is filled first.

    With `data.stored_views` it reads the outputs of the image encoder in their place. A task whose examples are image
    tokens reads no image. Parameters are those that the run begins with.
    """
    task.encode = dataclasses.replace(task.encode, cached=None)  # what is not cached is decoded
    cached = cache_features(task, params, config, splits) if config.data.stored_views else None
    if cached is None and task.reads_images:
        cached = cache_images(list(splits.values()), task.encode, config.data)
    task.encode = dataclasses.replace(task.encode, cached=cached)
