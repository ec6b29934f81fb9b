"""Two checkpoints on the same questions: the image is the unit, and a test that forgets it would cry wolf."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vlm_jax.errors import InputError
from vlm_jax.metrics.paired import paired_difference


def scores(images=40, mean=0.0, random=None):
    """Scores of two checkpoints that both get an image right or wrong, mostly all its 1 to 9 questions alike."""
    clusters = np.repeat(np.arange(images), random.integers(1, 10, images))
    seen = random.normal(0, 1, (2, images))[:, clusters] + random.normal(0, 0.5, (2, len(clusters)))
    a, b = (seen + np.array([[0], [mean]]) > 0).astype(float)
    return a, b, clusters


def test_with_as_many_questions_an_image_it_is_the_t_test_of_images():
    random = np.random.default_rng(0)
    a, b = random.normal(0.5, 0.2, (2, 15, 4))
    ours = paired_difference(a.ravel(), b.ravel(), np.repeat(np.arange(15), 4))
    expected = stats.ttest_rel(b.mean(axis=1), a.mean(axis=1))
    interval = expected.confidence_interval()
    assert (ours.questions, ours.images, ours.df) == (60, 15, 14)
    assert (ours.a, ours.b, ours.difference) == pytest.approx((a.mean(), b.mean(), (b - a).mean()))
    assert (ours.low, ours.high, ours.p) == pytest.approx((interval.low, interval.high, expected.pvalue), rel=1e-9)
    assert (ours.wins, ours.losses) == ((b > a).sum(), (b < a).sum())


def test_one_question_an_image_is_the_ordinary_paired_test():
    random = np.random.default_rng(1)
    a, b = random.normal(0.5, 0.2, (2, 30))
    assert paired_difference(a, b, range(30)).p == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=1e-9)


def test_an_image_counts_once_however_its_questions_are_ordered():
    random = np.random.default_rng(2)
    a, b, clusters = scores(random=random)
    order = random.permutation(len(a))
    names = [f"image {number}" for number in clusters[order]]
    assert paired_difference(a[order], b[order], names) == pytest.approx(paired_difference(a, b, clusters))
    # Every question asked three times says no more of the images: the naive interval would shrink by sqrt(3).
    assert paired_difference(*(np.tile(column, 3) for column in (a, b, clusters)))[4:9] == pytest.approx(
        paired_difference(a, b, clusters)[4:9]
    )


def test_the_interval_agrees_with_a_bootstrap_of_images():
    random = np.random.default_rng(3)
    a, b, clusters = scores(images=200, mean=0.3, random=random)
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
        result = paired_difference(a, b, clusters)
        assert (result.p <= 0.05) == (not result.low <= 0 <= result.high)
        ours += result.p <= 0.05
        alone = paired_difference(a, b, range(len(a)))
        naive += alone.p <= 0.05
    assert 0.04 <= ours / 2000 <= 0.06
    assert naive / 2000 > 0.25


def test_what_images_cannot_tell_is_none():
    result = paired_difference([0.0, 1.0], [1.0, 1.0], ["only", "only"])
    assert result == (2, 1, 0.5, 1, 0.5, None, None, None, None, 1, 0)
    same = paired_difference([0.1, 0.7, 0.3], [0.1, 0.7, 0.3], [1, 2, 2])
    assert same[4:] == (0, 0, 0, 1, 1, 0, 0)
    # All questions 0.3 better: no spread, though the rounding of 0.1 + 0.3 leaves some.
    shifted = np.linspace(0, 0.7, 50)
    always = paired_difference(shifted, shifted + 0.3, np.arange(50) // 5)
    assert always[5:7] == (None, None) and always.p is None and always.wins == 50


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=20))
def test_a_difference_changes_its_sign_with_the_order(questions):
    a, b, clusters = (list(column) for column in zip(*questions, strict=True))
    forward, back = paired_difference(a, b, clusters), paired_difference(b, a, clusters)
    assert forward.difference == -back.difference and forward.p == pytest.approx(back.p)
    assert (forward.wins, forward.losses, forward.a) == (back.losses, back.wins, back.b)
    if forward.low is not None:
        assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low))
        assert forward.low <= forward.difference <= forward.high and 0 <= forward.p <= 1


@pytest.mark.parametrize(
    "a, b, clusters, message",
    [
        ([1.0], [1.0, 0.0], [1, 2], "1 scores of a, 2 of b and 2 images: expected one each a question"),
        ([1.0, 0.0], [1.0, 0.0], [1], "2 scores of a, 2 of b and 1 images"),
        ([], [], [], "checkpoint a have shape"),
        ([1.0], [math.nan], [1], "checkpoint b hold nan at place 0"),
    ],
)
def test_wrong_input_gets_one_line(a, b, clusters, message):
    with pytest.raises(InputError, match=message):
        paired_difference(a, b, clusters)
