"""Caption scores against the official scorers and sacreBLEU, each quirk by name, statistics by hand, and bad input."""

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_jax.errors import InputError
from vlm_jax.metrics import captions
from vlm_jax.metrics.captions import (
    caption_statistics,
    cider_d,
    cider_d_per_item,
    corpus_bleu,
    distinct_n,
    exact_match,
    rouge_l,
    score_captions,
)

GOLDENS = Path(__file__).parents[1] / "goldens" / "captions_gold.json.gz"
NAMES = {"bleu_1": "Bleu_1", "bleu_2": "Bleu_2", "bleu_3": "Bleu_3", "bleu_4": "Bleu_4"}
NAMES |= {"rouge_l": "ROUGE_L", "cider_d": "CIDEr-D"}


@pytest.fixture(scope="module")
def official():
    with gzip.open(GOLDENS, "rt", encoding="utf-8") as file:
        (corpus,) = json.load(file)["corpora"]
    assert corpus["n"] == len(corpus["hypotheses"]) == 1500
    return corpus


def test_every_official_score_of_the_corpus_is_met_from_raw_captions(official):
    scores = score_captions(official["hypotheses"], official["references"])
    for ours, official_name in NAMES.items():
        assert scores[ours] == pytest.approx(official["corpus"][official_name], abs=1e-12), ours
    statistics = ["distinct_1", "distinct_2", "vocabulary", "mean_length", "identical_share"]
    assert list(scores) == [*NAMES, "exact_match", *statistics]


def test_an_exact_match_is_one_with_any_reference_in_one_spelling():
    references = [["Woman  firefighter", "fire"], ["A cat.", "feline"], ["a dog", "pet"], ["it's", "x"]]
    hypotheses = ["woman firefighter", "a  CAT", "pet", "its"]
    assert score_captions(hypotheses, references)["exact_match"] == 0.75
    assert exact_match(["a cat", "pet"], [["a cat", "pet"], ["a dog", "pet"]]) == 1.0
    assert exact_match(["a cat", "dog"], [["a cat", "pet"], ["a dog", "pet"]]) == 0.5


