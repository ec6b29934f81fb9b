"""The report of a study as one HTML page that needs nothing else: no script, no font, no file beside it."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

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

CSS = """
:root { --ink: #1f2328; --faint: #59636e; --paper: #f6f8fa; --card: #fff; --edge: #d0d7de; --accent: #0550ae;
  --accent-soft: #ddf4ff; --right: #1a7f37; --wrong: #c62828; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9198a1; --paper: #0d1117; --card: #161b22;
  --edge: #30363d; --accent: #79c0ff; --accent-soft: #12263f; --right: #56d364; --wrong: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; margin: 3rem 0 .3rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.lead { font-size: 1.15rem; max-width: 46rem; }
.faint, figcaption { color: var(--faint); font-size: .88rem; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 1rem 1.2rem;
  margin: 1rem 0; }
.card h3 { margin: 0 0 .4rem; }
.groups { margin: .3rem 0 .8rem; padding: 0; list-style: none; }
.groups li { display: flex; flex-wrap: wrap; align-items: baseline; margin: .35rem 0; overflow-wrap: anywhere; }
.groups li div { flex: 1 1 24rem; }
.pill { display: inline-block; border-radius: 99px; padding: 0 .65em; margin-right: .4em; font-size: .88rem;
  border: 1px solid var(--edge); color: var(--faint); white-space: nowrap; }
.pill.called { background: var(--accent-soft); border-color: var(--accent); color: var(--accent); font-weight: 600; }
.who { display: inline-block; margin-right: .9em; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem .7rem; border-bottom: 1px solid var(--edge); vertical-align: top; }
th { font-weight: 600; color: var(--faint); font-size: .82rem; }
tr:last-child td { border-bottom: 0; }
td { white-space: nowrap; }
td .pill { white-space: normal; border-radius: 10px; }
td.text { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
td.missing { color: var(--faint); font-style: italic; }
.chip { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .5em; border: 2px solid; }
figure { margin: 1rem 0; background: #fff; border: 1px solid var(--edge); border-radius: 10px; padding: .9rem; }
figure img { display: block; width: 100%; max-width: 52rem; height: auto; margin: 0 auto; }
figcaption { color: #59636e; margin-top: .5rem; }
.examples { display: flex; flex-wrap: wrap; gap: 1rem; }
.example { flex: 0 1 15.2rem; background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: .8rem; font-size: .9rem; }
.example img { display: block; width: 100%; max-width: 160px; margin: 0 auto .6rem; border-radius: 4px; }
.example dl { margin: .4rem 0 0; display: grid; grid-template-columns: auto 1fr; gap: .15rem .6rem; }
.example dt { color: var(--faint); overflow-wrap: anywhere; max-width: 9.5rem; }
.example dd { margin: 0; overflow-wrap: anywhere; }
.right { color: var(--right); } .wrong { color: var(--wrong); }
pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0; font-size: .84rem; }
details { margin-top: 2rem; } summary { cursor: pointer; font-weight: 600; }
"""


def page(report: Report) -> str:
    """The whole document."""
    parts = [f"<h1>{_text(report.question)}</h1>"]
    parts.append(f'<p class="lead">{_text(lead(report))}</p>')
    parts += [_in_short(findings) for findings in report.tables]
    for findings in report.tables:
        parts.append(_comparison(findings, report.disagreements.get(findings.title, ())))
    if report.unfinished:
        parts += ["<h2>Unfinished runs</h2>", *(_unfinished(*run) for run in report.unfinished)]
    parts += ["<h2>Methods</h2>", f"<p>{_text(methods(report))}</p>", _provenance(report)]
    # The policy holds the page to its own content, whatever a text in it may try.
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{_text(report.question)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _in_short(findings: Findings) -> str:
    groups = "".join(map(_verdicts, verdicts(findings)))
    return f'<section class="card"><h3>{_text(findings.title)}</h3>{groups}</section>'


def _verdicts(by_metric: Verdicts) -> str:
    groups = by_metric.groups or ((ALONE, ()),)
    lines = (f"<li>{_pill(name)}<div>{''.join(map(_who, labels))}</div></li>" for name, labels in groups)
    compared = (
        "" if by_metric.first else "beside it, "
    ) + f"{_text(by_metric.metric)} against <b>{_text(by_metric.base)}</b>"
    return f'<p>{compared}</p><ul class="groups">{"".join(lines)}</ul>'


def _who(label: str) -> str:
    return f' <span class="who">{_text(label)}</span>'


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
