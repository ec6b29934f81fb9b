"""Types of numbers: what is narrow is widened for sums, and float64 stays what it is."""

import jax.numpy as jnp
from jax.typing import DTypeLike


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """The type of a softmax, of logits and of sums: float32, and float64 in a model that computes in it."""
    return jnp.promote_types(dtype, jnp.float32)
