"""From settings to an Optax transformation: schedule, clipping, decay mask, per-path rates, freezing."""

import math
import re
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Float, Int

from vlm_jax.config.optimizers import Adam, Muon, Optimizer
from vlm_jax.errors import InputError, one_of
from vlm_jax.trees import Array, flatten, leaf_path, unflatten
from vlm_jax.types import Parameters

# Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum, made orthogonal by five steps of
# Newton and Schulz. Scaled so that an entry changes by 0.2 in the root mean square, as
# with AdamW, one learning rate and one decay serve both (Liu et al. 2025, arXiv:2502.16982, section 2.2).
MUON_MOMENTUM = 0.95
MUON_UPDATE = 0.2
NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS = (3.4445, -4.7750, 2.0315), 5


def learning_rate_schedule(settings: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate against the optimizer step: linear warm-up, then the decay to zero at `steps`.

    Written with the whole number of steps that are left: exact to the last digits of the rate's type at every step,
    where 1 - count / steps is not.
    """
    peak, warmup = settings.learning_rate, min(settings.warmup_steps, steps)
    rest = max(1, steps - warmup)
    decays: dict[str, Callable[[Array], Array]] = {
        "cosine": lambda share: jnp.square(jnp.sin(jnp.pi / 2 * share)),  # (1 + cos(pi (1 - share))) / 2
        "linear": lambda share: share,
        "constant": jnp.ones_like,
    }

    def rate(count: int | Int[Array, "*n"]) -> Float[Array, "*n"]:
        count = jnp.asarray(count, float)  # float64 under jax_enable_x64, where int32 / int is still float32
        left = jnp.clip(rest - (count - warmup), 0, rest)
        # The first step already learns: warm-up runs from peak / (warmup + 1), not from zero.
        return peak * jnp.where(count < warmup, (count + 1) / (warmup + 1), decays[settings.schedule](left / rest))

    return rate


def match_paths(params: Parameters, pattern: str, *, setting: str, needed: bool = True) -> Parameters:
    """A tree of bools, True where the regular expression is found in the parameter's path.

    Raises `InputError` where the expression is broken or, if it is `needed`, matches nothing.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{setting} {pattern!r} is not a regular expression: {error}") from None
    matched = jax.tree_util.tree_map_with_path(lambda path, _: bool(expression.search(leaf_path(path))), params)
    if needed and not any(jax.tree.leaves(matched)):
        groups = sorted({"/".join(path.split("/")[:2]) for path in flatten(params)})
        raise InputError(f"{setting} {pattern!r} matches no parameter; {one_of(groups)}")
    return matched


def frozen_mask(params: Parameters, settings: Optimizer) -> Parameters:
    """A tree of bools, True where a parameter is not trained."""
    masks = [match_paths(params, pattern, setting="optimizer.frozen") for pattern in settings.frozen]
    return jax.tree.map(lambda _, *frozen: any(frozen), params, *masks)


def make_optimizer(settings: Optimizer, params: Parameters, *, steps: int) -> optax.GradientTransformation:
    """Clipping, AdamW, Muon or gradient descent, decay, schedule and per-path factors; what is frozen has no state."""
    # What is spared by default need not be there: an image tokenizer embeds nothing.
    default = Optimizer().no_decay
    spared = [
        match_paths(params, pattern, setting="optimizer.no_decay", needed=pattern not in default)
        for pattern in settings.no_decay
    ]
    decayed = jax.tree.map(lambda _, *matched: not any(matched), params, *spared)
    factors = jax.tree.map(lambda _: 1.0, params)
    for pattern, factor in settings.multipliers:
        matched = match_paths(params, pattern, setting="optimizer.multipliers")
        factors = jax.tree.map(lambda f, m, factor=factor: f * factor if m else f, factors, matched)
    parts = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm is not None else []
    if isinstance(settings, Adam):
        parts += [
            _muon_and_adam(settings, params) if isinstance(settings, Muon) else _adam(settings),
            optax.add_decayed_weights(settings.weight_decay, mask=lambda p: _like(decayed, p)),
        ]
    parts.append(optax.scale_by_learning_rate(learning_rate_schedule(settings, steps)))
    if settings.multipliers:
        parts.append(
            optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, _like(factors, updates)))
        )
    trained = optax.chain(*parts)
    if not settings.frozen:
        return trained
    labels = jax.tree.map(lambda frozen: "frozen" if frozen else "trained", frozen_mask(params, settings))
    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def _adam(settings: Adam) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, algorithm 1) with the bias corrections 1 - b^t as -expm1(t log b).

    Optax computes b^t in float32, and the difference from 1 is wrong by up to 1e-5 of itself: of a run this makes
    another one within a hundred steps.
    """
    scale, (b1, b2) = optax.scale_by_adam(*settings.betas, settings.epsilon), settings.betas

    def update(updates: Parameters, state: optax.ScaleByAdamState, params: Parameters | None = None) -> tuple:
        count = optax.safe_increment(state.count)
        mean, square = (
            optax.tree.update_moment(updates, moment, decay, order)
            for moment, decay, order in ((state.mu, b1, 1), (state.nu, b2, 2))
        )
        first, second = (
            -jnp.expm1(jnp.asarray(count, float) * (math.log(b) if b else -math.inf)) for b in settings.betas
        )
        scaled = jax.tree.map(
            lambda m, v: m / first.astype(m.dtype) / (jnp.sqrt(v / second.astype(v.dtype)) + settings.epsilon),
            mean,
            square,
        )
        return scaled, optax.ScaleByAdamState(count, mean, square)

    return optax.GradientTransformation(scale.init, update)


def _muon_and_adam(settings: Muon, params: Parameters) -> optax.GradientTransformation:
    """Muon for the matrices and convolutions that the settings choose, Adam for everything else."""
    matrices = unflatten({path: leaf for path, leaf in flatten(params).items() if leaf.ndim in (2, 4)})
    chosen = [match_paths(matrices, pattern, setting="optimizer.matrices") for pattern in settings.matrices]
    by_muon = {path for mask in chosen for path, matched in flatten(mask).items() if matched}
    trained = [path for path, frozen in flatten(frozen_mask(params, settings)).items() if not frozen]
    if not by_muon.intersection(trained):
        raise InputError(
            "optimizer.kind 'muon' is for matrices that optimizer.matrices chooses, and none is trained; choose 'adamw'"
        )
    labels = jax.tree_util.tree_map_with_path(lambda path, _: "muon" if leaf_path(path) in by_muon else "adam", params)
    axes = partial(jax.tree.map, lambda _: optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2))
    muon = optax.chain(
        optax.contrib.scale_by_muon(ns_steps=0, beta=MUON_MOMENTUM, weight_dimension_numbers=axes),
        optax.stateless(
            lambda updates, _: jax.tree.map(lambda u: MUON_UPDATE * max(u.shape[1:]) ** 0.5 * _orthogonal(u), updates)
        ),
    )
    return optax.partition({"muon": _stacked(muon), "adam": _adam(settings)}, lambda p: _like(labels, p))


def _orthogonal(x: Float[Array, "n a b"]) -> Float[Array, "n a b"]:
    """Newton and Schulz's X <- a X + b (X X^T) X + c (X X^T)^2 X, of matrices of norm 1.

    Every step is a product P X with P made of X X^T, which changes to P X X^T P: only the last product has the long
    side of X. In float32 on every device: TF32's rounding of X X^T would grow from step to step.
    """
    with jax.default_matmul_precision("highest"):
        return _newton_schulz(x)


def _newton_schulz(x: Float[Array, "n a b"]) -> Float[Array, "n a b"]:
    if x.shape[1] > x.shape[2]:
        return _newton_schulz(x.mT).mT
    a, b, c = NEWTON_SCHULZ
    gram, total = x @ x.mT, None
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = a * jnp.eye(x.shape[1])[None] + b * gram + c * (gram @ gram)
        total = factor if total is None else factor @ total
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = factor @ gram @ factor
    return total @ x


def _stacked(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` of matrices [n, a, b], each of all those of one shape: few large products in the place of many small.

    A convolution [k, k, in, out] is the matrix [k k in, out].
    """

    def as_matrix(leaf: Array) -> Array:
        return leaf.reshape(-1, leaf.shape[-1])

    def group(leaf: Array) -> str:
        return "x".join(map(str, leaf.shape))

    def stack(tree: Parameters) -> dict[str, jax.Array]:
        together: dict[str, list[Array]] = {}
        for leaf in jax.tree.leaves(tree):
            matrix = as_matrix(leaf)
            together.setdefault(group(matrix), []).append(matrix)
        return {shape: jnp.stack(matrices) for shape, matrices in together.items()}

    def update(updates: Parameters, state: optax.OptState, params: Parameters | None = None) -> tuple:
        leaves, structure = jax.tree.flatten(updates)
        outputs, state = inner.update(stack(updates), state, None if params is None else stack(params))
        rest = {shape: iter(matrices) for shape, matrices in outputs.items()}
        return structure.unflatten([next(rest[group(as_matrix(leaf))]).reshape(leaf.shape) for leaf in leaves]), state

    return optax.GradientTransformation(lambda params: inner.init(stack(params)), update)


def _like(tree: Parameters, params: Parameters) -> Parameters:
    """`tree` with the gaps that `optax.partition` leaves in `params` where leaves belong to another group."""
    masked = optax.MaskedNode
    return jax.tree.map(
        lambda p, t: p if isinstance(p, masked) else t, params, tree, is_leaf=lambda p: isinstance(p, masked)
    )
