"""From run folders to a report: those of a study, or some that were made by hand."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlm_jax.ablation.costs import Cost, cost
from vlm_jax.ablation.disagreements import disagreements
from vlm_jax.ablation.plan import metrics_of
from vlm_jax.ablation.records import Findings, Record, Row, read_run
from vlm_jax.ablation.report import Report, write
from vlm_jax.ablation.run_identity import Content, content
from vlm_jax.ablation.running import StudyFolder
from vlm_jax.ablation.study import Run, Study, Table, seeded, short_name
from vlm_jax.config.run import Config
from vlm_jax.errors import InputError, one_of
from vlm_jax.metrics.student import LEVEL
from vlm_jax.run_folder import CONFIG, RunFolder, open_run
from vlm_jax.settings.groups import flat, json_tree
from vlm_jax.tasks import task_class
from vlm_jax.text_lines import read_lines
from vlm_jax.types import Json


def write_report(
    study: Study, tables: Sequence[Table], runs: Sequence[Run], folder: StudyFolder, *, command: str
) -> None:
    """Write `report.md` and `report.html` of a study into its folder, from whatever of its runs has finished."""
    names = {run.config: run.name for run in runs}
    comparisons, faults = [], {}
    for table in tables:
        rows = []
        for variant in table.variants:
            configs = [seeded(variant, seed).config for seed in study.seeds]
            records = _finished([(config, folder.path / "runs" / names[config]) for config in configs], faults)
            cost_of_variant = _cost(variant.config)
            rows.append(Row(variant.label, records, len(configs), cost_of_variant, variant.chosen, variant.overrides))
        comparisons.append(Findings(table.title, rows, table.base, table.match, metrics_of(table), table.common))
    left = (run.name for run in runs if run.name in faults or not folder.run(run).finished)
    reasons = {run.name: faults.get(run.name) or folder.error(run) or "not finished" for run in runs}
    commands = _remembered(folder.path / "commands.txt", command)
    unfinished = tuple((name, reasons[name]) for name in left)
    write(_report(study.question, comparisons, commands, unfinished, finding=study.finding), folder.path)


def _finished(places: Iterable[tuple[Config, Path]], faults: dict[str, str]) -> list[Record]:
    """The records of finished runs that are as they were written; `faults` gets what is wrong with others, by name."""
    records = []
    for config, place in places:
        if not (place / CONFIG).is_file():
            continue
        try:
            records.append(read_run(open_run(place))._replace(config=config))  # its data may have moved
        except InputError as error:
            faults[place.name] = str(error)
    return [record for record in records if record.result]


def _remembered(file: Path, command: str) -> tuple[str, ...]:
    """The commands that a study was run with, each once, this one among them."""
    before = read_lines(file) if file.is_file() else []
    # A line each: a shell reads $'\\n' as the line break that stands in an argument.
    command = command.replace("\r", r"'$'\r''").replace("\n", r"'$'\n''")
    every = tuple(dict.fromkeys([*before, command]))
    RunFolder(file.parent).write_text(file.name, "\n".join(every) + "\n")
    return every


def write_report_of_runs(paths: Sequence[Path], folder: Path, *, metrics: tuple[str, ...], command: str) -> None:
    """Write a report about runs that were made by hand: those that differ in their seed alone are one variant.

    The first run's variant is what the others are compared with. Raises `InputError` where the runs have different
    tasks, or two have the same config.
    """
    records = [read_run(open_run(path)) for path in paths]
    tasks = sorted({record.config.task for record in records})
    if len(tasks) > 1:
        raise InputError(f"the runs have different tasks ({', '.join(tasks)}); report on those of one task at a time")
    variants: dict[Content, list[Record]] = {}
    for record in records:
        alike = content(RunFolder(record.folder), record.config)
        group = variants.setdefault(alike, [])
        twice = next((other for other in group if other.config.seed == record.config.seed), None)
        if twice is not None:
            raise InputError(f"{twice.folder} and {record.folder} have one config and one seed; leave one out")
        group.append(record)
    known = sorted({name for record in records for name in record.result.get("metrics", ())})
    for metric in metrics:
        if known and metric not in known:
            raise InputError(f"no run has the score {metric!r}; {one_of(known)}")
    metrics = metrics or (task_class(tasks[0]).metric_of(records[0].config),)
    configs = [group[0].config for group in variants.values()]
    rows = [
        Row(label, [record for record in group if record.result], len(group), _cost(group[0].config))
        for label, group in zip(_labels(configs), variants.values(), strict=True)
    ]
    table = Findings("Runs", rows, base=str(paths[0]), match="steps", metrics=metrics)
    unfinished = tuple((str(record.folder), "not finished") for record in records if not record.result)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder as --output")
    folder.mkdir(parents=True, exist_ok=True)
    question = f"How do {len(rows)} variants in {len(records)} runs compare?"
    write(_report(question, [table], (command,), unfinished), folder)


def _cost(config: Config) -> Cost:
    """None where the data that would count the answers is not here any more, or the model is of another time."""
    try:
        return cost(config)
    except (ValueError, TypeError, OSError):
        return Cost(None, None)


def _labels(configs: Sequence[Config]) -> list[str]:
    """For each config, the settings in which any of them differ, with its values."""
    settings = [flat(json_tree(config)) for config in configs]
    names = [name for name in dict.fromkeys(itertools.chain(*settings)) if name not in ("name", "seed")]
    varied = [name for name in names if any(values.get(name) != settings[0].get(name) for values in settings)]
    return [
        ", ".join(f"{short_name(name)}={values[name]}" for name in varied if name in values) or "all"
        for values in settings
    ]


def _report(
    question: str,
    tables: Sequence[Findings],
    commands: tuple[str, ...],
    unfinished: tuple[tuple[str, str], ...],
    *,
    finding: str = "",
) -> Report:
    metadata: dict[str, Json] = {"level": LEVEL}
    results = [record.result for table in tables for row in table.rows for record in row.records]
    for name in ("commit", "versions", "machine"):
        values = [result.get(name) for result in results]
        different = [value for place, value in enumerate(values) if value not in values[:place]]
        metadata[name] = different[0] if len(different) == 1 else different or None
    examples = {table.title: disagreements(table) for table in tables}
    return Report(question, finding, tuple(tables), commands, metadata, unfinished, examples)
