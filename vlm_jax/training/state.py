"""What training carries from step to step. Nothing random is in it: keys come from seed and step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from vlm_jax.types import Parameters


class TrainState(NamedTuple):
    """A pytree; `step` counts optimizer steps done."""

    step: Int[Array, ""]
    params: Parameters
    opt_state: PyTree
    ema: Parameters | None
    """Moving average of `params`, or None."""


def create_state(params: Parameters, transformation: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """A state before its first step."""
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, transformation.init(params), average)
