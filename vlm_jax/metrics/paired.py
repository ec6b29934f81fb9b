"""Whether two lists of scores of the same questions differ: two checkpoints', or those with right and shuffled images.

It says nothing of two methods, which takes more seeds. Questions about one image are not independent, as both see it
well or badly: the image is the cluster.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from vlm_jax.errors import InputError
from vlm_jax.metrics.student import Values, checked_values, student_margin, student_p


class Paired(NamedTuple):
    """Scores of checkpoints `a` and `b`: means over questions, and `difference` is b - a, in the scores' own unit.

    `low` to `high`: interval of the difference; `df`: images - 1; `p`: two-sided; all None where these images
    cannot tell. `wins`: questions where b scores higher; `losses`: where a does; the rest are ties.
    """

    questions: int
    images: int
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    df: float | None
    p: float | None
    wins: int
    losses: int


def paired_difference(a: Values, b: Values, clusters: Sequence[Hashable] | np.ndarray) -> Paired:
    """Mean difference of paired scores with its cluster-robust t interval: one score a question, same order in all.

    Standard error, of Q questions in G images: sqrt(G / (G - 1) sum_g (sum of residuals of image g)^2) / Q, the
    sandwich of Liang and Zeger (Biometrika 73, 1986) for a mean. So does Miller (Adding Error Bars to Evals,
    arXiv:2411.00640, section 2 for clusters, section 4 for pairs). The factor and the G - 1 degrees of freedom are for
    few clusters (Cameron and Miller, Journal of Human Resources 50, 2015, section VI). With as many questions in each
    image it is the paired t test of the images' means.

    With one image: no interval, no p. Equal scores everywhere: p 1 and the interval [0, 0]. Another difference that
    has no spread at all between images has no interval and no p.
    """
    a, b = checked_values(a, "the scores of checkpoint a"), checked_values(b, "the scores of checkpoint b")
    if not len(a) == len(b) == len(clusters):
        raise InputError(
            f"{len(a)} scores of a, {len(b)} of b and {len(clusters)} images: expected one each a question"
        )
    numbers: dict[Hashable, int] = {}
    places = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    differences, images = b - a, len(numbers)
    difference = float(differences.mean())
    low = high = df = p = None
    if images > 1:
        sums = np.bincount(places, weights=differences - difference)
        error = math.sqrt(images / (images - 1) * float((sums**2).sum())) / len(differences)
        largest = float(np.abs(differences).max())
        df = float(images - 1)
        if not largest:
            low, high, p = 0.0, 0.0, 1.0
        elif error > 1e-12 * largest:  # below is the rounding of equal sums
            margin = student_margin(error, df)
            low, high, p = difference - margin, difference + margin, student_p(difference / error, df)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    means = float(a.mean()), float(b.mean())
    return Paired(len(differences), images, *means, difference, low, high, df, p, wins, losses)
