"""The report of a study as one HTML page that needs nothing else: no script, no font, no file beside it."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap
from pathlib import Path

from vlm_jax.ablation.canvas import Style, style
from vlm_jax.ablation.disagreements import Disagreement
from vlm_jax.ablation.plots import plots
from vlm_jax.ablation.records import Findings
from vlm_jax.ablation.report import ALONE, CHOSEN, MARKS, Report, lead, matching, methods, provenance
from vlm_jax.ablation.tables import Grid, Verdicts, grids, verdicts
from vlm_jax.ablation.wording import CALLED, MISSING
from vlm_jax.figures import visible
from vlm_jax.text_lines import split_lines

KINDS = {True: "right", False: "wrong", None: "unknown"}

CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def page(report: Report) -> str:
    """The whole document."""
    parts = [f"<h1>{_text(report.question)}</h1>", f'<p class="lead">{_text(lead(report))}</p>']
    parts += map(_in_short, report.tables)
    parts += (_comparison(table, report.disagreements.get(table.title, ())) for table in report.tables)
    if report.unfinished:
        parts += ["<h2>Unfinished runs</h2>", *starmap(_unfinished, report.unfinished)]
    parts += ["<h2>Methods</h2>", f"<p>{_text(methods(report))}</p>", _provenance(report)]
    # The policy holds the page to its own content, whatever a text in it may try.
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{_text(report.question)}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _in_short(findings: Findings) -> str:
    groups = "".join(map(_verdicts, verdicts(findings)))
    return f'<section class="card"><h3>{_text(findings.title)}</h3>{groups}</section>'


def _verdicts(by_metric: Verdicts) -> str:
    lines = []
    for name, labels in by_metric.groups or ((ALONE, ()),):
        who = "".join(f' <span class="who">{_text(label)}</span>' for label in labels)
        lines.append(f"<li>{_pill(name)}<div>{who}</div></li>")
    beside = "" if by_metric.first else "beside it, "
    compared = f"{beside}{_text(by_metric.metric)} against <b>{_text(by_metric.base)}</b>"
    return f'<p>{compared}</p><ul class="groups">{"".join(lines)}</ul>'


def _pill(verdict: str) -> str:
    return f'<span class="pill{" called" if verdict in CALLED else ""}">{_text(verdict)}</span>'


def _comparison(findings: Findings, examples: Sequence[Disagreement]) -> str:
    chips = {visible(row.label): style(number) for number, row in enumerate(findings.rows)}
    scores, *others = grids(findings)
    parts = [f"<h2>{_text(findings.title)}</h2>", f'<p class="faint">{_text(matching(findings))}</p>']
    parts += [_table(scores, chips), *(_figure(plot.caption, plot.svg) for plot in plots(findings))]
    parts += [_table(grid, chips) for grid in others]
    if examples:
        cards = "".join(map(_example, examples))
        parts.append(f'<h3>Where they disagree</h3><p class="faint">{CHOSEN}</p><div class="examples">{cards}</div>')
    return "\n".join(parts)


def _table(grid: Grid, chips: Mapping[str, Style]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in grid.head)
    rows = "".join(f"<tr>{''.join(_entries(row, grid.head, chips))}</tr>" for row in grid.rows)
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<h3>{_text(grid.title)}</h3>{table}"


def _entries(row: Sequence[str], head: Sequence[str], chips: Mapping[str, Style]) -> Iterable[str]:
    for name, entry in zip(head, row, strict=True):
        if name == "variant" and entry in chips:
            yield f'<td class="text">{_chip(chips[entry])}{_text(entry)}</td>'
        elif name == "verdict":
            yield f"<td>{_pill(entry)}</td>"
        else:
            kind = "missing" if entry == MISSING else "text" if len(entry) > 28 else ""
            yield f'<td class="{kind}">{_text(entry)}</td>' if kind else f"<td>{_text(entry)}</td>"


def _chip(variant_style: Style) -> str:
    fill = variant_style.colour if variant_style.dash == "-" else "transparent"  # hollow where the line is dashed
    return f'<span class="chip" style="background:{fill};border-color:{variant_style.colour}"></span>'


def _figure(caption: str, svg: str) -> str:
    source = _data_uri("image/svg+xml", svg.encode())
    return f'<figure><img src="{source}" alt="{_text(caption)}"><figcaption>{_text(caption)}</figcaption></figure>'


def _example(example: Disagreement) -> str:
    question = f"<b>{_text(example.question)}</b>" if example.question else ""
    hypotheses = "".join(
        f'<dt>{_text(label)}</dt><dd class="{KINDS[right]}">{MARKS[right]} {_text(text)}</dd>'
        for label, (text, right) in example.hypotheses.items()
    )
    reference = _text(" / ".join(example.references)) or MISSING
    image = f'<img src="{_data_uri("image/png", example.image)}" alt="">'
    return f'<div class="example">{image}{question}<dl><dt>reference</dt><dd>{reference}</dd>{hypotheses}</dl></div>'


def _unfinished(name: str, error: str) -> str:
    lines = "\n".join(map(visible, split_lines(error)))
    return f'<div class="card"><b>{_text(name)}</b><pre>{html.escape(lines)}</pre></div>'


def _provenance(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="text">{_text(value)}</td></tr>' for name, value in provenance(report)
    )
    commands = "\n".join(visible(line) for command in report.commands for line in split_lines(command))
    return (
        "<details><summary>How this was made: commit, versions, machine, commands</summary>"
        f'<div class="scroll card"><table><tbody>{rows}</tbody></table></div>'
        f'<div class="card"><h3>Commands</h3><pre>{html.escape(commands) or MISSING}</pre></div></details>'
    )


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _text(text: str) -> str:
    """On one line, as text and nothing else."""
    return html.escape(visible(text))
