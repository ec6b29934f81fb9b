"""The tables of a comparison as plain text cells, for the text report and for the page: both say the same."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vlm_jax.ablation import wording
from vlm_jax.ablation.costs import TOLERANCE
from vlm_jax.ablation.records import Findings, Row
from vlm_jax.ablation.statistics import Difference
from vlm_jax.ablation.wording import CALLED, MISSING, heading, probability, score, verdict
from vlm_jax.figures import visible
from vlm_jax.settings.groups import flat, json_tree

MATCHED = {
    "flops": f"the FLOPs of an optimizer step within {100 * TOLERANCE:g} % of the first variant's",
    "parameters": f"the parameters within {100 * TOLERANCE:g} % of the first variant's",
}
SHARED, TO_SCORE = "trained as another", ", to score"
CIRCUMSTANCES = {"commit": "", "versions": "", "machine": ", so that speed, memory and time do not compare"}
FEW = 4  # runs that are named
BUDGET = ("training.steps", "training.batch_images", "training.texts_per_image")  # what "steps" has to mean


def alike(findings: Findings) -> str:
    """What the variants have alike, and what of a budget or of the data they have not, by the configs of their runs."""
    settings = [flat(json_tree(row.records[0].config)) for row in findings.rows if row.records]
    if not settings:
        return MISSING
    names = [name for name in dict.fromkeys(itertools.chain(*settings)) if name in BUDGET or name.startswith("data.")]
    differing = [name for name in names if len({repr(config.get(name)) for config in settings}) > 1]
    same = ["optimizer steps and batches"] * (not set(differing) & set(BUDGET))
    same += ["data"] * (not any(name.startswith("data.") for name in differing))
    same += [text for match, text in MATCHED.items() if match == findings.match]
    text = ", ".join(same) or "nothing of the budget"
    values = (
        f"{name} ({', '.join(dict.fromkeys(str(config.get(name, 'none')) for config in settings))})"
        for name in differing
    )
    return text + (f". Not alike: {', '.join(values)}" if differing else "") + "".join(_mixed(findings))


def _mixed(findings: Findings) -> Iterator[str]:
    """What else than settings may have made a difference: runs of several commits, versions or machines."""
    runs = [(f"{row.label} {record.config.seed}", record) for row in findings.rows for record in row.records]
    for key, consequence in CIRCUMSTANCES.items():
        which: dict[str, list[str]] = {}
        for name, record in runs:
            which.setdefault(wording.format_value(record.result.get(key)), []).append(name)
        if len(which) > 1:
            groups = (
                f"{value} ({', '.join(names[:FEW])}{f' and {len(names) - FEW} more' if len(names) > FEW else ''})"
                for value, names in which.items()
            )
            yield f". Runs differ in {key}{consequence}: {'; '.join(groups)}"


class Grid(NamedTuple):
    """A table: every row has as many cells as the head, and the first is a variant's label."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Verdicts(NamedTuple):
    """What became of all variants but the first, by one metric."""

    metric: str
    base: str
    first: bool
    """Whether it is what the comparison is about; the other metrics are looked at beside it."""
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """(verdict, variants with their differences)."""


def verdicts(findings: Findings) -> tuple[Verdicts, ...]:
    """For each metric of the comparison, variants grouped by verdict: what was told apart, then the rest."""
    first, *others = findings.rows
    by_metric = []
    for metric in findings.metrics:
        groups: dict[str, list[str]] = {name: [] for name in CALLED}
        for row in others:
            difference = findings.differences.get(metric, {}).get(row.label)
            shown = "" if difference is None else f" ({wording.difference_in_words(difference, metric)})"
            groups.setdefault(verdict(difference), []).append(visible(row.label) + shown)
        pairs = tuple((name, tuple(labels)) for name, labels in groups.items() if labels)
        by_metric.append(Verdicts(metric, visible(first.label), metric == findings.metrics[0], pairs))
    return tuple(by_metric)


def grids(findings: Findings) -> tuple[Grid, ...]:
    """Every table of the comparison."""
    made = (_scores, _differences, _baselines, _warnings, _costs, _variants, _weights)
    return tuple(grid for grid in (make(findings) for make in made) if grid.rows)


def _scores(findings: Findings) -> Grid:
    rows = []
    for row in findings.rows:
        done = len(row.records)
        cells = [visible(row.label), str(done) if done == row.planned else f"{done} of {row.planned}"]
        for metric in findings.metrics:
            summary = row.summary(metric)
            std = None if summary is None else summary.std
            cells += [wording.mean_with_interval(summary, metric), score(std, metric, fine=True)]
        rows.append(tuple(cells))
    names = (name for metric in findings.metrics for name in (heading(metric), "std"))
    return Grid("Scores", ("variant", "seeds", *names), tuple(rows))


