"""Pictures a person would like to look at: a sheet of questions and answers."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

RIGHT, WRONG, INK, FAINT = "#1a7f37", "#c62828", "#1f2328", "#6e7781"
COLUMNS = 6


class SheetItem(NamedTuple):
    """One answered question."""

    image: UInt8[np.ndarray, "h w 3"]
    question: str
    prediction: str
    probability: float | None
    answers: tuple[str, ...]
    """The reference answers; none where nobody knows."""
    correct: bool | None


def predictions_sheet(items: Sequence[SheetItem], path: Path, *, title: str) -> None:
    """Write a PNG contact sheet: each picture with its question, the answer given, and the reference where it is wrong."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(1, len(items)))
    rows = -(-max(1, len(items)) // columns)
    figure = Figure(figsize=(max(4.0, 2.1 * columns), 2.75 * rows + 0.5), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(title, 90, 1), fontsize=12, color=INK, x=0.5, y=1 - 0.18 / figure.get_figheight())
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, item in zip(grid.flat, items, strict=False):
        _draw(axes, item)
    for axes in grid.flat[len(items) :]:
        axes.axis("off")
    top = 1 - 0.95 / figure.get_figheight()
    figure.subplots_adjust(left=0.02, right=0.98, top=top, bottom=0.38 / figure.get_figheight(), hspace=0.62, wspace=0.12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph no font has is drawn as a box
        figure.savefig(path)


def _draw(axes, item: SheetItem) -> None:
    axes.imshow(item.image, interpolation="nearest" if max(item.image.shape[:2]) <= 128 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    colour = {True: RIGHT, False: WRONG, None: FAINT}[item.correct]
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2)
    axes.set_title(_plain(item.question, 27, 2), fontsize=8, color=INK, pad=5)
    mark = {True: "✓ ", False: "✗ ", None: ""}[item.correct]
    sure = "" if item.probability is None else f"  {item.probability:.0%}"
    axes.set_xlabel(mark + _plain(item.prediction, 20, 1) + sure, fontsize=9, color=colour, fontweight="bold", labelpad=4)
    if item.correct is False and item.answers:
        reference = max(set(item.answers), key=lambda answer: (item.answers.count(answer), answer))
        axes.text(
            0.5, -0.21, f"answer: {_plain(reference, 20, 1)}", transform=axes.transAxes, ha="center", va="top",
            fontsize=8, color=FAINT,
        )  # fmt: skip


def _plain(text: str, width: int, lines: int) -> str:
    """At most `lines` lines, cut with an ellipsis; no control characters, and no dollar starts a formula."""
    visible = "".join(c if c.isprintable() else " " for c in text[: 4 * width * lines])
    wrapped = textwrap.wrap(visible, width, max_lines=lines, placeholder=" …", break_long_words=True)
    return "\n".join(wrapped).replace("$", r"\$")
