"""What ports of models of images and texts share: rows of two sides in one table, and states of layers by name."""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np

from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import Module
from vlm_jax.types import Json, Parameters
from vlm_jax.weights.family import PublishedFile
from vlm_jax.weights.tables import Row


def side_config(file: PublishedFile, *keys: str) -> Mapping[str, Json]:
    """The settings of one side: the first of these keys that config.json has; nothing where it has none of them."""
    for key in keys:
        nested = file.config.get(key)
        if nested is not None and not isinstance(nested, dict):
            raise InputError(f"config.json says {key} = {nested!r}; expected an object of settings")
        if nested is not None:
            return nested
    return {}


def within(rows: list[Row], source: str, target: str, *, outside: tuple[str, ...] = ()) -> list[Row]:
    """Rows of one side's table in that of the whole model: their names behind `source`, ours below `target`.

    Names that begin as one of `outside` have no prefix.
    """

    def full(name: str) -> str:
        return name if outside and name.startswith(outside) else f"{source}.{name}"

    return [
        Row(tuple(map(full, row.source)), tuple(f"{target}/{path}" for path in row.target), row.transform)
        for row in rows
    ]


@partial(jax.jit, static_argnums=(0, 1))
def run_recorded(
    module: Module, also: tuple[str, ...], params: Parameters, inputs: dict[str, jax.Array]
) -> tuple[tuple, dict[str, Json]]:
    """The module's output, and what its layers, blocks and the modules named in `also` return."""

    def is_wanted(called: Module, _: str) -> bool:
        return called.name in also or str(called.name).startswith(("layer_", "block_"))

    with jax.default_matmul_precision("highest"):
        output, states = module.apply(
            {"params": params}, **inputs, capture_intermediates=is_wanted, mutable=["intermediates"]
        )
    return output, states["intermediates"]


def hidden_states(captured: Mapping[str, Json], count: int, name: str, *, call: int = 0) -> dict[str, np.ndarray]:
    """What a side's layers returned in a call, [B, 1, N, D] each, from the intermediates of its trunk."""
    calls = (captured[f"layer_{index}"]["__call__"][call][0] for index in range(count))
    return {f"{name} layer {index + 1}": np.asarray(x)[:, 0] for index, x in enumerate(calls)}


def padded_with_nan(states: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """States [B, T, D] with NaN where a text is padded."""
    return np.where(mask[..., None], states, np.nan)
