"""Student's t: what intervals and p values of means have in common, and the check of the numbers they are of."""

from collections.abc import Sequence

import numpy as np
import scipy
from jaxtyping import Float

from vlm_jax.errors import InputError

LEVEL = 0.95  # of confidence, of every interval and every verdict
Values = Sequence[float] | np.ndarray


def checked_values(values: Values, what: str) -> Float[np.ndarray, " n"]:
    """One or more finite numbers as an array; InputError naming `what` for anything else."""
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(f"{what} are not all numbers: expected a list of numbers, got {values!r:.80}") from None
    if array.ndim != 1 or not len(array):
        raise InputError(f"{what} have shape {array.shape}: expected a list of at least one number")
    if not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InputError(f"{what} hold {array[place]} at place {place}: expected finite numbers; leave that one out")
    return array


def student_margin(error: float, df: float) -> float:
    """Half the width of a t interval, for a standard error with `df` degrees of freedom."""
    return float(scipy.special.stdtrit(df, (1 + LEVEL) / 2)) * error


def student_p(ratio: float, df: float) -> float:
    """Two-sided p value of a t statistic."""
    return 2 * float(scipy.special.stdtr(df, -abs(ratio)))
