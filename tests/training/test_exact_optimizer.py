"""The optimizer's own arithmetic against NumPy's float64: what float32 rounds, and nothing more."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vlm_jax.config.optimizers import SGD, AdamW
from vlm_jax.training.optimizer import learning_rate_schedule, make_optimizer

STEPS = 1000
ROUNDING = 8e-7  # units in the last place of float32; a rounded b^t is 1e-5 off, 1 - count / steps at its end, too


def exact_rate(step, peak, kind, warmup):
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    left = (STEPS - step) / (STEPS - warmup)
    return peak * {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[kind]


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 10, STEPS])
def test_schedule(kind, warmup):
    settings = SGD(learning_rate=3e-4, schedule=kind, warmup_steps=warmup)
    steps = range(STEPS)
    rates = jax.jit(jax.vmap(learning_rate_schedule(settings, STEPS)))(jnp.arange(STEPS, dtype=jnp.int32))
    exact = np.array([exact_rate(step, 3e-4, kind, warmup) for step in steps])
    assert rates.dtype == jnp.float32
    np.testing.assert_allclose(rates, exact, rtol=ROUNDING)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.98), (0.0, 0.9999)])
def test_adam(betas):
    """Each update is that of the moments in the state, with bias corrections that nothing rounded."""
    settings = AdamW(learning_rate=1.0, schedule="constant", warmup_steps=0, betas=betas, clip_norm=None)
    params = {"bias": jnp.zeros(2)}  # not decayed
    optimizer = make_optimizer(settings, params, steps=STEPS)

    def step(state, _):
        updates, state = optimizer.update({"bias": jnp.array([0.5, -3.0])}, state, params)
        return state, (updates["bias"], *(optax.tree.get(state, name)["bias"] for name in ("mu", "nu")))

    outputs = jax.jit(lambda state: jax.lax.scan(step, state, length=STEPS)[1])(optimizer.init(params))
    updates, mean, square = (np.asarray(x, np.float64) for x in outputs)
    first, second = (1 - np.float64(beta) ** np.arange(1, STEPS + 1)[:, None] for beta in betas)
    np.testing.assert_allclose(updates, -mean / first / np.sqrt(square / second), rtol=ROUNDING)
