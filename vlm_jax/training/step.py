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


class Progress(NamedTuple):
    """What a step has of its micro-batches so far."""

    index: Int[Array, ""]
    """The next micro-batch."""
    totals: PyTree
    """Gradients and sums, added up."""


class AccumulatedStep(NamedTuple):
    """A step of `count` micro-batches in parts: compiled each for itself, one program serves all micro-batches."""

    count: int
    start: Callable[[TrainState, Batch], Progress]
    add: Callable[[Progress, TrainState, Batch], Progress]
    finish: Callable[[TrainState, Progress], tuple[TrainState, dict[str, Array]]]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        progress = self.start(state, batch)
        for _ in range(self.count):
            progress = self.add(progress, state, batch)
        return self.finish(state, progress)


def micro_batch(batch: Batch, index: int | Int[Array, ""], count: int) -> Batch:
    """`[I, ...]` to `[I / count, ...]`; strided, so that each device's images stay on it."""
    rows = jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]), batch)
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, axis=1, keepdims=False), rows)


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

    def update(state, totals):
        gradients, sums = totals if axis_name is None else jax.lax.psum(totals, axis_name)
        weight = jnp.maximum(sums.weight, 1.0)
        gradients = jax.tree.map(lambda g: g / weight, gradients)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(sums.loss) & jnp.isfinite(norm)
        updated = _update(state, gradients, transformation, config.optimizer.ema, frozen)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        metrics = {**sums._asdict(), "gradient_norm": norm, "learning_rate": schedule(updated.step - 1)}
        return state, {**metrics, "finite": finite}

    if config.training.accumulation > 1:
        return _accumulated(gradient, update, config.training.accumulation)
    return lambda state, batch: update(state, gradient(state.params, batch, state.step))


def _accumulated(gradient, update, count):
    """In parts on a CPU, where XLA has slow kernels for the gradient of a convolution within a loop; else scanned."""

    def start(state, batch):
        shapes = jax.eval_shape(gradient, state.params, micro_batch(batch, 0, count), state.step)
        return Progress(jnp.zeros((), jnp.int32), jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))

    def add(progress, state, batch):
        added = gradient(state.params, micro_batch(batch, progress.index, count), state.step)
        return Progress(progress.index + 1, jax.tree.map(jnp.add, progress.totals, added))

    def finish(state, progress):
        return update(state, progress.totals)

    def scanned(state, batch):
        progress, _ = jax.lax.scan(lambda p, _: (add(p, state, batch), None), start(state, batch), length=count)
        return finish(state, progress)

    return AccumulatedStep(count, start, add, finish) if jax.default_backend() == "cpu" else scanned


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
