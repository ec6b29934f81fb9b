"""Scores of images, of features and of codes: closed forms, and values of the implementations that they equal."""

import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_jax.errors import InputError
from vlm_jax.metrics.images import (
    codebook_use,
    difference_per_pair,
    frechet_distance,
    psnr,
    ssim,
)

Y, X, CHANNEL = np.mgrid[:24, :20, :3]
IMAGE = ((X * 11 + Y * 7 + CHANNEL * 40 + (X * Y) % 13 * 9) % 256).astype(np.uint8)[None]
OTHER = (IMAGE.astype(int) * 3 // 4 + (X * 5 + Y * Y) % 31).astype(np.uint8)


def test_scores_equal_those_of_scikit_image():
    # scikit-image 0.26.0: structural_similarity(IMAGE[0], OTHER[0], gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False, data_range=255, channel_axis=-1), the same of the first channel alone, and
    # peak_signal_noise_ratio(IMAGE[0], OTHER[0])
    assert ssim(IMAGE, OTHER) == pytest.approx(0.9374686641444775, abs=1e-12)
    assert ssim(IMAGE[..., :1], OTHER[..., :1]) == pytest.approx(0.9333859754817712, abs=1e-12)
    assert psnr(IMAGE, OTHER) == pytest.approx(19.58323217864156, abs=1e-12)


def test_psnr_of_a_constant_difference():
    black = np.zeros((3, 4, 5, 3), np.uint8)
    second = np.array([1, 5, 255], np.uint8)[:, None, None, None] + black
    wanted = [20 * math.log10(255), 20 * math.log10(51), 0]
    assert psnr(black, second) == pytest.approx(wanted)
    assert psnr(second, black) == pytest.approx(wanted)
    assert (psnr(black, black) == math.inf).all()


def test_ssim_of_flat_images_is_that_of_their_levels():
    first, second = (np.full((1, 11, 16, 3), level, np.uint8) for level in (100, 180))
    assert ssim(first, second) == pytest.approx((2 * 100 * 180 + 2.55**2) / (100**2 + 180**2 + 2.55**2))


def test_ssim_of_equal_images_and_of_a_negative():
    assert ssim(IMAGE, IMAGE) == pytest.approx([1])
    assert ssim(IMAGE, 255 - IMAGE) < -0.3
    both = ssim(np.concatenate([IMAGE, OTHER]), np.concatenate([OTHER, OTHER]))
    assert both == pytest.approx([0.9374686641444775, 1])


def test_ssim_of_one_window_is_its_formula():
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 256, (1, 11, 11, 1), np.uint8) for _ in range(2))
    across = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(across, across) / across.sum() ** 2
    x, y = first[0, :, :, 0].astype(float), second[0, :, :, 0].astype(float)
    m, n = (weights * x).sum(), (weights * y).sum()
    var_x, var_y = (weights * (x - m) ** 2).sum(), (weights * (y - n) ** 2).sum()
    cov = (weights * (x - m) * (y - n)).sum()
    c1, c2 = 2.55**2, 7.65**2
    wanted = (2 * m * n + c1) * (2 * cov + c2) / ((m**2 + n**2 + c1) * (var_x + var_y + c2))
    assert ssim(first, second) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("score", [psnr, ssim])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (IMAGE, IMAGE[:, :, :-1], "differ in shape"),
        (IMAGE[0], IMAGE[0], r"must be \[number, height, width, channels\]"),
        (IMAGE[:0], IMAGE[:0], r"must be \[number, height, width, channels\]"),
        (IMAGE / 255, IMAGE, "uint8 with levels 0 to 255, not float64"),
        (IMAGE, IMAGE.astype(np.int32), "uint8 with levels 0 to 255, not int32"),
    ],
)
def test_what_are_no_pairs_of_images(score, first, second, message):
    with pytest.raises(InputError, match=message):
        score(first, second)


def test_ssim_needs_a_window():
    with pytest.raises(InputError, match="at least 11 pixels, not \\[10, 20\\]"):
        ssim(IMAGE[:, :10], OTHER[:, :10])


