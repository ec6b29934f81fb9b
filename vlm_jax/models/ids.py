"""Ids that a table has no row for: JAX reads NaN there, and a negative id counts from the end."""

import jax
import numpy as np
from jax.typing import ArrayLike

from vlm_jax.errors import InputError


def check_ids(ids: ArrayLike, rows: int, what: str) -> None:
    """`InputError` where an id is not one of 0 to `rows` - 1.

    Inside `jax.jit` ids have no values yet, and nothing is checked: check them before.
    """
    if isinstance(ids, jax.core.Tracer):
        return
    values = np.asarray(ids)
    wrong = values[(values < 0) | (values >= rows)]
    if wrong.size:
        raise InputError(f"{what} {int(wrong[0])} has no row in its table; expected 0 to {rows - 1}")
