"""What finished runs say of themselves, and what follows for a comparison: means, intervals, differences."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vlm_jax.ablation.costs import Cost
from vlm_jax.ablation.sharing import training
from vlm_jax.ablation.statistics import Difference, Summary, differences, summary
from vlm_jax.config.run import Config
from vlm_jax.run_folder import METRICS, RunFolder
from vlm_jax.tasks import task_class
from vlm_jax.text_lines import read_lines

MADE = ("commit", "code", "versions", "machine")  # with and on what a run was made


class Record(NamedTuple):
    """One run, as its folder tells it."""

    folder: Path
    config: Config
    result: dict[str, Any]
    """What `result.json` holds; empty where the run has not finished."""
    curve: tuple[tuple[int, float], ...]
    """(optimizer step, validation score), of the score that the best checkpoint is chosen by."""
    weights: dict[str, Any] | None
    """What was loaded from where; None where everything is fresh."""


def read_run(folder: RunFolder) -> Record:
    """The record of a run, finished or not."""
    config = folder.config()
    result = folder.result() if folder.finished else {}
    curve = _curve(folder.file(METRICS), f"validation/{task_class(config.task).metric_of(config)}")
    return Record(folder.path, config, result, curve, folder.weights())


def _curve(file: Path, metric: str) -> tuple[tuple[int, float], ...]:
    if not file.is_file():
        return ()
    points = {}
    for line in read_lines(file, errors="replace"):
        try:
            values = json.loads(line)
            if values.get(metric) is not None:
                points[int(values["step"])] = float(values[metric])
        except (ValueError, TypeError, KeyError, AttributeError):  # a line cut short by a kill
            continue
    return tuple(sorted(points.items()))


@dataclass(frozen=True)
class Row:
    """A variant of a comparison: its finished runs, and their means."""

    label: str
    chosen: str
    """What matching changed; empty where nothing."""
    records: tuple[Record, ...]
    """Finished runs, by seed."""
    planned: int
    """How many runs there should be."""
    scores: dict[str, Summary]
    """By metric; one that the runs do not have is not in it."""
    baselines: dict[str, Summary]
    cost: Cost
    changes: tuple[tuple[str, Any], ...] = ()
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

    def _metadata_values(self, key: str) -> list[Any]:
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
        """The metric of each finished run, by seed."""
        return [record.result["metrics"][metric] for record in self.records]


@dataclass(frozen=True)
class Findings:
    """One comparison with everything that its finished runs say."""

    title: str
    base: str
    match: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    differences: dict[str, dict[str, Difference]]
    """By metric and label, each variant minus the first; without those that have no finished run."""
    common: tuple[tuple[str, Any], ...] = ()
    """(setting, value) of what all variants change of the base."""


def row(
    label: str,
    records: Sequence[Record],
    metrics: Iterable[str],
    *,
    planned: int,
    cost: Cost,
    chosen: str = "",
    changes: tuple[tuple[str, Any], ...] = (),
) -> Row:
    """A variant's row from its runs; those that have not finished count as missing."""
    done = tuple(record for record in records if record.result)
    shared = set.intersection(*(_numbers(record) for record in done)) if done else set()
    scores = {name: _summary(done, name) for name in metrics if name in shared}
    baselines = {name: _summary(done, name) for name in sorted(shared) if name.startswith("baseline/")}
    return Row(label, chosen, done, planned, scores, baselines, cost, changes)


def _numbers(record: Record) -> set[str]:
    return {name for name, value in record.result["metrics"].items() if value is not None}


def _summary(records: Sequence[Record], metric: str) -> Summary:
    return summary([record.result["metrics"][metric] for record in records])


def findings(
    title: str,
    rows: Sequence[Row],
    *,
    base: str,
    match: str,
    metrics: Sequence[str],
    common: tuple[tuple[str, Any], ...] = (),
) -> Findings:
    """The comparison of rows with the first of them."""
    compared: dict[str, dict[str, Difference]] = {}
    for metric in metrics:
        values: Mapping[str, list[float]] = {
            variant.label: variant.values(metric) for variant in rows if metric in variant.scores
        }
        if rows[0].label in values and len(values) > 1:
            pairs = {variant.label: variant.pairs(rows[0], metric) for variant in rows[1:] if variant.label in values}
            compared[metric] = differences(
                values, rows[0].label, paired={label: both for label, both in pairs.items() if both is not None}
            )
    return Findings(title, base, match, tuple(metrics), tuple(rows), compared, common)
