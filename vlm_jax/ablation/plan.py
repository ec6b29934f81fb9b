"""What a study would take, and how many seeds it needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from vlm_jax.ablation.costs import cost
from vlm_jax.ablation.probe import Probe, probe
from vlm_jax.ablation.records import read_run
from vlm_jax.ablation.running import StudyFolder
from vlm_jax.ablation.statistics import pooled_deviation, seeds_needed
from vlm_jax.ablation.study import Planned, Run, Table
from vlm_jax.config import Config
from vlm_jax.errors import InputError
from vlm_jax.tasks import TASKS
from vlm_jax.training.logging import duration


def metrics_of(table: Table) -> tuple[str, ...]:
    """What a comparison reports: its own choice, or what the best checkpoint is chosen by."""
    config = table.variants[0].config
    return table.metrics or (TASKS[config.task].metric_of(config),)


def plan(
    tables: Sequence[Table],
    runs: Sequence[Run],
    folder: StudyFolder,
    *,
    jobs: int,
    measure: Callable[[Config], Probe] = probe,
) -> str:
    """A table of the runs: what there is of each, parameters, FLOPs of a step, peak memory and time.

    Memory and time come from two steps of each variant with its first seed, one variant at a time.
    """
    same: dict[Config, Probe | str] = {}
    lines, total = [("run", "state", "parameters", "FLOPs a step", "memory", "time")], 0.0
    for run in runs:
        variant = replace(run.config, seed=runs[0].config.seed)
        if variant not in same:
            try:
                same[variant] = measure(variant)
            except InputError as error:
                same[variant] = f"{run.name}: {error}"
        probed, counted, finished = same[variant], cost(variant), folder.run(run).finished
        found = Probe(None, None, None, None) if isinstance(probed, str) else probed
        state = "finished" if finished else "failed" if folder.error(run) else "to do"
        total += 0 if finished else found.total_seconds or 0
        lines.append(
            (
                run.name,
                state,
                *("missing" if value is None else f"{value:,}" for value in counted),
                "missing" if found.peak_memory is None else f"{found.peak_memory / 2**20:,.0f} MiB",
                "missing" if found.total_seconds is None else duration(found.total_seconds),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            f"{cell:{'<' if place < 2 else '>'}{width}s}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    for table in tables:
        changed = [f"{variant.label}: {variant.chosen}" for variant in table.variants if variant.chosen]
        if changed:
            text.append(f"{table.title}, {table.match} matched: {'; '.join(changed)}")
    text += [probed for probed in same.values() if isinstance(probed, str)]
    todo = sum(line[1] != "finished" for line in lines[1:])
    return "\n".join([*text, f"{todo} runs to do, {duration(total / jobs)} with {jobs} at a time (if that slows none)"])


def power(tables: Sequence[Table], runs: Sequence[Run], folder: StudyFolder, size: float) -> str:
    """How many seeds a variant needs for a difference of `size` to be found 8 times in 10, a line a metric.

    The spread between seeds is that of the finished runs, pooled over the variants of each comparison. Raises
    `InputError` where no variant has two finished runs.
    """
    lines = []
    for table in tables:
        for metric in metrics_of(table):
            groups = [_scores(variant, runs, folder, metric) for variant in table.variants]
            deviation = pooled_deviation(groups)
            if deviation is None:
                continue
            comparisons = len(table.variants) - 1
            if deviation == 0:
                lines.append(f"{table.title}, {metric}: the seeds do not differ, so there is nothing to go by")
                continue
            needed = seeds_needed(deviation, size, comparisons=comparisons)
            lines.append(
                f"{table.title}, {metric}: standard deviation {deviation:.4g} between seeds, by "
                f"{sum(map(len, groups))} runs (few make this rough); a difference of {size:g} is found 8 times in 10 "
                f"with {needed} seeds a variant ({comparisons} comparisons at once)"
            )
    if not lines:
        raise InputError(
            f"{folder.path} has no variant with two finished runs, by which seeds could differ; run it first"
        )
    return "\n".join(lines)


def _scores(variant: Planned, runs: Sequence[Run], folder: StudyFolder, metric: str) -> list[float]:
    mine = [run for run in runs if replace(run.config, seed=variant.config.seed) == variant.config]
    records = [read_run(folder.run(run)) for run in mine if folder.run(run).finished]
    found = [record.result["metrics"].get(metric) for record in records]
    return [value for value in found if value is not None]
