"""One module a task, by its name: targets, loss, predictions, scores. `vlm_jax/config/tasks.py` lists the tasks."""

from importlib import import_module

from vlm_jax.tasks.base import Task


def task_class(name: str) -> type[Task]:
    """The class of a task: `TASK` of the module with its name."""
    return import_module(f"{__name__}.{name}").TASK
