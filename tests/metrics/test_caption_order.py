"""Captions are cut as one text: by their order, as the official tokenizer does, which may look over a line's end."""

import gzip
import json
import shutil
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_jax.metrics.captions import cider_d, cider_d_per_item, exact_match, official_tokens, score_captions
from vlm_jax.metrics.ptb_tokens import ptb_tokenize, ptb_tokenize_all

GOLDENS = Path(__file__).parents[1] / "goldens" / "caption_order.json.gz"
BEGINNINGS = ("A sign", "The letter", "It says", "there is", "An old plan", "Mr. Lee", "you see", "5 boys", "At dawn,")
BEGINNINGS += ("12 cats", "No. 9", "<b> bold", "YET another", "What now?", "Mrs. Lee", "here", "1/2 of it", "He's")
ENDS = ("L.", "vitamin B.", "plan b", "the U.S.", "U.S", "at 5 p.m.", "an a.m", "on Jan.", "etc.", "Main St.", "no.")
ENDS += ("bus No.", "figs.", "Prop.", "the year '99", "'99.", "7", "room 12.", "3.5", "$5.", "Jr.", "Mr.", "P.S.")
ENDS += ("Ph.D.", "e.g.", "vs.", "x.", "I.", "the 4th.", "10-4.", "1,000", "size M", "type O!", "grade A?", "No. 3.")
ENDS += (
    "apt.",
    "Co.",
    "Inc.",
    "a.pdf",
    "q. ",
    "Z.  ",
    "art.",
    "the pp.",
    "Mt.",
    "sq. ft.",
    "U.K.,",
    "B.B.",
    "C++",
    "9's",
)
ENDS += ("the 50s.", "W.", "ex.", "Calif.", "number one", "No.1", "A.D.", "K", "J.", "AM.", "dept.", "ser.", "y.")


def made_captions():
    """1,116 captions that end in a letter, a number or an abbreviation, beginning in as many ways as decide."""
    return [f"{beginning} {end}" for beginning, end in product(BEGINNINGS, ENDS)]


def orders(count):
    return [np.arange(count), *(np.random.default_rng(seed).permutation(count) for seed in range(3))]


@pytest.fixture(scope="module")
def golden():
    """Captions, orders, and of each order what the original makes of the captions, in their own order."""
    with gzip.open(GOLDENS, "rt", encoding="utf-8") as file:
        read = json.load(file)
    assert len(read["captions"]) == 200 and len(read["orders"]) == len(read["tokens"]) == 4
    return read


def test_the_golden_captions_are_cut_in_every_order_as_the_original_cuts_them(golden):
    captions = golden["captions"]
    for order, tokens in zip(golden["orders"], golden["tokens"], strict=True):
        assert ptb_tokenize_all([captions[place] for place in order]) == tokens
    cut = [dict(zip(*pair, strict=True)) for pair in zip(golden["orders"], golden["tokens"], strict=True)]
    assert sum(len({tokens[place] for tokens in cut}) > 1 for place in range(200)) > 20, "the order decides nothing"


def test_more_than_a_thousand_captions_are_cut_as_the_original_cuts_them():
    official = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    if shutil.which("java") is None:
        pytest.skip("no java on the path")
    captions = made_captions()
    assert len(captions) > 1000
    for order in orders(len(captions)):
        shuffled = [captions[place] for place in order]
        expected = official.tokenize({place: [{"caption": caption}] for place, caption in enumerate(shuffled)})
        assert ptb_tokenize_all(shuffled) == [expected[place][0] for place in range(len(shuffled))]


