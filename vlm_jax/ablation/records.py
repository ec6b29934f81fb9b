"""What finished runs say of themselves, and what follows for a comparison: means, intervals, differences."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vlm_jax.ablation.costs import Cost
from vlm_jax.ablation.run_identity import training
from vlm_jax.ablation.statistics import Difference, Summary, differences, summary
from vlm_jax.config.run import Config
from vlm_jax.errors import InputError
from vlm_jax.run_folder import METRICS, PREDICTIONS, RunFolder
from vlm_jax.tasks import task_class
from vlm_jax.tasks.base import Item
from vlm_jax.text_lines import read_lines
from vlm_jax.types import Json

MADE = ("commit", "code", "versions", "machine")  # with and on what a run was made


class Record(NamedTuple):
    """One run, as its folder tells it."""

    folder: Path
    config: Config
    result: dict[str, Json]
    """What `result.json` holds; empty where the run has not finished."""
    curve: dict[int, float]
    """Validation scores by optimizer step, of the score that the best checkpoint is chosen by."""
    weights: dict[str, Json] | None
    """What was loaded from where; None where everything is fresh."""


def read_run(folder: RunFolder) -> Record:
    """The record of a run, finished or not."""
    config = folder.config()
    result = folder.result() if folder.finished else {}
    curve = _curve(folder.file(METRICS), f"validation/{task_class(config.task).metric_of(config)}")
    return Record(folder.path, config, result, curve, folder.weights())


def _curve(file: Path, metric: str) -> dict[int, float]:
    if not file.is_file():
        return {}
    points = {}
    for line in read_lines(file, errors="replace"):
        try:
            values = json.loads(line)
            if values.get(metric) is not None:
                points[int(values["step"])] = float(values[metric])
        except (ValueError, TypeError, KeyError, AttributeError):  # a line cut short by a kill
            continue
    return dict(sorted(points.items()))


def read_items(folder: Path, task: str) -> dict[str, Item]:
    """The items of a run's test split by their id. Raises `InputError` where the file is not there or not whole."""
    file = RunFolder(folder).file(PREDICTIONS)
    read = task_class(task).read_item
    try:
        lines = [json.loads(line) for line in read_lines(file)]
        return {line.get("question_id", line["image_id"]): read(line) for line in lines}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} cannot be used ({type(error).__name__}: {error}); finish the run first") from None


@dataclass(frozen=True)
class Row:
    """A variant of a comparison: its finished runs, and their means."""

    label: str
    records: Sequence[Record]
    """Finished runs, by seed."""
    planned: int
    """How many runs there should be."""
    cost: Cost
    chosen: str = ""
    """What matching changed; empty where nothing."""
    changes: tuple[tuple[str, object], ...] = ()
    """(setting, value) of what it changes of the base; empty where its label says it all."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the finished runs."""
        return tuple(record.config.seed for record in self.records)

    @property
    def scored_alone(self) -> bool:
        """Whether all of its runs began with trainings of others."""
        return bool(self.records) and all(record.result.get("trained_as") for record in self.records)

    def pairs(self, other: "Row", metric: str) -> tuple[list[float], list[float]] | None:
        """The metric of this row and of another one by the seeds of both, where they are uses of the same trainings.

        Trainings are the same where config, code, versions and machine are, whether or not they were done once.
        """
        results, other_results = (
            {training(record.config): record.result for record in row.records} for row in (self, other)
        )
        shared = [config for config in results if config is not None and config in other_results]
        if not shared or any(
            results[config].get(key) != other_results[config].get(key) for config in shared for key in MADE
        ):
            return None
        return tuple([side[config]["metrics"][metric] for config in shared] for side in (results, other_results))

    def _metadata_values(self, key: str) -> list[Json]:
        """Of the runs that were trained themselves; of all where none was."""
        trained = [record for record in self.records if not record.result.get("trained_as")]
        return [record.result.get(key) for record in trained or self.records]

    def mean(self, key: str) -> float | None:
        """The mean over seeds of a fact of `result.json`, such as `wall_seconds`; None where it is missing."""
        values = self._metadata_values(key)
        return None if not values or None in values else sum(values) / len(values)

    def most(self, key: str) -> float | None:
        """The largest over seeds of a fact of `result.json`; None where it is missing."""
        values = self._metadata_values(key)
        return None if not values or None in values else max(values)

    def values(self, metric: str) -> list[float]:
        """The metric of each finished run, by seed; none where not all of them have it."""
        values = [record.result["metrics"].get(metric) for record in self.records]
        return [] if None in values else values

    def summary(self, metric: str) -> Summary | None:
        """Mean and interval of a metric; None where the runs do not have it."""
        return summary(values) if (values := self.values(metric)) else None

    def names(self, beginning: str) -> list[str]:
        """The metrics that all finished runs have and whose names begin so."""
        names = {name for record in self.records for name in record.result["metrics"] if name.startswith(beginning)}
        return sorted(name for name in names if self.values(name))


@dataclass(frozen=True)
class Findings:
    """One comparison with everything that its finished runs say."""

    title: str
    rows: Sequence[Row]
    """The first is what the others are compared with."""
    base: str
    match: str
    metrics: Sequence[str]
    common: tuple[tuple[str, object], ...] = ()
    """(setting, value) of what all variants change of the base."""

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference]]:
        """By metric and label, each variant minus the first; without those that have no finished run."""
        first, *others = self.rows
        compared = {}
        for metric in self.metrics:
            values = {row.label: row.values(metric) for row in self.rows if row.values(metric)}
            if first.label in values and len(values) > 1:
                pairs = {row.label: row.pairs(first, metric) for row in others if row.label in values}
                paired = {label: pair for label, pair in pairs.items() if pair is not None}
                compared[metric] = differences(values, first.label, paired=paired)
        return compared