def test_every_official_score_of_an_item_is_met(official):
    both = official["hypotheses_ptb"], official["references_ptb"]
    items = [([hypothesis], [references]) for hypothesis, references in zip(*both, strict=True)]
    ours = dict(zip(NAMES, np.array([corpus_bleu(*item) for item in items]).T, strict=False))
    ours |= {"rouge_l": np.array([rouge_l(*item) for item in items]), "cider_d": cider_d_per_item(*both)}
    for name, official_name in NAMES.items():
        np.testing.assert_allclose(ours[name], official["per_item"][official_name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_that_of_sacrebleu_where_nothing_is_smoothed(official, order):
    sacrebleu = pytest.importorskip("sacrebleu")
    hypotheses, references = official["hypotheses_ptb"][:300], official["references_ptb"][:300]
    scorer = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
    expected = scorer.corpus_score(hypotheses, list(zip(*references, strict=True))).score / 100
    assert corpus_bleu(hypotheses, references)[order - 1] == pytest.approx(expected, abs=1e-9)


def test_bleu_compares_with_the_closest_length_and_of_two_with_the_shorter():
    hypothesis = "a b c"
    assert corpus_bleu([hypothesis], [["a b", "a b c d"]])[0] == pytest.approx(1)  # compared with 2 words
    assert corpus_bleu([hypothesis], [["a b c d", "x"]])[0] == pytest.approx(np.exp(1 - 4 / 3))
    assert corpus_bleu([hypothesis], [["a b c d", "x y z"]])[0] == pytest.approx(1)


def test_bleu_sums_before_it_divides_and_clips_by_the_best_reference():
    hypotheses, references = ["a a a a", "b c"], [["a x a x", "a y y y"], ["b c"]]
    assert corpus_bleu(hypotheses, references)[0] == pytest.approx((2 + 2) / (4 + 2))


def test_bleu_of_few_words_is_tiny_and_not_zero():
    scores = corpus_bleu(["a b"], [["a b"]])
    assert scores[1] == pytest.approx(1, abs=1e-8)
    assert scores[3] == pytest.approx((1e-15 / 1e-9) ** (2 / 4), rel=1e-6)
    assert corpus_bleu([""], [["a"]]) == [0, 0, 0, 0]


def test_rouge_takes_the_best_of_both_and_knows_the_empty_word():
    # precision 1 of the first reference, recall 1 of the second
    assert rouge_l(["a b"], [["a b c d", "a"]]) == pytest.approx(1)
    assert rouge_l(["a x b"], [["a b y y"]]) == pytest.approx(2.44 * (2 / 3) * (2 / 4) / (2 / 4 + 1.44 * 2 / 3))
    assert rouge_l([""], [[""]]) == 1
    assert rouge_l([""], [["a"]]) == rouge_l(["b"], [["a"]]) == 0
    assert rouge_l(["a\u00a0b"], [["a b"]]) == 0  # one word, as in "3 1/2"; BLEU splits there
    assert corpus_bleu(["a\u00a0b"], [["a b"]])[1] == pytest.approx(1)


def test_cider_needs_a_corpus():
    assert cider_d(["a b"], [["a b"]]) == 0
    same = ["a dog runs far away", "one cat sleeps right here"]
    np.testing.assert_allclose(cider_d_per_item(same, [[caption] for caption in same]), [10, 10])
    half = cider_d_per_item(same, [[same[0], "z"], [same[1]]])  # the mean over references
    np.testing.assert_allclose(half, [5, 10])
    np.testing.assert_array_equal(cider_d_per_item(["", "a"], [[""], ["a"]]), [0, 2.5])  # one order of four


def test_cider_punishes_a_difference_in_length():
    long = cider_d_per_item(["a b c d e", "x"], [["a b c d e f g"], ["x y"]])[0]
    # by hand: cosines of n-grams that all are equally rare, times the penalty
    cosines = [matches / np.sqrt(matches * (matches + 2)) for matches in (5, 4, 3, 2)]
    assert long == pytest.approx(10 * np.mean(cosines) * np.exp(-(2**2) / (2 * 6**2)))


CAPTIONS = st.lists(st.sampled_from("abcd"), max_size=7).map(" ".join)
ITEMS = st.lists(st.tuples(CAPTIONS, st.lists(CAPTIONS, min_size=1, max_size=3)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(ITEMS, st.randoms())
def test_order_means_nothing(items, random):
    shuffled = [(hypothesis, random.sample(item, len(item))) for hypothesis, item in items]
    random.shuffle(shuffled)
    for score in (corpus_bleu, rouge_l, cider_d):
        before, after = (
            score([hypothesis for hypothesis, _ in pairs], [item for _, item in pairs]) for pairs in (items, shuffled)
        )
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12)
        assert np.all(np.asarray(before) >= 0) and np.all(np.asarray(before) <= (10 if score is cider_d else 1) + 1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=9), st.lists(st.sampled_from("abc"), max_size=9))
def test_common_subsequence_is_that_of_the_textbook(hypothesis, other):
    table = np.zeros((len(hypothesis) + 1, len(other) + 1), int)
    for row, word in enumerate(hypothesis):
        for column, against in enumerate(other):
            longer = max(table[row, column + 1], table[row + 1, column])
            table[row + 1, column + 1] = table[row, column] + 1 if word == against else longer
    assert captions._common_subsequence(hypothesis, other) == table[-1, -1]


def test_statistics_by_hand():
    texts = ["a dog runs", "a dog runs", "a cat", ""]
    assert caption_statistics(texts) == {
        "distinct_1": 4 / 8,
        "distinct_2": 3 / 5,
        "vocabulary": 4.0,
        "mean_length": 2.0,
        "identical_share": 0.5,
    }
    assert distinct_n(texts, 3) == 1 / 2
    assert distinct_n(texts, 4) == distinct_n([], 1) == 0


SCORES = [corpus_bleu, rouge_l, cider_d, cider_d_per_item, exact_match, score_captions]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "hypotheses, references, line",
    [
        (["a", "b"], [["a"]], "2 hypotheses for 1 items of references: expected one each"),
        ([], [], "no captions to score: expected at least one"),
        (["a", "b"], [["a"], []], "item 1 has no references: expected at least one"),
        (["a"], ["a"], "the references of item 0 are one string: expected a list of strings"),
    ],
)
def test_bad_input_is_one_line(score, hypotheses, references, line):
    with pytest.raises(InputError) as caught:
        score(hypotheses, references)
    assert str(caught.value) == line


def test_bad_input_of_statistics():
    with pytest.raises(InputError, match="no captions to describe"):
        caption_statistics([])


def test_speed(official):
    """Ten thousand captions with five references take under 20 seconds; here a twentieth of them, a quarter of that."""
    hypotheses = official["hypotheses"][:500]
    references = [[*item, hypothesis] for hypothesis, item in zip(hypotheses, official["references"], strict=False)]
    begin = time.perf_counter()
    score_captions(hypotheses, references)
    assert time.perf_counter() - begin < 5
