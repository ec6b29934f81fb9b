"""Scores of images against images, of two sets of feature vectors, and of how a codebook is used.

Images are uint8 [N, H, W, C]: N images of C channels with levels 0 to 255.
"""

import numpy as np
import scipy
from jaxtyping import Float, Shaped

from vlm_jax.errors import InputError

PLAIN = 1.0  # levels: an image whose pixels differ by less (standard deviation) shows nothing
_PEAK = 255.0  # levels
# Wang et al. 2004, section III.C
_K1, _K2 = 0.01, 0.03
_SIGMA, _RADIUS = 1.5, 5  # pixels: a Gaussian window of 11 x 11


def psnr(images: Shaped[np.ndarray, "..."], references: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, " N"]:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / mean squared error) over all pixels and channels of an image.

    Infinite where two images are equal. Raises `InputError` unless both are uint8 [N, H, W, C].
    """
    errors = _squared_errors(images, references)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(_PEAK**2 / errors)


def ssim(images: Shaped[np.ndarray, "..."], references: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, " N"]:
    """Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861, equation 13), -1 to 1, 1 for equal ones.

    The mean over channels, each taken as a grey image, and over windows that lie inside the image: equal to
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`. Raises
    `InputError` unless both are uint8 [N, H, W, C] with sides of at least 11 pixels, the window's.
    """
    _check_pairs(images, references)
    if min(images.shape[1:3]) < 2 * _RADIUS + 1:
        raise InputError(f"SSIM needs sides of at least {2 * _RADIUS + 1} pixels, not {list(images.shape[1:3])}")
    return np.array([_ssim_map(x, y).mean() for x, y in zip(images, references, strict=True)])


def difference_per_pair(
    images: Shaped[np.ndarray, "..."], references: Shaped[np.ndarray, "..."]
) -> Float[np.ndarray, " N"]:
    """Root mean square of how far the pixels and channels of two images are apart, in levels, 0 to 255.

    Raises `InputError` unless both are uint8 [N, H, W, C].
    """
    return np.sqrt(_squared_errors(images, references))


def frechet_distance(features: Shaped[np.ndarray, "..."], references: Shaped[np.ndarray, "..."]) -> float:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two sets of vectors, at least 0.

    |m - n|^2 + Tr(C + D - 2 (C D)^(1/2)), Heusel et al., arXiv:1706.08500, equation 6, with the unbiased covariances
    of their code. It compares only with distances over the same features and as many vectors, since few of them make
    it larger. Raises `InputError` unless they are finite [N, D] and [M, D] with N and M at least 2.
    """
    for name, values in (("features", features), ("references", references)):
        if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
            raise InputError(f"{name} must be [vectors, dimensions] with two vectors or more, not {list(values.shape)}")
        if not np.isfinite(values).all():
            raise InputError(f"{name} hold values that are not finite")
    if features.shape[1] != references.shape[1]:
        raise InputError(f"features have {features.shape[1]} dimensions and references {references.shape[1]}")
    between = features.mean(0, dtype=float) - references.mean(0, dtype=float)
    covariance, reference_covariance = (
        np.atleast_2d(np.cov(values.astype(float), rowvar=False)) for values in (features, references)
    )
    # The eigenvalues of C D are the squared singular values of C^(1/2) D^(1/2), which are found without squaring.
    shared = np.linalg.svd(_square_root(covariance) @ _square_root(reference_covariance), compute_uv=False).sum()
    return max(0.0, float(between @ between + np.trace(covariance) + np.trace(reference_covariance) - 2 * shared))


def codebook_use(tokens: Shaped[np.ndarray, "..."], size: int) -> dict[str, float]:
    """How a codebook of `size` entries is used by integer image `tokens` of any shape.

    `codebook_use` (the share of entries that occur), `codebook_perplexity` (exp of the entropy of their frequencies, 1
    to `size`), `dead_codes` (how many never occur). Raises `InputError` for other tokens.
    """
    if not np.issubdtype(tokens.dtype, np.integer) or not tokens.size:
        raise InputError(f"image tokens must be integers, at least one, not {tokens.dtype} {list(tokens.shape)}")
    if tokens.min() < 0 or tokens.max() >= size:
        raise InputError(
            f"image tokens of a codebook of {size} are 0 to {size - 1}; got {tokens.min()} to {tokens.max()}"
        )
    counts = np.bincount(tokens.ravel(), minlength=size)
    shares = counts[counts > 0] / tokens.size
    return {
        "codebook_use": len(shares) / size,
        "codebook_perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
        "dead_codes": float(size - len(shares)),
    }


def _squared_errors(
    images: Shaped[np.ndarray, "..."], references: Shaped[np.ndarray, "..."]
) -> Float[np.ndarray, " N"]:
    """The mean over pixels and channels of each pair."""
    _check_pairs(images, references)
    return ((images.astype(float) - references) ** 2).mean((1, 2, 3))


def _check_pairs(images: Shaped[np.ndarray, "..."], references: Shaped[np.ndarray, "..."]) -> None:
    if images.shape != references.shape:
        raise InputError(f"images {list(images.shape)} and references {list(references.shape)} differ in shape")
    if images.ndim != 4 or not images.size:
        raise InputError(f"images must be [number, height, width, channels], none of them 0, not {list(images.shape)}")
    for values in (images, references):
        if values.dtype != np.uint8:
            raise InputError(f"images must be uint8 with levels 0 to 255, not {values.dtype}")


def _ssim_map(image: Shaped[np.ndarray, "h w c"], reference: Shaped[np.ndarray, "h w c"]) -> Float[np.ndarray, "y x c"]:
    """SSIM of every window inside an image."""
    x, y = image.astype(float), reference.astype(float)
    mean, mean_y = _weighted(x), _weighted(y)
    variances = _weighted(x**2) - mean**2 + _weighted(y**2) - mean_y**2
    covariance = _weighted(x * y) - mean * mean_y
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    luminance = (2 * mean * mean_y + c1) / (mean**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _weighted(values: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "y x c"]:
    """The weighted mean over every window inside an image."""
    means = scipy.ndimage.gaussian_filter(values, _SIGMA, axes=(0, 1), radius=_RADIUS)
    return means[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _square_root(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """The symmetric one; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
