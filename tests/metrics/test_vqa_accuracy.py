"""VQA accuracy against the official evaluation: its answers on real questions, then each of its oddities by name."""

import gzip
import hashlib
import json
import time
from pathlib import Path

import pytest

from vlm_jax.metrics.vqa_accuracy import _APOSTROPHES, lenient_vqa_accuracy, normalize_answer, vqa_accuracy

GOLDENS = Path(__file__).parents[1] / "goldens" / "vqa_gold.json.gz"


@pytest.fixture(scope="module")
def official():
    with gzip.open(GOLDENS, "rt", encoding="utf-8") as file:
        return json.load(file)


def test_every_official_accuracy_is_met_exactly(official):
    cases = official["cases"]
    ours = [100 * vqa_accuracy(case["prediction"], case["answers"]) for case in cases]
    wrong = [(case, score) for case, score in zip(cases, ours, strict=True) if score != case["accuracy"]]
    assert len(cases) == 1254 and not wrong, wrong[:5]
    assert sum(ours) / len(ours) == pytest.approx(62.791069, abs=1e-6)


def test_every_official_normalisation_is_met_exactly(official):
    pairs = official["normalise"]
    wrong = [(raw, normalize_answer(raw), expected) for raw, expected in pairs if normalize_answer(raw) != expected]
    assert len(pairs) == 1467 and not wrong, wrong[:5]


def test_lenient_is_another_number_and_never_the_lower_one(official):
    higher = 0
    for case in official["cases"]:
        strict = vqa_accuracy(case["prediction"], case["answers"])
        lenient = lenient_vqa_accuracy(case["prediction"], case["answers"])
        assert lenient == strict if not case["unanimous"] else lenient >= strict
        higher += lenient > strict
    assert higher > 20


@pytest.mark.parametrize(
    "raw, compared",
    [
        # Punctuation becomes a space, ...
        ("red/white", "red white"),
        ("n/a", "n"),  # ... so this loses its "a", an article by now;
        ("black-and-white", "black and white"),
        # or nothing, at every place, once the same mark touches a space at any place, ...
        ("red/white / blue", "redwhite blue"),
        ("red, white,blue", "red whiteblue"),
        ("red/white\t/blue", "redwhite blue"),  # ... which a tab was, ...
        ("red/white\n/blue", "redwhite blue"),  # ... and a line break,
        ("red/white\r/blue", "red white blue"),  # ... and a carriage return was not,
        ("red/white\u00a0/blue", "red white blue"),  # ... nor a space of another kind;
        (" /red/white ", "red white"),  # ... the text is trimmed first.
        # Digit, comma, digit glues every mark, not the comma alone, and in every script.
        ("1,000", "1000"),
        ("1,000 red/white", "1000 redwhite"),
        ("٣,٤ red/white", "٣٤ redwhite"),
        # What is no punctuation here.
        ("4:30", "4:30"),
        ("man's", "man's"),
        ("50%&#$*~|^", "50%&#$*~|^"),
        ("“yes”", "“yes”"),
        # Full stops go, except before a digit, and 32 of them at most.
        ("u.s.a.", "usa"),
        ("2.5.", "2.5"),
        ("..5", ".5"),
        ("." * 32 + "yes", "yes"),
        ("." * 33 + "yes", ".yes"),
        ("." * 40 + "yes" + ".", "." * 8 + "yes."),
        # Words: lower case, numbers, articles, apostrophes.
        ("The TWO of a kind", "2 of kind"),
        ("None", "0"),
        ("ten eleven", "10 eleven"),
        ("a the an", ""),
        ("dont", "don't"),
        ("Im", "im"),  # in the official table, but with a capital that is gone by now
        ("couldntve couldnt've couldn'tve", "couldntve couldn't've couldn't've"),
        ("somebody'd", "somebodyd"),
        ("its hed shed", "its he'd shed"),
        ("yes\nno", "yes no"),
        ("  many \u2003 spaces\x1c!", "many spaces"),
        # Any text.
        ("", ""),
        (" \n\t ", ""),
        ("é 日本 🙂 \ud800", "é 日本 🙂 \ud800"),
        ("İ", "i\u0307"),
    ],
)
def test_each_oddity_of_normalisation(raw, compared):
    assert normalize_answer(raw) == compared


def test_the_contractions_are_the_official_ones():
    """All 114 entries that have an effect, by their hash: it was computed from the official table."""
    table = sorted(f"{word} {normalize_answer(word)}" for word in _APOSTROPHES)
    digest = hashlib.sha256("\n".join(table).encode()).hexdigest()
    assert len(table) == 114
    assert digest == "f2c800b1132e79302dd72686ce8bba16120f1873f98a85561222e89317336e7a"


def people(**counts):
    return [answer for answer, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize("matches, accuracy", [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)])
def test_three_people_are_not_enough(matches, accuracy):
    """Each person is left out once, so that of three who agree with the model only two are left, three times in ten."""
    assert vqa_accuracy("yes", people(yes=matches, no=10 - matches)) == accuracy


def test_nothing_is_normalised_where_people_agree():
    assert vqa_accuracy("Yes", people(yes=10)) == 0.0 < lenient_vqa_accuracy("Yes", people(yes=10)) == 1.0
    assert vqa_accuracy("\tyes\n", people(yes=10)) == 1.0
    assert vqa_accuracy("Yes", [*people(yes=9), "yes."]) == 1.0  # one full stop is a disagreement
    assert vqa_accuracy("Yes", [*people(yes=9), " yes\n"]) == 0.0  # white space is none
    assert vqa_accuracy("two", ["two"] * 10) == 1.0
    assert vqa_accuracy("2", [*["two"] * 9, "one"]) == 1.0
    assert vqa_accuracy("The", [*["a"] * 9, "an"]) == 1.0  # all of them are articles, and nothing equals nothing


def test_few_people():
    for score in (vqa_accuracy, lenient_vqa_accuracy):
        assert score("yes", []) == 0.0
        assert score("", []) == 0.0
        assert score("yes", ["yes"]) == 0.0  # leaves nobody to agree with
        assert score("yes", ("yes", "yes")) == pytest.approx(1 / 3)
        assert score("yes", ["yes"] * 4) == 1.0
        assert isinstance(score("yes", ["yes"] * 4), float)


@pytest.mark.parametrize("unit", ["x", ".", ". ", "a ", "1,", "/", " /", "dont ", "'", "\n", ".5", "é", "one,two "])
def test_a_million_characters_take_linear_time(unit):
    text = unit * (1_000_000 // len(unit))
    begin = time.perf_counter()
    assert vqa_accuracy(text, [text, *people(yes=9)]) in (0.0, 0.3)
    assert time.perf_counter() - begin < 10  # quadratic time would be hours
