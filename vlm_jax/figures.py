"""Images a person would like to look at: a contact sheet of questions and answers."""

import bisect
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

RIGHT, WRONG, INK, FAINT = "#1a7f37", "#c62828", "#1f2328", "#6e7781"
PAPER, CARD, EDGE, MAT = "#f6f8fa", "white", "#d0d7de", "#eaeef2"
COLUMNS = 6
# Inches. A card is a square image above two lines of question, the answer and the reference.
CARD_WIDTH, TEXT_HEIGHT, GAP, HEADER, PADDING = 2.0, 1.0, 0.16, 0.62, 0.1
LINE, DPI = 0.165, 110
# matplotlib brings DejaVu Sans; where one of these is installed, it draws what that lacks.
WIDER_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai")


class Card(NamedTuple):
    """One image and what was said of it."""

    image: UInt8[np.ndarray, "h w 3"]
    question: str
    """Empty where nothing was asked: then the prediction has its room."""
    prediction: str
    probability: float | None
    answers: tuple[str, ...]
    """The reference answers; none where nobody knows."""
    correct: bool | None


def plot_contact_sheet(items: Sequence[Card], path: Path, *, title: str) -> None:
    """Write a PNG of cards: an image, its question, the answer given, right or wrong, and the reference answer."""
    columns = min(COLUMNS, max(2, len(items)))
    rows = -(-max(1, len(items)) // columns)
    width = GAP + columns * (CARD_WIDTH + GAP)
    height = HEADER + rows * (CARD_WIDTH + TEXT_HEIGHT + GAP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that no font has is drawn as a box
        canvas = _Canvas(width, height)
        canvas.text(title, GAP, height - 0.42, width - 2 * GAP, _Style(14.0, bold=True))
        for number, item in enumerate(items):
            row, column = divmod(number, columns)
            left = GAP + column * (CARD_WIDTH + GAP)
            canvas.card(item, left, height - HEADER - (row + 1) * (CARD_WIDTH + TEXT_HEIGHT + GAP) + GAP)
        canvas.figure.savefig(path)


def thumbnail(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image at twice the size that a card shows, or as it is where it is smaller: less to hold in memory."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((2 * round(CARD_WIDTH * DPI),) * 2)
    return np.asarray(image)


def fonts() -> list[str]:
    """The fonts to take glyphs from, in this order."""
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in WIDER_FONTS if name in installed)]


def side_by_side(*images: UInt8[np.ndarray, "h _ 3"]) -> UInt8[np.ndarray, "h _ 3"]:
    """Images of one height in a row, with a white gap between them."""
    gap = np.full((len(images[0]), max(1, len(images[0]) // 16), 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (gap, image)][1:], axis=1)


class _Style(NamedTuple):
    """The looks of a text; its size is in points."""

    size: float
    colour: str = INK
    bold: bool = False
    align: str = "left"
    lines: int = 1


class _Canvas:
    """A figure whose coordinates are inches from its lower left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
        self._renderer = FigureCanvasAgg(self.figure).get_renderer()
        self._fonts = fonts()

    def card(self, item: Card, left: float, bottom: float) -> None:
        """One item, its lower left corner at the given place."""
        colour = {True: RIGHT, False: WRONG, None: FAINT}[item.correct]
        below = bottom + TEXT_HEIGHT
        self._box(left, bottom, CARD_WIDTH, CARD_WIDTH + TEXT_HEIGHT, CARD, edge=EDGE)
        self._box(left, below, CARD_WIDTH, CARD_WIDTH, MAT)
        self._image(item.image, left, below)
        self._box(left, below - 0.05, CARD_WIDTH, 0.05, colour)
        left, max_width = left + PADDING, CARD_WIDTH - 2 * PADDING
        mark = {True: "✓ ", False: "✗ ", None: ""}[item.correct]
        sure = "" if item.probability is None else f"{item.probability:.0%}"
        ink = INK if item.correct is None else colour
        if item.question:
            self.text(item.question, left, below - 0.23, max_width, _Style(8.5, lines=2))
            answer = _Style(10.0, ink, bold=True, lines=1 if item.answers else 2)
            self.text(mark + item.prediction, left, bottom + 0.32, max_width - 0.36 * bool(sure), answer)
        else:
            self.text(mark + item.prediction, left, below - 0.22, max_width, _Style(8.5, ink, lines=3))
        self.text(sure, left + max_width, bottom + 0.32, 0.6, _Style(8.5, FAINT, align="right"))
        if item.answers:
            reference = max(set(item.answers), key=lambda answer: (item.answers.count(answer), answer))
            lines = 1 if item.question else 2
            first = bottom + 0.11 + (lines - 1) * LINE
            self.text(f"reference: {reference}", left, first, max_width, _Style(8.0, FAINT, lines=lines))

    def text(self, text: str, left: float, bottom: float, max_width: float, style: "_Style") -> None:
        """Lines of text from a base line downwards, wrapped and cut to the room that there is."""
        from matplotlib.font_manager import FontProperties

        weight = "bold" if style.bold else "normal"
        font = FontProperties(family=self._fonts, size=style.size, weight=weight)

        def fits(line: str) -> bool:
            pixels = self._renderer.get_text_width_height_descent(line, font, ismath=False)[0]
            return pixels <= max_width * self.figure.dpi

        looks = {"fontproperties": font, "color": style.colour, "ha": style.align, "va": "baseline"}
        for number, line in enumerate(wrap(text, fits, lines=style.lines)):
            x, y = self._place(left, bottom - number * LINE)
            self.figure.text(x, y, line, parse_math=False, **looks)

    def _image(self, image: np.ndarray, left: float, bottom: float) -> None:
        axes = self.figure.add_axes((*self._place(left, bottom), *self._place(CARD_WIDTH, CARD_WIDTH)))
        axes.imshow(image, interpolation="nearest" if max(image.shape[:2]) <= 128 else "antialiased")
        axes.axis("off")

    def _box(self, left: float, bottom: float, width: float, height: float, colour: str, *, edge: str = "none") -> None:
        from matplotlib.patches import Rectangle

        corner, size = self._place(left, bottom), self._place(width, height)
        # Below zero: behind the images, which are axes of order 0.
        self.figure.add_artist(Rectangle(corner, *size, facecolor=colour, edgecolor=edge, linewidth=0.8, zorder=-1))

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return x / self.figure.get_figwidth(), y / self.figure.get_figheight()


def wrap(text: str, fits: Callable[[str], bool], *, lines: int) -> list[str]:
    """At most `lines` lines that fit, broken at spaces where possible; a text that is cut ends in an ellipsis."""
    rest = visible(text[: 200 * lines])  # no line of a sheet has room for more
    result: list[str] = []
    while rest and len(result) < lines:
        last = len(result) == lines - 1
        if fits(rest):
            return [*result, rest]
        ending = "…" if last else ""
        # The longest beginning that fits; at least one character, so that every line gets on.
        most = max(1, bisect.bisect_left(range(len(rest)), True, key=lambda end: not fits(rest[:end] + ending)) - 1)
        space = rest.rfind(" ", 0, most + 1)
        end = most if last or space <= 0 else space
        result.append(rest[:end].rstrip() + ending)
        rest = rest[end:].lstrip()
    return result


def visible(text: str) -> str:
    """The text on one line: runs of white space as one space, nothing that cannot be drawn."""
    printable = ("" if unicodedata.category(c) == "Cf" else c if c.isprintable() else " " for c in text)
    return " ".join("".join(printable).split())
