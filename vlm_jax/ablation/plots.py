"""Images of a comparison, as SVG: the same results give the same bytes."""

from typing import NamedTuple

import numpy as np

from vlm_jax.ablation.canvas import DASHES, FAINT, GRID, INK, Handles, cost_axis, marked, short, style, svg, whiskers
from vlm_jax.ablation.records import Findings, Row
from vlm_jax.ablation.wording import heading, is_share
from vlm_jax.figures import visible
from vlm_jax.tasks import task_class

BAR = 0.13  # inches
MOST_MARKED = 15  # points of a curve from which on a marker each would hide the line


class Plot(NamedTuple):
    """An image and what it shows."""

    caption: str
    svg: str


def plots(findings: Findings) -> tuple[Plot, ...]:
    """Every image that the finished runs have numbers for."""
    main = findings.metrics[0] if findings.metrics else ""
    made = (effects(findings, main), curves(findings), score_by_cost(findings, main), by_kind(findings))
    return tuple(plot for plot in made if plot is not None)


def effects(findings: Findings, metric: str) -> Plot | None:
    """Each variant minus the first with its interval, beside a line at no difference."""
    differences = findings.differences.get(metric, {})
    numbered = [(number, row.label) for number, row in enumerate(findings.rows) if row.label in differences]
    if not numbered:
        return None

    def paint(axes: "matplotlib.axes.Axes") -> None:
        scale = _scale(metric)
        axes.axvline(0, color=FAINT, linewidth=1)
        for place, (number, label) in enumerate(numbered):
            difference = differences[label]
            ends = whiskers(difference.difference, difference.low, difference.high, scale)
            axes.errorbar(difference.difference * scale, place, xerr=ends, **marked(number))
        axes.set_yticks(range(len(numbered)), [short(label, 38) for _, label in numbered])
        axes.set_ylim(len(numbered) - 0.4, -0.6)
        axes.set_xlabel(f"{metric} minus the first variant's" + (", percentage points" if is_share(metric) else ""))
        axes.grid(axis="x", color=GRID)

    first = visible(findings.rows[0].label)
    tests = "its" if any(difference.paired for difference in differences.values()) else "Welch's"
    caption = (
        f"Difference in {metric} from {first}, with {tests} interval, each by itself (not adjusted for the number "
        "of variants). No line: one seed, or no spread between seeds to tell by."
    )
    return Plot(caption, svg(paint, 0.9 + 0.42 * len(numbered)))


def curves(findings: Findings) -> Plot | None:
    """Validation scores over training; the band is from the lowest to the highest seed."""
    lines = [(number, points) for number, row in enumerate(findings.rows) if len(points := _curve(row)) > 1]
    if not lines:
        return None
    labels, config = [findings.rows[number].label for number, _ in lines], findings.rows[lines[0][0]].records[0].config
    metric = task_class(config.task).metric_of(config)

    def paint(axes: "matplotlib.axes.Axes") -> Handles:
        handles = []
        for number, points in lines:
            looks, steps = style(number), list(points)
            values = np.array(list(points.values())) * _scale(metric)
            marker = {"marker": looks.marker if len(steps) <= MOST_MARKED else "", "markersize": 4}
            handles += axes.plot(steps, values.mean(1), looks.dash, color=looks.colour, linewidth=1.6, **marker)
            axes.fill_between(steps, values.min(1), values.max(1), color=looks.colour, alpha=0.15, linewidth=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel(f"validation {heading(metric)}")
        axes.grid(color=GRID)
        return handles

    caption = "Validation score by which the best checkpoint is chosen. Line: mean over seeds; band: lowest to highest."
    return Plot(caption, svg(paint, 3.4, labels=labels))


def _curve(row: Row) -> dict[int, list[float]]:
    """The value of each seed at the steps that all seeds with a curve have."""
    seeds = [record.curve for record in row.records if record.curve]
    shared = sorted(set.intersection(*map(set, seeds))) if seeds else []
    return {step: [curve[step] for curve in seeds] for step in shared}


def score_by_cost(findings: Findings, metric: str) -> Plot | None:
    """The metric over the FLOPs of a whole training or, where there is no formula, over parameters."""
    scored = [(number, row) for number, row in enumerate(findings.rows) if row.values(metric)]
    costs = [row.cost.step_flops and row.cost.step_flops * row.records[0].config.training.steps for _, row in scored]
    what = "FLOPs of the whole training"
    if None in costs:
        costs, what = [row.cost.parameters or row.mean("parameters") for _, row in scored], "parameters"
    if None in costs or len(set(costs)) < 2:
        return None

    labels = [row.label for _, row in scored]

    def paint(axes: "matplotlib.axes.Axes") -> Handles:
        scale, handles = _scale(metric), []
        for (number, row), cost in zip(scored, costs, strict=True):
            score = row.summary(metric)
            ends = whiskers(score.mean, score.low, score.high, scale)
            handles.append(axes.errorbar(cost, score.mean * scale, yerr=ends, **marked(number)))
        cost_axis(axes, costs)
        axes.set_xlabel(what)
        axes.set_ylabel(heading(metric))
        axes.grid(color=GRID)
        return handles

    caption = f"{metric} on the test split against {what}. Point: mean over seeds; line: Student's interval."
    return Plot(caption, svg(paint, 3.2, labels=labels))


def by_kind(findings: Findings) -> Plot | None:
    """Bars of `accuracy/KIND`, a group for each kind of question."""
    bars = [
        (number, row, {name.partition("/")[2]: row.summary(name) for name in names})
        for number, row in enumerate(findings.rows)
        if (names := row.names("accuracy/"))
    ]
    kinds = sorted({kind for *_, summaries in bars for kind in summaries})
    if not kinds:
        return None
    group = len(bars) + 1.5  # bars, and the room between groups

    def paint(axes: "matplotlib.axes.Axes") -> Handles:
        handles = []
        for place, (number, _, summaries) in enumerate(bars):
            hatch = ("", "///", "...")[DASHES.index(style(number).dash)]
            looks = {"color": style(number).colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            looks["error_kw"] = {"ecolor": INK, "elinewidth": 0.9, "capsize": 0}
            for kind, score in summaries.items():
                ends = whiskers(score.mean, score.low, score.high, 100.0)
                bar = axes.barh(kinds.index(kind) * group + place, 100 * score.mean, 0.82, xerr=ends, **looks)
            handles.append(bar)
        axes.set_yticks([at * group + (len(bars) - 1) / 2 for at in range(len(kinds))], [short(k, 24) for k in kinds])
        axes.set_ylim(len(kinds) * group - 1.6, -1)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, %")
        axes.set_axisbelow(True)
        axes.grid(axis="x", color=GRID)
        return handles

    caption = "Accuracy by kind of question on the test split. Bar: mean over seeds; line: Student's interval."
    return Plot(caption, svg(paint, 0.7 + max(0.3, BAR * group) * len(kinds), labels=[row.label for _, row, _ in bars]))


def _scale(metric: str) -> float:
    return 100.0 if is_share(metric) else 1.0