@pytest.mark.parametrize(
    ("captions", "words"),
    [
        (["the letter L.", "The cat"], ["the letter l", "the cat"]),
        (["the letter L.", "the cat"], ["the letter l.", "the cat"]),
        (["the letter L.", "THE cat"], ["the letter l", "the cat"]),
        (["the letter L.", "The"], ["the letter l.", "the"]),  # nothing follows: not the word "The" yet
        (["the letter L.", "The", ""], ["the letter l", "the", ""]),
        (["the letter L.", "The!", "x"], ["the letter l.", "the", "x"]),
        (["the letter L. ", "", " ", "\tThe\u3000cat"], ["the letter l", "", "", "the cat"]),
        (["the letter L.", "<b> cat"], ["the letter l", "<b> cat"]),
        (["the letter L.", "<!a (b)> cat"], ["the letter l", "<!a\xa0(b)> cat"]),
        (["room no.", "5 cats"], ["room no.", "5 cats"]),
        (["room no.", " 5 cats"], ["room no", "5 cats"]),
        (["room no. ", "5 cats"], ["room no", "5 cats"]),
        (["room no.", "cats"], ["room no", "cats"]),
        (["summer of '99", "x"], ["summer of '99", "x"]),
        (["x", "summer of '99"], ["x", "summer of 99"]),  # the end of the text is no white space
        (["a <b c='d e", "f'> g", "h"], ["a <b\xa0c='d\xa0e", "f'> g", "h"]),  # a word of two lines
        (["a <!-- b", "c --> d"], ["a < b", "c > d"]),
        (["3", "1/2"], ["3", "1/2"]),
    ],
)
def test_rules_across_line_ends(captions, words):
    assert ptb_tokenize_all(captions) == words


TEXTS = st.text(st.characters(exclude_categories=()) | st.sampled_from("aZ1BTA .,'-/@&:;!?\"$#_(<>=+*`\n"), max_size=20)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, max_size=6))
def test_any_captions_keep_their_number(captions):
    words = ptb_tokenize_all(captions)
    assert len(words) == len(captions)
    assert ptb_tokenize_all([*captions, ""])[:-1] == ptb_tokenize_all([*captions, "", ""])[:-2]
    assert [ptb_tokenize(caption) for caption in captions] == [
        ptb_tokenize_all([caption, "", "x"])[0] for caption in captions
    ]


def test_scores_of_raw_captions_are_the_official_ones(golden):
    """Hypotheses are one text and references another, in order: cut one by one, the same captions have other scores."""
    hypotheses, references = golden["corpus"]["hypotheses"], golden["corpus"]["references"]
    scores = score_captions(hypotheses, references)
    assert {name: scores[name] for name in golden["corpus"]["scores"]} == pytest.approx(
        golden["corpus"]["scores"], abs=1e-12
    )
    alone = (
        [ptb_tokenize(caption) for caption in hypotheses],
        [[ptb_tokenize(caption) for caption in item] for item in references],
    )
    assert abs(scores["cider_d"] - cider_d(*alone)) > 0.05
    items = cider_d_per_item(*official_tokens(hypotheses, references))
    assert items.mean() == pytest.approx(scores["cider_d"], abs=1e-12)


def test_equal_captions_match_whatever_follows_them():
    hypotheses = ["The letter L.", "The letter L.", "The letter L."]
    references = [["The letter L.", "the"], ["The letter L.", "The"], ["The letter L.", "A"]]
    scores = score_captions(hypotheses, references)
    assert scores["exact_match"] == scores["identical_share"] == 1.0
    words, truth = official_tokens(hypotheses, references)
    assert words == ["the letter l", "the letter l", "the letter l."]
    assert exact_match(words, truth) < 1


@pytest.mark.parametrize("unit", ["B.", "B. <!a", "no.", "<a b='", "www.-;", "a%", "", "  ", "The", "<!a >x B."])
def test_many_captions_take_linear_time(unit):
    """Fifty thousand characters, twice: what looks over a line's end does not look on for ever."""
    count = 50_000 // max(1, len(unit))
    begin = time.process_time()
    assert len(ptb_tokenize_all([unit] * count)) == count
    assert len(ptb_tokenize_all([" ".join([unit] * count)])) == 1
    assert time.process_time() - begin < 2


def test_a_million_characters_in_captions():
    begin = time.process_time()
    assert ptb_tokenize_all(["A dog by the letter L."] * 45_000) == ["a dog by the letter l"] * 44_999 + [
        "a dog by the letter l."
    ]
    assert time.process_time() - begin < 10
