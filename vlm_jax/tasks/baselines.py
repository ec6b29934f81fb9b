"""What a score is worth beside its baselines: paired differences, and warnings where the model is no better."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vlm_jax.metrics.paired import paired_difference
from vlm_jax.metrics.student import LEVEL
from vlm_jax.tasks.base import Prediction
from vlm_jax.types import Example


def distinct_images(examples: Sequence[Example]) -> int:
    """Images with different ids: with fewer than two, a shuffled image is the image itself."""
    return len({example.image_id for example in examples})


def shuffled_difference(
    name: str, metric: str, predictions: Sequence[Prediction], scores: Sequence[float], shuffled: Sequence[float]
) -> dict[str, float]:
    """Mean of `scores` minus `shuffled`, item by item, with its interval of `LEVEL`, clustered by image.

    The rows are `baseline/NAME/difference/METRIC`, `.../difference_low/...` and `.../difference_high/...`, not a number
    where the scores are none, or where the images cannot tell. `predictions` name the image of each item.
    """
    values = (math.nan, math.nan, math.nan)
    if np.isfinite([*scores, *shuffled]).all():
        pair = paired_difference(shuffled, scores, [prediction.image_id for prediction in predictions])
        ends = (pair.low, pair.high)
        values = (pair.difference, *(math.nan if end is None else end for end in ends))
    names = ("difference", "difference_low", "difference_high")
    return {f"baseline/{name}/{row}/{metric}": value for row, value in zip(names, values, strict=True)}


def baseline_warnings(metrics: Mapping[str, float], metric: str, shuffled: str) -> list[str]:
    """One warning for each baseline of `metric` that the model does not beat.

    `shuffled` names the baseline with exchanged inputs, empty for a task without one. Its warning goes by the interval
    of the paired difference; every other baseline's by the two scores alone.
    """
    warnings = _shuffled_warnings(metrics, metric, shuffled) if shuffled else []
    for name, value in _baselines(metrics, metric):
        if name != shuffled and metrics[metric] <= value:
            warnings.append(f"{metric} {metrics[metric]:.4f} is not above the baseline {name} ({value:.4f})")
    return warnings


def _shuffled_warnings(metrics: Mapping[str, float], metric: str, shuffled: str) -> list[str]:
    what = shuffled.removeprefix("shuffled_")
    rows = [f"baseline/{shuffled}/{row}/{metric}" for row in ("difference", "difference_low", "difference_high")]
    if rows[0] not in metrics:
        return [f"the baseline {shuffled} is left out: the split has no two {what} that differ"]
    difference, low, high = (metrics[row] for row in rows)
    if math.isnan(difference):
        return [f"the baseline {shuffled} cannot be compared: {metric} is not a finite number for every item"]
    if difference > 0 and not low <= 0:  # NaN: the same gain with every image
        return []
    interval = "" if math.isnan(low) else f", {LEVEL:.0%} interval {low:+.4f} to {high:+.4f}, clustered by image"
    return [
        f"{metric} is not certainly higher with the right {what} than with shuffled ones "
        f"(difference {difference:+.4f}{interval}): the scores do not show that the model uses its {what}"
    ]


def _baselines(metrics: Mapping[str, float], metric: str) -> Iterator[tuple[str, float]]:
    """Each baseline with its score: `baseline/NAME`, or `baseline/NAME/METRIC` where a task has several scores."""
    for name, value in metrics.items():
        first, *rest = name.split("/")
        if first == "baseline" and rest[1:] in ([], [metric]):
            yield rest[0], value
