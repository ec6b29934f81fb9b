"""The predictions of a run for each item of the test split, read from `predictions.jsonl`, with one score an item."""

import json
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.run_folder import PREDICTIONS, RunFolder
from vlm_jax.tasks import task_class
from vlm_jax.tasks.base import Item
from vlm_jax.text_lines import read_lines


def read_items(folder: Path, task: str) -> dict[str, Item]:
    """The items of a run's test split by their id. Raises `InputError` where the file is not there or not whole."""
    file = RunFolder(folder).file(PREDICTIONS)
    read = task_class(task).read_item
    try:
        lines = [json.loads(line) for line in read_lines(file)]
        return {line.get("question_id", line["image_id"]): read(line) for line in lines}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} cannot be used ({type(error).__name__}: {error}); finish the run first") from None
