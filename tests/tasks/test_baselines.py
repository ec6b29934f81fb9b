"""What a score is worth: the paired difference with its interval, and each warning where a baseline is not beaten."""

import math
from collections import namedtuple

import numpy as np
import pytest
from scipy import stats

from vlm_jax.tasks.baselines import baseline_warnings, distinct_images, shuffled_difference
from vlm_jax.types import Example

Item = namedtuple("Item", "image_id right as_dict card", defaults=(None, dict, dict))  # what a prediction has
NAMES = [f"baseline/shuffled_images/{row}/accuracy" for row in ("difference", "difference_low", "difference_high")]


def difference(scores, shuffled, images):
    scores, shuffled = (np.asarray(values).tolist() for values in (scores, shuffled))
    rows = shuffled_difference("shuffled_images", "accuracy", [Item(image) for image in images], scores, shuffled)
    assert list(rows) == NAMES
    return [rows[name] for name in NAMES]


def test_the_interval_is_clustered_by_image():
    """With as many questions an image it is the t interval of the images' mean differences, not of the questions'."""
    random = np.random.default_rng(0)
    images, each = 12, 5
    gain = np.repeat(random.normal(0.1, 0.3, images), each) + random.normal(0, 0.05, images * each)
    base = random.uniform(0, 1, images * each)
    found = difference(base + gain, base, np.repeat(np.arange(images), each).tolist())
    means = gain.reshape(images, each).mean(1)
    expected = stats.t.interval(0.95, images - 1, means.mean(), stats.sem(means))
    assert found == pytest.approx([means.mean(), *expected])
    alone = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
    assert expected[1] - expected[0] > 1.5 * (alone[1] - alone[0])


def test_scores_that_are_no_numbers_have_no_difference():
    assert all(map(math.isnan, difference([1.0, math.nan], [0.0, 0.0], ["a", "b"])))


def warnings(difference=0.3, low=0.1, high=0.5, *, accuracy=0.8, shuffled="shuffled_images", **baselines):
    metrics = {"accuracy": accuracy, **dict(zip(NAMES, (difference, low, high), strict=True))}
    metrics |= {f"baseline/{name}": value for name, value in baselines.items()}
    return baseline_warnings(metrics, "accuracy", shuffled)


@pytest.mark.parametrize(
    ("row", "warned"),
    [
        ((0.3, 0.1, 0.5), False),
        ((0.3, 0.0, 0.6), True),
        ((0.3, -0.1, 0.7), True),
        ((-0.3, -0.5, -0.1), True),
        ((0.0, 0.0, 0.0), True),
        ((1.0, math.nan, math.nan), False),  # the same gain with every image
        ((-1.0, math.nan, math.nan), True),
        ((math.nan, math.nan, math.nan), True),
    ],
)
def test_an_interval_that_is_not_above_zero_is_warned_of(row, warned):
    found = warnings(*row)
    assert len(found) == warned and all("image" in text for text in found)
    assert warnings(*row, shuffled="") == []  # a task without such a baseline


def test_the_warning_names_difference_and_interval():
    (text,) = warnings(0.02, -0.011, 0.051)
    assert "+0.0200" in text and "-0.0110 to +0.0510" in text and "95%" in text


@pytest.mark.parametrize("name", ["majority", "answer_prior", "question_only"])
@pytest.mark.parametrize(("value", "warned"), [(0.7, False), (0.8, True), (0.9, True)])
def test_a_score_that_is_not_above_a_baseline_is_warned_of(name, value, warned):
    found = warnings(**{name: value})
    assert len(found) == warned and all(name in text and f"{value:.4f}" in text for text in found)


def test_only_baselines_of_the_metric_count():
    metrics = {
        "cider_d": 0.2,
        "baseline/constant/cider_d": 0.3,
        "baseline/no_image/cider_d": 0.1,
        "baseline/a/bleu_4": 9,
    }
    assert [text.split()[-2] for text in baseline_warnings(metrics, "cider_d", "")] == ["constant"]


def test_a_baseline_that_was_left_out_is_told():
    (text,) = baseline_warnings({"accuracy": 1.0, "baseline/majority": 0.5}, "accuracy", "shuffled_images")
    assert "shuffled_images" in text and "left out" in text


def test_images_are_told_apart_by_their_ids():
    examples = [Example(image_id, b"") for image_id in ("a", "b", "a")]
    assert [distinct_images(examples[:count]) for count in (0, 1, 2, 3)] == [0, 1, 2, 2]
    assert distinct_images(examples[::2]) == 1
