"""What the plots of a comparison have in common: the looks of a variant, a legend, and SVG that is always the same."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vlm_jax.ablation.wording import amount
from vlm_jax.figures import fonts, wrap
from vlm_jax.text_lines import split_lines

# Okabe and Ito's colours (Color Universal Design, 2008), told apart by colour-blind people, without the yellow, which
# is too faint on white. With more variants than colours, lines are dashed, and no marker comes twice in a dozen.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":")
MARKERS = "osD^vP*X<>ph"
INK, FAINT, GRID = "#1f2328", "#6e7781", "#e5e8eb"
WIDTH = 7.6  # inches
LEGEND_LINE = 0.17  # inches
LEGEND_CHARACTERS = 52  # characters of a line: two columns of long labels
FAR_APART = 20  # largest cost by smallest from which on the axis is logarithmic


class Style(NamedTuple):
    """What a variant is drawn with, in every image."""

    colour: str
    dash: str
    marker: str


def style(number: int) -> Style:
    """Of the variant at a place."""
    dash = DASHES[number // len(PALETTE) % len(DASHES)]
    return Style(PALETTE[number % len(PALETTE)], dash, MARKERS[number % len(MARKERS)])


def whiskers(middle: float, low: float | None, high: float | None, scale: float) -> Float[np.ndarray, "2 1"] | None:
    """Lengths of an error bar to both sides, `[2, 1]`; None where there is no interval."""
    return None if low is None or high is None else np.maximum(0, [[middle - low], [high - middle]]) * scale


def marked(number: int) -> dict[str, object]:
    """How the point of the variant at a place looks, for `errorbar`."""
    looks = style(number)
    return {"fmt": looks.marker, "color": looks.colour, "markersize": 7, "elinewidth": 1.5, "capsize": 3}


def cost_axis(axes: "matplotlib.axes.Axes", costs: Sequence[float | int]) -> None:
    """Few ticks with prefixes, and powers apart where the costs are."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.margins(x=0.08)
    if max(costs) > FAR_APART * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(lambda value, _: amount(value))


def short(label: str, most: int) -> str:
    """A label on at most two lines of `most` characters."""
    return "\n".join(wrap(label, lambda line: len(line) <= most, lines=2)) or "-"


def _legend_shape(labels: Sequence[str]) -> tuple[int, int]:
    """Columns, and lines of text of the highest column."""
    entries = [split_lines(short(label, LEGEND_CHARACTERS)) for label in labels]
    longest = max(len(line) for lines in entries for line in lines)
    columns = max(1, min(len(entries), int(WIDTH / (0.5 + 0.063 * longest))))
    return columns, -(-len(entries) // columns) * max(map(len, entries))


Handles = list["matplotlib.artist.Artist"]
"""What a legend shows, in the order of its labels."""


def svg(paint: Callable[["matplotlib.axes.Axes"], Handles | None], height: float, labels: Sequence[str] = ()) -> str:
    """What `paint` plots, as an SVG document `height` inches high and a legend of these labels below it."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "vlm_jax",  # ids are random without it
        "svg.fonttype": "path",  # looks the same wherever it is read
        "text.parse_math": False,  # a label may hold dollar signs
        "font.family": fonts(),
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "text.color": INK,
        "axes.labelcolor": INK,
        "hatch.linewidth": 0.6,
    }
    columns, lines = _legend_shape(labels) if labels else (0, 0)
    file = io.StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it is drawn as a box
        figure = Figure(figsize=(WIDTH, height + LEGEND_LINE * lines), layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        handles = paint(figure.add_subplot())
        if labels:
            shown, looks = [short(label, LEGEND_CHARACTERS) for label in labels], {"frameon": False, "fontsize": 8}
            figure.legend(handles, shown, loc="outside lower left", ncols=columns, borderaxespad=0.2, **looks)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
