"""CIDEr-D of pairs against the formula, pair by pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.cider_formula import cider, rarity_in
from vlm_jax.errors import InputError
from vlm_jax.metrics.captions import cider_d_per_item
from vlm_jax.metrics.cider_pairs import CiderPairs

CAPTIONS = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)
ITEMS = st.lists(st.lists(CAPTIONS, min_size=1, max_size=3), min_size=1, max_size=5)


def brute_force(hypotheses, items):
    """Each hypothesis with each item, in the corpus of all items."""
    rarity = rarity_in(items)
    return np.array([[cider(hypothesis, item, rarity) for item in items] for hypothesis in hypotheses])


def of_items(hypotheses, items):
    """The same from pairs: the mean over the references of an item."""
    references = [reference for item in items for reference in item]
    item_of = np.repeat(np.arange(len(items)), [len(item) for item in items])
    pairs = CiderPairs([*references, *hypotheses], np.append(item_of, np.full(len(hypotheses), -1)))
    scores = pairs(len(references) + np.arange(len(hypotheses)), np.arange(len(references)))
    return np.stack([scores[:, item_of == item].mean(axis=1) for item in range(len(items))], axis=1)


@settings(max_examples=150, deadline=None)
@given(st.lists(CAPTIONS, min_size=1, max_size=4), ITEMS)
def test_pairs_have_the_scores_of_the_corpus(hypotheses, items):
    expected = brute_force(hypotheses, items)
    np.testing.assert_allclose(of_items(hypotheses, items), expected, rtol=1e-9, atol=1e-12)
    of_first = cider_d_per_item([hypotheses[0]] * len(items), items)
    np.testing.assert_allclose(of_first, expected[0], rtol=1e-9, atol=1e-12)


def test_a_score_by_hand():
    pairs = CiderPairs(["a b", "a b a", "c"], np.array([0, 1, 2]))
    # "a" and "b" weigh log(3/2), "b a" log(3); clipped products over norms, of orders 1 and 2; one word apart.
    log_ratio, both, three = np.log(3 / 2), np.log(3 / 2), np.log(3)
    first = (log_ratio * 2 * log_ratio + log_ratio * log_ratio) / (np.sqrt(2) * log_ratio * np.sqrt(5) * log_ratio)
    second = both * both / (both * np.hypot(both, three))
    expected = 10 / 4 * (first + second) * np.exp(-1 / 72)
    assert pairs(np.array([0]), np.array([1]))[0, 0] == pytest.approx(expected, rel=1e-12)
    assert pairs(np.array([2, 0]), np.array([1, 2, 0]))[0].tolist() == [0, 2.5, 0]


def test_scores_follow_the_order_of_the_indices():
    captions = ["a b c d e", "a b", "", "c d e", "a b c"]
    pairs = CiderPairs(captions, np.array([0, 0, 1, 2, -1]))
    every, subset = pairs(np.arange(5), np.arange(5)), pairs(np.array([4, 0, 0]), np.array([3, 1, 2]))
    np.testing.assert_allclose(subset, every[[4, 0, 0]][:, [3, 1, 2]])
    assert (every[2] == 0).all() and every[0, 0] == pytest.approx(10)
    assert pairs(np.array([], int), np.array([1])).shape == (0, 1)
    assert pairs(np.array([2]), np.array([0, 1])).tolist() == [[0, 0]]


def test_each_caption_has_an_item():
    with pytest.raises(InputError) as caught:
        CiderPairs(["a", "b"], np.array([0]))
    assert str(caught.value) == "1 items for 2 captions: expected one for each caption"
