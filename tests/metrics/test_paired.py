"""Two checkpoints on the same questions: the picture is the unit, and a test that forgets it would cry wolf."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vlm_jax.errors import InputError
from vlm_jax.metrics.paired import paired_difference


def scores(pictures=40, mean=0.0, random=None):
    """Scores of two checkpoints that both get a picture right or wrong, mostly all its 1 to 9 questions alike."""
    clusters = np.repeat(np.arange(pictures), random.integers(1, 10, pictures))
    seen = random.normal(0, 1, (2, pictures))[:, clusters] + random.normal(0, 0.5, (2, len(clusters)))
    a, b = (seen + np.array([[0], [mean]]) > 0).astype(float)
    return a, b, clusters


def test_with_as_many_questions_a_picture_it_is_the_t_test_of_pictures():
    random = np.random.default_rng(0)
    a, b = random.normal(0.5, 0.2, (2, 15, 4))
    ours = paired_difference(a.ravel(), b.ravel(), np.repeat(np.arange(15), 4))
    theirs = stats.ttest_rel(b.mean(axis=1), a.mean(axis=1))
    interval = theirs.confidence_interval()
    assert (ours.questions, ours.pictures, ours.df) == (60, 15, 14)
    assert (ours.a, ours.b, ours.difference) == pytest.approx((a.mean(), b.mean(), (b - a).mean()))
    assert (ours.low, ours.high, ours.p) == pytest.approx((interval.low, interval.high, theirs.pvalue), rel=1e-9)
    assert (ours.wins, ours.losses) == ((b > a).sum(), (b < a).sum())


def test_one_question_a_picture_is_the_ordinary_paired_test():
    random = np.random.default_rng(1)
    a, b = random.normal(0.5, 0.2, (2, 30))
    assert paired_difference(a, b, range(30)).p == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=1e-9)


def test_a_picture_counts_once_however_its_questions_are_ordered():
    random = np.random.default_rng(2)
    a, b, clusters = scores(random=random)
    order = random.permutation(len(a))
    names = [f"picture {number}" for number in clusters[order]]
    assert paired_difference(a[order], b[order], names) == pytest.approx(paired_difference(a, b, clusters))
    # Every question asked three times says no more of the pictures: the naive interval would shrink by sqrt(3).
    assert paired_difference(*(np.tile(one, 3) for one in (a, b, clusters)))[4:9] == pytest.approx(
        paired_difference(a, b, clusters)[4:9]
    )


def test_the_interval_agrees_with_a_bootstrap_of_pictures():
    random = np.random.default_rng(3)
    a, b, clusters = scores(pictures=200, mean=0.3, random=random)
    ours = paired_difference(a, b, clusters)
    sums, counts = np.bincount(clusters, weights=b - a), np.bincount(clusters)
    taken = random.integers(0, 200, (10_000, 200))
    means = sums[taken].sum(axis=1) / counts[taken].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    width = ours.high - ours.low
    assert ours.low < ours.difference < ours.high
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.05 * width)
    assert width == pytest.approx(2 * stats.t.ppf(0.975, 199) * means.std(), rel=0.03)


def test_equal_checkpoints_are_called_different_in_4_to_6_percent_where_a_naive_test_calls_many():
    random = np.random.default_rng(4)
    ours = naive = 0
    for _ in range(2000):
        a, b, clusters = scores(random=random)
        found = paired_difference(a, b, clusters)
        assert (found.p <= 0.05) == (not found.low <= 0 <= found.high)
        ours += found.p <= 0.05
        alone = paired_difference(a, b, range(len(a)))
        naive += alone.p <= 0.05
    assert 0.04 <= ours / 2000 <= 0.06
    assert naive / 2000 > 0.25


def test_what_pictures_cannot_tell_is_none():
    one = paired_difference([0.0, 1.0], [1.0, 1.0], ["only", "only"])
    assert one == (2, 1, 0.5, 1, 0.5, None, None, None, None, 1, 0)
    same = paired_difference([0.1, 0.7, 0.3], [0.1, 0.7, 0.3], [1, 2, 2])
    assert same[4:] == (0, 0, 0, 1, 1, 0, 0)
    # All questions 0.3 better: no spread, though the rounding of 0.1 + 0.3 leaves some.
    shifted = np.linspace(0, 0.7, 50)
    always = paired_difference(shifted, shifted + 0.3, np.arange(50) // 5)
    assert always[5:7] == (None, None) and always.p is None and always.wins == 50


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=20))
def test_a_difference_changes_its_sign_with_the_order(questions):
    a, b, clusters = (list(each) for each in zip(*questions, strict=True))
    there, back = paired_difference(a, b, clusters), paired_difference(b, a, clusters)
    assert there.difference == -back.difference and there.p == pytest.approx(back.p)
    assert (there.wins, there.losses, there.a) == (back.losses, back.wins, back.b)
    if there.low is not None:
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
        assert there.low <= there.difference <= there.high and 0 <= there.p <= 1


@pytest.mark.parametrize(
    "a, b, clusters, message",
    [
        ([1.0], [1.0, 0.0], [1, 2], "1 scores of a, 2 of b and 2 pictures: expected one each a question"),
        ([1.0, 0.0], [1.0, 0.0], [1], "2 scores of a, 2 of b and 1 pictures"),
        ([], [], [], "checkpoint a have shape"),
        ([1.0], [math.nan], [1], "checkpoint b hold nan at place 0"),
    ],
)
def test_wrong_input_gets_one_line(a, b, clusters, message):
    with pytest.raises(InputError, match=message):
        paired_difference(a, b, clusters)
