"""The report of a study: as text for a terminal and a code host here, as one page for a browser in `page`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlm_jax.ablation.disagreements import Disagreement
from vlm_jax.ablation.records import Findings
from vlm_jax.ablation.tables import alike, grids, verdicts
from vlm_jax.ablation.wording import MISSING, format_value
from vlm_jax.figures import visible
from vlm_jax.run_folder import RunFolder
from vlm_jax.text_lines import split_lines
from vlm_jax.types import Json

MARKS = {True: "✓", False: "✗", None: ""}
ALONE = "one variant, nothing to compare it with"
NO_FINDING = "No finding has been written down yet."
FIGURES = "`report.html`, which the same command writes, has the figures."
LEFT_OUT = "Runs are missing: what the study's file says was found is left out."
CHOSEN = "By the first seed that all variants have; where about half of them are right comes first."
WRITTEN = "As the study's file says of its authors' runs:"
EXPECTED = ("commit", "versions", "machine")  # facts that are named as missing where they are not there
LONGEST_ERROR = 500  # characters, in a table; the page has all of it


@dataclass(frozen=True)
class Report:
    """Everything that a study's report says."""

    question: str
    finding: str
    tables: tuple[Findings, ...]
    commands: tuple[str, ...]
    """Each makes this report again, or a part of it."""
    metadata: dict[str, Json]
    """`commit`, `versions`, `machine`, `level` of confidence, `seeds`, and what else is known of how it was made."""
    unfinished: tuple[tuple[str, str], ...] = ()
    """(run, error or "not run yet")."""
    disagreements: dict[str, tuple[Disagreement, ...]] = field(default_factory=dict)
    """By the title of the comparison."""


def write(report: Report, folder: Path) -> None:
    """Write `report.md` and `report.html`, which needs no other file, each whole or not at all."""
    from vlm_jax.ablation.page import page

    RunFolder(folder).write_text("report.md", markdown(report))
    RunFolder(folder).write_text("report.html", page(report))


def lead(report: Report) -> str:
    """What was found, as the study's file says it: a person wrote that of all runs, and not of some of them."""
    if not report.finding:
        return NO_FINDING
    return LEFT_OUT if report.unfinished else f"{WRITTEN} {report.finding}"


def methods(report: Report) -> str:
    """How the numbers came about, in a few sentences."""
    level = report.metadata.get("level")
    shown = f"{100 * level:g} %" if level else f"level {MISSING}"
    return (
        "The seed is the unit: every number is a mean over seeds, each the score of one run on the test split (or what "
        f"data.limit and data.evaluation_limit leave of it), with Student's interval of that mean ({shown}) and the "
        "standard deviation between seeds. Differences are of a variant and the first one, by Welch's t test with "
        "its interval and degrees of freedom; where both are uses of the same trainings, seed by seed, by Student's; "
        "p is adjusted for the number of variants by Holm's method, within each metric of each comparison, and a "
        "variant is called higher or lower only by the adjusted one; intervals and a permutation p, which Welch's "
        "differences have from six seeds on, are not adjusted. The first metric is what a comparison is about: the "
        "others are looked at beside it, and among many of them one may be called by chance; so may a difference whose "
        "seeds were added until it was. "
        "Not distinguishable does not mean equal: more seeds may tell them apart. "
        "Shares are in percent, their differences in percentage points; an interval knows nothing of the ends at 0 "
        "and 100."
    )


def provenance(report: Report) -> tuple[tuple[str, str], ...]:
    """(name, what is known) of everything the report was made with and on."""
    names = dict.fromkeys((*EXPECTED, *report.metadata))
    return tuple((name, format_value(report.metadata.get(name))) for name in names)


def matching(findings: Findings) -> str:
    """What the variants have alike, and what not."""
    common = ", ".join(f"{name}={format_value(value)}" for name, value in findings.common)
    of_all = f" Of all variants: {visible(common)}." if common else ""
    return f"Base: {visible(findings.base)}.{of_all} Alike: {visible(alike(findings))}."


def markdown(report: Report) -> str:
    """The report as text with tables."""
    parts = [f"# {_escaped(report.question)}", _escaped(lead(report))]
    parts += [FIGURES] * any(findings.differences for findings in report.tables)
    parts.append("## In short")
    parts.append("\n".join(_in_short(report.tables)) or "Nothing has been compared yet.")
    for findings in report.tables:
        parts += [f"## {_escaped(findings.title)}", _escaped(matching(findings))]
        for grid in grids(findings):
            parts += [f"### {_escaped(grid.title)}", _table(grid.head, grid.rows)]
        examples = report.disagreements.get(findings.title, ())
        if examples:
            parts += ["### Where they disagree", CHOSEN, _disagreements(examples)]
    if report.unfinished:
        rows = [(name, _cut(error)) for name, error in report.unfinished]
        parts += ["## Unfinished runs", _table(("run", "error"), rows)]
    parts += ["## Methods", methods(report), "## How this was made", _table(("what", "which"), provenance(report))]
    parts += ["Commands:", "\n".join(_code(report.commands)) or MISSING]
    return "\n\n".join(parts) + "\n"


def _in_short(tables: Iterable[Findings]) -> Iterable[str]:
    for findings in tables:
        for by_metric in verdicts(findings):
            beside = "" if by_metric.first else "beside it, "
            title, metric = _escaped(findings.title), _escaped(by_metric.metric)
            yield f"- {title}: {beside}{metric} against {_escaped(by_metric.base)}"
            for name, labels in by_metric.groups or ((ALONE, ()),):
                yield f"  - {_escaped(name)}" + (": " if labels else "") + _escaped("; ".join(labels))


def _disagreements(examples: Sequence[Disagreement]) -> str:
    labels = tuple(examples[0].hypotheses)
    has_questions = any(example.question for example in examples)
    rows = []
    for example in examples:
        hypotheses = (f"{MARKS[right]} {text}".strip() for text, right in example.hypotheses.values())
        question = (example.question,) * has_questions
        rows.append((*question, " / ".join(example.references) or MISSING, *hypotheses))
    return _table((*("question",) * has_questions, "reference", *labels), rows)


def _cut(text: str) -> str:
    one_line = visible(text)
    return one_line if len(one_line) <= LONGEST_ERROR else one_line[: LONGEST_ERROR - 1] + "…"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(entry if number == 1 else _escaped(entry) for entry in entries) + " |"
        for number, entries in enumerate(lines)
    )


def _escaped(text: str) -> str:
    """On one line, without cells, emphasis, code, HTML or links of its own."""
    return re.sub(r"([\\`*|~$]|<(?=[A-Za-z/!?])|(?<=\])\()", r"\\\1", visible(text))


def _code(commands: Iterable[str]) -> Iterable[str]:
    """Indented, which no content can end early."""
    return (f"    {visible(line)}" for command in commands for line in split_lines(command))
