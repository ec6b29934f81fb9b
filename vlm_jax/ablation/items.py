"""What a run said of each item of the test split, read from `predictions.jsonl`, with one score an item."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vlm_jax.errors import InputError
from vlm_jax.metrics.ptb_tokens import ptb_tokenize
from vlm_jax.run_folder import PREDICTIONS, RunFolder
from vlm_jax.text_lines import read_lines


class Item(NamedTuple):
    """A question that was answered, an image that a caption was written for, or one that was drawn or rebuilt."""

    image_id: str
    text: str
    """The question or the prompt; empty where there is none."""
    kind: str
    references: tuple[str, ...]
    hypothesis: str
    score: float
    """Of this item alone: 0 wrong to 1 right; decibels for an image tokenizer."""


def read_items(folder: Path, task: str) -> dict[str, Item]:
    """The items of a run's test split by their id. Raises `InputError` where the file is not there or not whole."""
    file = RunFolder(folder).file(PREDICTIONS)
    read = READERS[task]
    try:
        lines = [json.loads(line) for line in read_lines(file)]
        return {line.get("question_id", line["image_id"]): read(line) for line in lines}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} cannot be used ({type(error).__name__}: {error}); finish the run first") from None


def _answered(line: dict[str, Any]) -> Item:
    return Item(
        line["image_id"], line["question"], line["kind"], tuple(line["answers"]), line["prediction"], line["score"]
    )


def _captioned(line: dict[str, Any]) -> Item:
    """Right by rule where the scene is known, otherwise where it is one of the references in the official spelling."""
    hypothesis, references = line["captions"][0]["caption"], tuple(line["references"])
    words = [ptb_tokenize(text) for text in (hypothesis, *references)]
    right = line["check"]["true"] if "check" in line else words[0] in words[1:]
    return Item(line["image_id"], "", "", references, hypothesis, float(right))


def _generated(line: dict[str, Any]) -> Item:
    """The mean over samples of the objects that are right, by rule; of other images how likely the real one was."""
    checks = line["checks"]
    score = sum(check["objects"] for check in checks) / len(checks) if checks else line["log_likelihood"]
    return Item(line["image_id"], line["prompt"], "", (), "", score)


def _reconstructed(line: dict[str, Any]) -> Item:
    return Item(line["image_id"], "", "", (), "", line["psnr"])


READERS: dict[str, Callable[[dict[str, Any]], Item]] = {
    "vqa": _answered,
    "captioning": _captioned,
    "image_generation": _generated,
    "image_tokenizer": _reconstructed,
}
