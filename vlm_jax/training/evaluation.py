"""What a finished run leaves behind: scores on the test split, taken once, predictions and a sheet of pictures."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from vlm_jax.config import Config, to_dict
from vlm_jax.data.images import decode_image
from vlm_jax.figures import SheetItem, predictions_sheet
from vlm_jax.run_folder import RunFolder
from vlm_jax.tasks.vqa import Prediction, VisualQuestionAnswering
from vlm_jax.training.state import Parameters
from vlm_jax.types import Example

SHEET_ITEMS = 24
PACKAGES = (
    "vlm_jax",
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "tokenizers",
    "numpy",
)


def evaluate_run(
    task: VisualQuestionAnswering,
    params: Parameters,
    examples: Sequence[Example],
    train: Sequence[Example],
    *,
    split: str,
    folder: RunFolder,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Score a split, with the controls as rows of their own; write predictions, the sheet and, last, `result.json`."""
    config = task.config
    predictions = task.predict(params, examples)
    metrics = task.score(predictions) | task.controls(params, examples, train)
    lines = [json.dumps(prediction.as_dict(), ensure_ascii=False) for prediction in predictions]
    folder.write_text("predictions.jsonl", "\n".join(lines) + "\n")
    draw_sheet(config, predictions, examples, folder, title=f"{config.name}, {split}: {metrics['accuracy']:.1%} right")
    result = {
        "task": config.task,
        "split": split,
        "metrics": metrics,
        "parameters": parameter_count(params),
        **facts,
        "seed": config.seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": machine(),
        "config": to_dict(config),
    }
    folder.write_json("result.json", result)
    return result


def draw_sheet(
    config: Config, predictions: Sequence[Prediction], examples: Sequence[Example], folder: RunFolder, *, title: str
) -> None:
    """`predictions.png`: one question a picture, wrong answers as often as right ones, as far as there are any."""
    random = np.random.default_rng(config.seed)
    order = random.permutation(len(predictions))
    first_of_picture = {predictions[i].image_id: i for i in reversed(order)}
    chosen = [predictions[i] for i in order if first_of_picture[predictions[i].image_id] == i]
    right = [p for p in chosen if p.score >= 0.5][:SHEET_ITEMS]
    wrong = [p for p in predictions if p.score < 0.5]
    wrong = [wrong[i] for i in random.permutation(len(wrong))][: SHEET_ITEMS // 4]
    pictures = {example.image_id: example.image for example in examples}
    items = [
        SheetItem(
            image=decode_image(pictures[p.image_id], name=p.image_id, max_pixels=config.data.image.max_pixels),
            question=p.question.text,
            prediction=p.top[0][0],
            probability=p.top[0][1],
            answers=p.question.answers,
            correct=p.score >= 0.5,
        )
        for p in [*right[: SHEET_ITEMS - len(wrong)], *wrong]
    ]
    predictions_sheet(items, folder.path / "predictions.png", title=title)


def parameter_count(params: Parameters) -> int:
    """Numbers in the parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def machine() -> dict[str, Any]:
    """Where it ran: processor cores and devices."""
    devices = jax.devices()
    return {"cpu_cores": os.cpu_count(), "devices": [device.device_kind for device in devices]}
