"""Matrix products whose gradients are of the form that is fast on a CPU: [m, k] @ [k, n], both as they lie."""

import jax
from jaxtyping import Array, Float


def turned(x: Float[Array, "*b m n"]) -> Float[Array, "*b n m"]:
    """The transposed matrix, written out: XLA would fold it into a product that is slower by more than the copy."""
    return jax.lax.optimization_barrier(x.swapaxes(-1, -2))


def product(x: Float[Array, "*n C"], kernel: Float[Array, "C F"]) -> Float[Array, "*n F"]:
    """`x @ kernel`, with the fast gradient of the kernel; reverse mode only."""
    return _product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _product(x, kernel):
    return x @ kernel


_product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), lambda saved, g: (g @ saved[1].T, turned(saved[0]) @ g))


def batched_product(x: Float[Array, "*b m k"], y: Float[Array, "*b k n"]) -> Float[Array, "*b m n"]:
    """`x @ y` for each of many matrices; on a CPU with gradients in the fast form, and then reverse mode only."""
    return _batched_product(x, y) if jax.default_backend() == "cpu" else x @ y


def batched_scores(x: Float[Array, "*b m k"], y: Float[Array, "*b n k"]) -> Float[Array, "*b m n"]:
    """`x @ y^T` for each of many matrices; on a CPU with gradients in the fast form, and then reverse mode only."""
    return _batched_scores(x, y) if jax.default_backend() == "cpu" else x @ y.swapaxes(-1, -2)


@jax.custom_vjp
def _batched_product(x, y):
    return x @ y


@jax.custom_vjp
def _batched_scores(x, y):
    return x @ y.swapaxes(-1, -2)


_batched_product.defvjp(
    lambda x, y: (_batched_product(x, y), (x, y)),
    lambda saved, g: (g @ turned(saved[1]), turned(saved[0]) @ g),
)
_batched_scores.defvjp(
    lambda x, y: (_batched_scores(x, y), (x, y)),
    lambda saved, g: (g @ saved[1], turned(g) @ saved[0]),
)
