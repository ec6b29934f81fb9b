"""What a run reads from caches in place of decoding it again."""

import dataclasses
from collections.abc import Sequence

from vlm_jax.config.run import Config
from vlm_jax.data.cached_images import cache_images
from vlm_jax.tasks.base import Task
from vlm_jax.types import Example


def cache(task: Task, config: Config, splits: Sequence[Sequence[Example]]) -> None:
    """Have a task read the images of splits, as `open_split` opened them, from a cache, which is filled first.

    A task whose examples are image tokens reads no image.
    """
    if task.reads_images:
        task.encode = dataclasses.replace(task.encode, cached=cache_images(splits, task.encode, config.data))
