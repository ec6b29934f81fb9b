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
