"""The train step: a pure function from state and batch to state and metrics."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from vlm_jax.config.run import Config
from vlm_jax.tasks.base import ImageSums, Sums
from vlm_jax.training.optimizer import frozen_mask, learning_rate_schedule
from vlm_jax.types import Batch, Parameters


class TrainState(NamedTuple):
    """What training carries from step to step; nothing random, as keys come from seed and step.

    `step` counts optimizer steps done.
    """

    step: Int[Array, ""]
    params: Parameters
    opt_state: PyTree
    ema: Parameters | None
    """Moving average of `params`, or None."""


def create_state(params: Parameters, transformation: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """A state before its first step."""
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, transformation.init(params), average)


LossSums = Callable[[Parameters, Batch, Key[Array, " I"]], Sums | ImageSums]
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def example_keys(seed: int, step: Int[Array, ""], index: Int[Array, " I"]) -> Key[Array, " I"]:
    """One key an image, from seed, step and its position in the global batch: however the batch is split."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(index)


def micro_batches(batch: Batch, count: int) -> Batch:
    """`[I, ...]` to `[count, I / count, ...]`; strided, so that each device's images stay on it."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), batch)


def make_step(
    config: Config,
    loss_sums: LossSums,
    transformation: optax.GradientTransformation,
    params: Parameters,
    *,
    axis_name: str | None = None,
) -> Step:
    """The step of a config; `params` gives paths and shapes only.

    `loss_sums(params, batch, keys)` returns sums over questions with the fields `loss` and `weight`. Sums are added
    over micro-batches and over the devices of `axis_name`, and divided once. An update that is not finite is not
    applied: the state comes back as it was, `step` included, and the metric `finite` is False.
    """
    schedule = learning_rate_schedule(config.optimizer, config.training.steps)
    frozen = frozen_mask(params, config.optimizer)

    def objective(params, batch, step):
        held = jax.tree.map(lambda p, hold: jax.lax.stop_gradient(p) if hold else p, params, frozen)
        sums = loss_sums(held, batch, example_keys(config.seed, step, batch.index))
        return sums.loss, sums

    gradient = jax.grad(objective, has_aux=True)

    def step(state, batch):
        if config.training.accumulation == 1:
            totals = gradient(state.params, batch, state.step)
        else:
            totals = _accumulate(gradient, state, micro_batches(batch, config.training.accumulation))
        gradients, sums = totals if axis_name is None else jax.lax.psum(totals, axis_name)
        weight = jnp.maximum(sums.weight, 1.0)
        gradients = jax.tree.map(lambda g: g / weight, gradients)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(sums.loss) & jnp.isfinite(norm)
        updated = _update(state, gradients, transformation, config.optimizer.ema, frozen)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        metrics = {**sums._asdict(), "gradient_norm": norm, "learning_rate": schedule(updated.step - 1)}
        return state, {**metrics, "finite": finite}

    return step


def _accumulate(gradient, state, batches):
    shapes = jax.eval_shape(gradient, state.params, jax.tree.map(lambda x: x[0], batches), state.step)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(totals, batch):
        return jax.tree.map(jnp.add, totals, gradient(state.params, batch, state.step)), None

    return jax.lax.scan(add, zeros, batches)[0]


def _update(state, gradients, transformation, decay, frozen):
    updates, opt_state = transformation.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        # Early on the average follows the parameters: it never remembers the initial weights.
        rate = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(  # of what never changes it is that, without rounding
            lambda average, p, held: p if held else rate * average + (1.0 - rate) * p, ema, params, frozen
        )
    return TrainState(state.step + 1, params, opt_state, ema)
