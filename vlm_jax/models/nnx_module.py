"""A Linen module with parameters as a module of Flax NNX."""

from flax import linen as nn
from flax import nnx
from flax.nnx.bridge import ToNNX
from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs

from vlm_jax.types import Parameters


def to_nnx(module: nn.Module, params: Parameters) -> ToNNX:
    """`flax.nnx.bridge.ToNNX` of the module, which is initialised with `params` and needs no sample input."""
    converted = ToNNX(module)
    for name, value in linen_vars_to_nnx_attrs({"params": params}).items():
        setattr(converted, name, nnx.data(value))
    return converted
