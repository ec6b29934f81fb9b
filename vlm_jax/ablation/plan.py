"""What a study would take, and how many seeds it needs."""

import os
from collections.abc import Callable, Sequence
from functools import partial

from vlm_jax.ablation.costs import cost
from vlm_jax.ablation.probe import Probe, probe
from vlm_jax.ablation.records import read_run
from vlm_jax.ablation.run_identity import Training, training
from vlm_jax.ablation.running import StudyFolder
from vlm_jax.ablation.statistics import pooled_std, seeds_needed
from vlm_jax.ablation.study import Planned, Run, Table
from vlm_jax.ablation.wording import MISSING, is_share, mebibytes
from vlm_jax.config.run import Config
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks import task_class
from vlm_jax.training.logging import duration

PAIRED = "; that is of separate trainings: uses of the same ones are compared seed by seed, by other numbers"


def metrics_of(table: Table) -> tuple[str, ...]:
    """What a comparison reports: its own choice, or what the best checkpoint is chosen by."""
    config = table.variants[0].config
    return table.metrics or (task_class(config.task).metric_of(config),)


def plan(
    tables: Sequence[Table],
    runs: Sequence[Run],
    folder: StudyFolder,
    *,
    jobs: int,
    retry: bool = False,
    measure: Callable[[Config], Probe] | None = None,
) -> str:
    """A table of the runs: what there is of each, parameters, FLOPs of a step, peak memory and time.

    Memory and time of runs to do come from two steps of each variant with its first seed, one at a time.
    `measure` takes them, by default `probe` on a job's share of the cores. Finished runs report what they took. Runs
    that failed are to do with `retry`. Those that train as another one does are left to be scored (`run_identity`).
    """
    measure, cores = measure or partial(probe, jobs=jobs), len(os.sched_getaffinity(0)) // jobs
    measured: dict[Config, Probe] = {}
    shared: set[Training | None] = set()
    problems, seconds = [], []
    rows = [("run", "state", "parameters", "FLOPs a step", "memory", "time")]
    for run in runs:
        variant, run_folder = with_changes(run.config, {"seed": runs[0].config.seed}), folder.run(run)
        state = "finished" if run_folder.finished else "failed" if folder.error(run) else "to do"
        todo = state == "to do" or (state == "failed" and retry)
        if todo and variant not in measured:
            measured[variant] = Probe()
            try:
                measured[variant] = measure(variant)
            except InputError as error:
                problems.append(f"{run.name}: {error}")
        estimate, alike = measured.get(variant, Probe()), training(run.config)
        begun = run_folder.path.exists()  # goes on by itself
        if todo and not begun and (alike in shared or folder.trained_alike(run.config, cores=cores)):
            estimate = _scored_alone(estimate, run.config)
            state = "to score" if state == "to do" else state
        if todo:
            shared |= {alike} - {None}
            seconds.append(estimate.total_seconds)
        if state == "finished":
            took = run_folder.result()
            estimate = Probe(total_seconds=took.get("wall_seconds"), peak_memory=took.get("peak_memory_bytes"))
        time = MISSING if estimate.total_seconds is None else duration(estimate.total_seconds)
        rows.append((run.name, state, *(f"{n:,}" for n in cost(variant)), mebibytes(estimate.peak_memory), time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justified = ([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])] for row in rows)
    text = list(map("  ".join, justified))
    for table in tables:
        changed = [f"{variant.label}: {variant.chosen}" for variant in table.variants if variant.chosen]
        if changed:
            text.append(f"{table.title}, {table.match} matched: {'; '.join(changed)}")
    unknown = seconds.count(None)
    least, rest = ("at least ", f", of {unknown} nobody knows") if unknown else ("", "")
    took = f"{least}{duration(sum(filter(None, seconds)) / jobs)} with {jobs} at a time (if that slows none){rest}"
    return "\n".join([*text, *problems, f"{len(seconds)} runs to do, {took}"])


def _scored_alone(estimate: Probe, config: Config) -> Probe:
    """What is left of a run that another one has trained; its validation is still counted."""
    if estimate.total_seconds is None or estimate.step_seconds is None or estimate.compile_seconds is None:
        return estimate
    trained = estimate.compile_seconds + config.training.steps * estimate.step_seconds
    return estimate._replace(total_seconds=estimate.total_seconds - trained)


def power(tables: Sequence[Table], runs: Sequence[Run], folder: StudyFolder, size: float) -> str:
    """How many seeds a variant needs for a difference of `size` to be found 8 times in 10, a line a metric.

    `size` is in the metric's own unit, for a share a fraction: 0.02 is two points. The spread between seeds is that of
    the finished runs, pooled over the variants of each comparison: where they spread differently, the most spread one
    needs more. Raises `InputError` where no variant has two finished runs.
    """
    lines = []
    for table in tables:
        known = [shared for variant in table.variants if (shared := training(variant.config)) is not None]
        note = PAIRED if len(set(known)) < len(known) else ""
        for metric in metrics_of(table):
            groups = [_scores(variant, runs, folder, metric) for variant in table.variants]
            groups = [group for group in groups if group]
            std = pooled_std(groups)
            if std is None:
                continue
            comparisons = len(table.variants) - 1
            if std == 0:
                lines.append(f"{table.title}, {metric}: the seeds do not differ, so there is nothing to go by")
                continue
            shown = f"{size:g}" + (f" ({100 * size:g} points)" if is_share(metric) else "")
            try:
                needed = seeds_needed(std, size, comparisons=comparisons)
                answer = f"a difference of {shown} is found 8 times in 10 with {needed} seeds a variant"
            except InputError as error:
                answer = str(error)
            lines.append(
                f"{table.title}, {metric}: standard deviation {std:.4g} between seeds, by "
                f"{sum(map(len, groups))} runs (few make this rough); {answer} "
                f"({comparisons} comparisons at once){note}"
            )
    if not lines:
        raise InputError(f"{folder.path} has no variant with two finished runs, so no spread of seeds; run it first")
    return "\n".join(lines)


def _scores(variant: Planned, runs: Sequence[Run], folder: StudyFolder, metric: str) -> list[float]:
    own_runs = [run for run in runs if with_changes(run.config, {"seed": variant.config.seed}) == variant.config]
    records = [read_run(folder.run(run)) for run in own_runs if folder.run(run).finished]
    scores = [record.result["metrics"].get(metric) for record in records]
    return [value for value in scores if value is not None]
