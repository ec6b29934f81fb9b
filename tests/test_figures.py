"""The sheet of predictions: real images, any text, any number of items, right and wrong by colour."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_jax.figures import RIGHT, WRONG, Card, plot_contact_sheet, visible, wrap

INCH = 110


def image(number):
    import easy_vqa

    file = Path(easy_vqa.__file__).parent / "data" / "train" / "images" / f"{number}.png"
    return np.asarray(Image.open(file).convert("RGB"))


def item(number=0, **changes):
    values = {
        "question": "is there a circle?",
        "prediction": "yes",
        "probability": 0.9,
        "answers": ("yes",),
        "correct": True,
    }
    return Card(image=image(number), **(values | changes))


def plot(path, items, title="quickstart, test: 97.3% right"):
    plot_contact_sheet(items, path, title=title)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def has(pixels, colour):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (pixels == rgb).all(-1)


@pytest.mark.parametrize(("count", "columns", "rows"), [(0, 2, 1), (1, 2, 1), (6, 6, 1), (7, 6, 2), (24, 6, 4)])
def test_any_number_of_items_has_its_size(tmp_path, count, columns, rows):
    pixels = plot(tmp_path / "sheet.png", [item(number) for number in range(count)])
    assert pixels.shape[1] == pytest.approx((0.16 + 2.16 * columns) * INCH, abs=2)
    assert pixels.shape[0] == pytest.approx((0.62 + 3.16 * rows) * INCH, abs=2)
    # One green stripe as wide as a card under each image.
    stripes = [(run >= 2 * INCH - 4) for run in has(pixels, RIGHT).sum(1)]
    assert any(stripes) == (count > 0)
    assert has(pixels, RIGHT).sum(1).max() == pytest.approx(min(count, 6) * 2 * INCH, abs=12)


def test_the_image_is_sharp_and_keeps_its_colours(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2, ::2] = (10, 200, 30)
    image[1::2, 1::2] = (250, 20, 220)
    pixels = plot(tmp_path / "sheet.png", [item()._replace(image=image)])
    for colour in ("#0ac81e", "#fa14dc"):
        # Each source pixel is a square of half an inch in one colour: nothing is blurred, nothing covers it.
        assert has(pixels, colour).sum() == pytest.approx(4 * (INCH / 2) ** 2, rel=0.05)


def test_right_is_green_and_wrong_is_red(tmp_path):
    right = plot(tmp_path / "right.png", [item(correct=True)])
    wrong = plot(tmp_path / "wrong.png", [item(correct=False)])
    unknown = plot(tmp_path / "unknown.png", [item(correct=None, answers=(), probability=None)])
    assert [has(pixels, RIGHT).any() for pixels in (right, wrong, unknown)] == [True, False, False]
    assert [has(pixels, WRONG).any() for pixels in (right, wrong, unknown)] == [False, True, False]


@pytest.mark.parametrize(
    "change", [{"question": "other?"}, {"prediction": "no"}, {"probability": 0.5}, {"answers": ("red",)}]
)
def test_every_text_stays_inside_its_card(tmp_path, change):
    plain = plot(tmp_path / "a.png", [item()])
    changed = np.argwhere((plot(tmp_path / "b.png", [item(**change)]) != plain).any(-1))
    assert len(changed)
    below, right = changed.min(0)[0], changed.max(0)[1]
    assert below > (0.62 + 2) * INCH - 2  # under the image
    assert right < (0.16 + 2) * INCH


@pytest.mark.parametrize(
    "text",
    [
        "does it cost $5 or $6_x^{2?",
        r"\frac{1}{0} $\undefined$ %s {} \n",
        "האם יש עיגול בתמונה?",
        "هل توجد دائرة؟ " * 20,
        "画像の中に三角形はありますか" * 10,
        "W" * 5000,
        "a " * 5000,
        "line\nbreak\ttab\r\x00\x07\x1b[31m",
        "half a pair \ud83d and 👩‍👩‍👧‍👦 \u202eright to left",
        "e" + "\u0301" * 500,
        "\U0001f9ff\U000e0001\uffff\u0378",
        "",
        "   ",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_any_text_can_be_plotted(tmp_path, text):
    empty = plot(tmp_path / "a.png", [item(question="", prediction="", answers=("",)), item()], title="")
    pixels = plot(tmp_path / "b.png", [item(question=text, prediction=text, answers=(text,)), item()], title=text)
    card = slice(int((0.62 - 0.05) * INCH), None), slice(int((0.16 + 2) * INCH) + 3, None)
    assert (pixels[card] == empty[card]).all(), "text runs into the next card"


def test_a_dollar_is_a_dollar(tmp_path):
    """As a formula, the dollars would vanish and leave what the bare digits leave."""
    blank = plot(tmp_path / "a.png", [item(question=" ")])
    priced, bare = (plot(tmp_path / "b.png", [item(question=text)]) for text in ("$5$ $5$ $5$", "5 5 5"))
    assert (priced != blank).any(-1).sum() > 2 * (bare != blank).any(-1).sum()


def test_without_a_question_a_long_prediction_fits(tmp_path):
    caption = "a large blue square left of a small red circle and a small green star"
    below = slice(int((0.62 + 2) * INCH), None)
    with_question, alone = (
        plot(tmp_path / "a.png", [item(question=question, prediction=caption, answers=("x",))])
        for question in (" ", "")
    )
    ink = [(pixels[below] < 128).any(-1).sum() for pixels in (with_question, alone)]
    assert ink[1] > 1.2 * ink[0]  # several smaller lines instead of one that is cut


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (40, 300), (700, 500)])
def test_images_of_any_shape_stay_in_their_square(tmp_path, shape):
    image = np.full((*shape, 3), (255, 0, 255), np.uint8)
    pixels = has(plot(tmp_path / "sheet.png", [item()._replace(image=image)]), "#ff00ff")
    rows, columns = np.nonzero(pixels.any(1))[0], np.nonzero(pixels.any(0))[0]
    for pixels_inside in (rows, columns):
        if len(pixels_inside):  # a line thinner than a dot may vanish
            assert pixels_inside.max() - pixels_inside.min() <= 2 * INCH
    if min(shape) > 1:
        assert len(rows) / len(columns) == pytest.approx(shape[0] / shape[1], rel=0.1)


def test_the_most_frequent_reference_is_shown(tmp_path):
    several = plot(tmp_path / "a.png", [item(answers=("red", "teal", "teal"))])
    assert (several == plot(tmp_path / "b.png", [item(answers=("teal",))])).all()


def test_the_same_contact_sheet_is_the_same_file(tmp_path):
    plot(tmp_path / "a.png", [item(1), item(2)])
    plot(tmp_path / "b.png", [item(1), item(2)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_global_state_of_matplotlib_is_used(tmp_path):
    code = (
        "import sys; from pathlib import Path; from vlm_jax.figures import plot_contact_sheet\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_contact_sheet([], Path({str(tmp_path / 'sheet.png')!r}), title='a')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=True, timeout=60)


def test_wrap_breaks_at_spaces_and_cuts_with_an_ellipsis():
    def short(line):
        return len(line) <= 10

    assert wrap("is there a circle?", short, lines=2) == ["is there a", "circle?"]
    assert wrap("is there a big circle here?", short, lines=2) == ["is there a", "big circl…"]
    assert wrap("abcdefghijklmnop", short, lines=2) == ["abcdefghij", "klmnop"]
    assert wrap("abcdefghijk", short, lines=1) == ["abcdefghi…"]
    assert wrap("abc", lambda line: False, lines=3) == ["a", "b", "c…"]
    assert wrap("", short, lines=2) == []


def test_visible_keeps_words_and_drops_unprintable_characters():
    assert visible(" a\n\tb\x00c\u200b\ud83dd ") == "a b c d"