EFFECT: dict[str, Callable[[Difference, str], str]] = {
    "difference": lambda effect, metric: score(effect.difference, metric, fine=True, signed=True),
    "interval": wording.difference_interval,
    "test": lambda effect, _: "seed by seed" if effect.paired else "Welch's",
    "df": lambda effect, _: MISSING if effect.df is None else f"{effect.df:.1f}",
    "p": lambda effect, _: probability(effect.p),
    "adjusted p": lambda effect, _: probability(effect.adjusted_p),
    "permutation p": lambda effect, _: probability(effect.permutation_p),
    "verdict": lambda effect, _: verdict(effect),
}
"""Columns of the table of differences."""


def _differences(findings: Findings) -> Grid:
    first, *others = findings.rows
    every = [effect for by_label in findings.differences.values() for effect in by_label.values()]
    columns = dict(EFFECT)
    if not any(effect.paired for effect in every):
        del columns["test"]
    if all(effect.permutation_p is None for effect in every):
        del columns["permutation p"]
    rows = []
    for metric, row in itertools.product(findings.metrics, others):
        effect = findings.differences.get(metric, {}).get(row.label)
        cells = [MISSING if effect is None else shown(effect, metric) for shown in columns.values()]
        rows.append((visible(row.label), heading(metric), *cells))
    return Grid(f"Differences against {visible(first.label)}", ("variant", "metric", *columns), tuple(rows))


def _baselines(findings: Findings) -> Grid:
    every = sorted({name for row in findings.rows for name in row.names("baseline/")})
    compared = [name for name in every if name.count("/") == 1 or name.split("/", 2)[2] in findings.metrics]
    names = compared or every  # of the scores that are compared, or it would be a very wide table
    if not names:
        return Grid("Baselines", (), ())
    rows = [
        (visible(row.label), *(wording.mean_with_interval(row.summary(name), name) for name in names))
        for row in findings.rows
    ]
    return Grid("Baselines", ("variant", *(heading(name).removeprefix("baseline/") for name in names)), tuple(rows))


def _warnings(findings: Findings) -> Grid:
    """What runs were warned of, each text with the seeds of its runs."""
    rows = []
    for row in findings.rows:
        seeds: dict[str, list[str]] = {}
        for record in row.records:
            for text in record.result.get("warnings", ()):
                seeds.setdefault(text, []).append(str(record.config.seed))
        rows += [(visible(row.label), ", ".join(which), visible(text)) for text, which in seeds.items()]
    return Grid("Warnings", ("variant", "seeds", "warning"), tuple(rows))


COSTS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("parameters", lambda row: _count(row.cost.parameters or row.mean("parameters"))),
    ("FLOPs of an optimizer step", lambda row: wording.amount(row.cost.step_flops)),
    ("optimizer steps", lambda row: _count(row.records[0].config.training.steps if row.records else None)),
    ("examples/s", lambda row: SHARED if row.scored_alone else _count(row.mean("examples_per_second"))),
    ("peak memory", lambda row: wording.mebibytes(row.mean("peak_memory_bytes")) + TO_SCORE * row.scored_alone),
    # A study keeps compiled programs: its first seed compiles, the others load.
    ("compile time, most", lambda row: SHARED if row.scored_alone else wording.duration(row.most("compile_seconds"))),
    ("wall time", lambda row: wording.duration(row.mean("wall_seconds")) + TO_SCORE * row.scored_alone),
)
"""Columns of the table of costs: counted, or means over seeds."""


def _count(value: float | int | None) -> str:
    return MISSING if value is None else f"{value:,.1f}" if value < 10 and value % 1 else f"{value:,.0f}"


def _costs(findings: Findings) -> Grid:
    matching = findings.match != "steps"
    head = ("variant", *(name for name, _ in COSTS), *(("matching changed",) if matching else ()))
    rows = [(visible(row.label), *(format_cost(row) for _, format_cost in COSTS)) for row in findings.rows]
    if matching:
        rows = [(*entries, row.chosen or "nothing") for entries, row in zip(rows, findings.rows, strict=True)]
    return Grid("Costs", head, tuple(rows))


def _variants(findings: Findings) -> Grid:
    if not any(row.changes for row in findings.rows):
        return Grid("Variants", (), ())
    rows = []
    for row in findings.rows:
        changes = ", ".join(f"{name}={wording.format_value(value)}" for name, value in row.changes) or "nothing"
        rows.append((visible(row.label), changes + "; trained as another, scored alone" * row.scored_alone))
    return Grid("Variants", ("variant", "changes"), tuple(rows))


def _weights(findings: Findings) -> Grid:
    rows = tuple((visible(row.label), _start(row)) for row in findings.rows)
    if len(rows) > 1 and len({started for _, started in rows}) == 1:
        rows = (("all", rows[0][1]),)
    return Grid("Weights", ("variant", "started from"), rows)


def _start(row: Row) -> str:
    from vlm_jax.training.initialization import describe

    if not row.records:
        return MISSING
    weights = row.records[0].weights
    if weights is None:
        return "nothing: everything freshly initialised"
    digests = (f"SHA-256 of {source['source']} {source['sha256'] or MISSING}" for source in weights["sources"])
    return visible(". ".join([*describe(weights), *digests]))