def test_how_far_images_are_apart():
    assert difference_per_pair(IMAGE, IMAGE).tolist() == [0.0] * len(IMAGE)
    halves = np.concatenate([np.full((1, 4, 2, 3), 7, np.uint8), np.full((1, 4, 2, 3), 250, np.uint8)], axis=2)
    assert difference_per_pair(halves, np.full_like(halves, 250)) == pytest.approx(243 / math.sqrt(2))


def exactly(mean, covariance):
    """Vectors that have exactly this mean and unbiased covariance."""
    size = len(mean)
    corners = np.concatenate([np.eye(size), -np.eye(size)]) * math.sqrt((2 * size - 1) / 2)
    return mean + corners @ np.linalg.cholesky(covariance).T


def test_the_distance_of_gaussians_along_axes():
    first = exactly(np.array([0.0, 1, 2]), np.diag([1.0, 4, 9]))
    second = exactly(np.array([1.0, 1, 0]), np.diag([4.0, 4, 1]))
    assert frechet_distance(first, second) == pytest.approx(1 + 4 + (1 - 2) ** 2 + (3 - 1) ** 2)
    assert frechet_distance(first[:, :1], second[:, :1]) == pytest.approx(1 + (1 - 2) ** 2)


def test_the_distance_of_gaussians_askew():
    random = np.random.default_rng(0)
    c, d = (factor @ factor.T for factor in random.normal(0, 1, (2, 6, 6)))
    wanted = np.trace(c + d - 2 * scipy.linalg.sqrtm(c @ d)).real
    zero = np.zeros(6)
    assert frechet_distance(exactly(zero, c), exactly(zero + 2, d)) == pytest.approx(wanted + 6 * 4)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_a_distance_is_0_from_itself_symmetric_and_keeps_under_turns(seed, vectors, size):
    random = np.random.default_rng(seed)
    first, second = random.normal(0, 1, (vectors, size)), random.normal(1, 2, (vectors + 3, size))
    turn, _ = np.linalg.qr(random.normal(0, 1, (size, size)))
    distance = frechet_distance(first, second)
    assert distance > 0
    assert 0 <= frechet_distance(first, first[::-1].copy()) < 1e-6
    assert frechet_distance(second, first) == pytest.approx(distance)
    assert frechet_distance(first @ turn + 5, second @ turn + 5) == pytest.approx(distance)


def test_a_distance_of_few_vectors_and_of_single_precision():
    random = np.random.default_rng(0)
    first, second = random.normal(0, 1, (2, 4, 50))  # covariances of rank 3
    distance = frechet_distance(first, second)
    assert 0 < distance < np.inf
    assert frechet_distance(first.astype(np.float32), second.astype(np.float32)) == pytest.approx(distance, rel=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), r"features must be \[vectors, dimensions\]"),
        (np.zeros((5, 3)), np.zeros(3), r"references must be \[vectors, dimensions\]"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "features have 3 dimensions and references 4"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "not finite"),
    ],
)
def test_what_are_no_features(first, second, message):
    with pytest.raises(InputError, match=message):
        frechet_distance(first, second)


def test_use_of_a_codebook():
    assert codebook_use(np.arange(8).reshape(2, 4), 8) == pytest.approx(
        {"codebook_use": 1, "codebook_perplexity": 8, "dead_codes": 0}
    )
    assert codebook_use(np.full((3, 4, 4), 5), 512) == {
        "codebook_use": 1 / 512,
        "codebook_perplexity": 1,
        "dead_codes": 511,
    }
    use = codebook_use(np.array([0, 0, 1, 3], np.int32), 5)
    assert use == pytest.approx({"codebook_use": 0.6, "codebook_perplexity": 2**1.5, "dead_codes": 2})


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.array([0, 5]), "image tokens of a codebook of 5 are 0 to 4; got 0 to 5"),
        (np.array([-1, 2]), "got -1 to 2"),
        (np.array([0.0]), "must be integers"),
        (np.array([], int), "at least one"),
    ],
)
def test_what_are_no_codes(codes, message):
    with pytest.raises(InputError, match=message):
        codebook_use(codes, 5)
