"""Hidden states and attention weights of a forward pass, collected from its modules as they are called."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.models.attention import CrossAttention
from vlm_jax.models.bert import BertLayer


class States(NamedTuple):
    """What the layers of a model with one text an example computed."""

    hidden_states: tuple[Float[Array, "B N D"], ...]
    """Of the embeddings and of every layer."""
    attentions: tuple[Float[Array, "B H N N"], ...]
    cross_attentions: tuple[Float[Array, "B H N M"], ...]


class Recording(NamedTuple):
    """What came out of the layers so far, in the order of their calls."""

    hidden_states: list[Float[Array, "B 1 N D"]]
    attentions: list[Float[Array, "B H 1 N N"]]
    cross_attentions: list[Float[Array, "B H 1 N M"]]

    def states(self, length: int, *, grid_length: int = 0) -> States:
        """Those of `length` tokens without the axis of texts, the first `grid_length` of them moved to the end.

        So words stand before grid positions, as in VisualBERT. What else `embed` returned of another stream is left
        out.
        """

        def turned(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
            return jnp.roll(x, -grid_length, axis) if grid_length else x

        return States(
            tuple(turned(x[:, 0, -length:], 1) for x in self.hidden_states),
            tuple(turned(turned(x[:, :, 0], 2), 3) for x in self.attentions),
            tuple(x[:, :, 0] for x in self.cross_attentions),
        )


@contextmanager
def record() -> Iterator[Recording]:
    """Collect what every layer, its attention and the module `embed` return inside the `with` block.

    Layers must be unrolled: inside `scan_layers` and `remat` what they return is not there afterwards.
    """
    recording = Recording([], [], [])

    def collect(call, arguments, options, context):
        result, module = call(*arguments, **options), context.module
        if context.method_name == "attention_weights":
            is_cross = isinstance(module, CrossAttention)
            (recording.cross_attentions if is_cross else recording.attentions).append(result)
        elif context.method_name == "__call__" and isinstance(module, BertLayer):
            recording.hidden_states.append(result[0])
        elif context.method_name == "__call__" and module.name == "embed":
            recording.hidden_states.append(_embedded(result))
        return result

    with nn.intercept_methods(collect):
        yield recording


def _embedded(
    streams: Float[Array, "B N D"] | tuple[Float[Array, "B 1 M D"], Float[Array, "B 1 T D"]],
) -> Float[Array, "B 1 N D"]:
    """The tokens of an image transformer, or both streams, the image's first."""
    return streams[:, None] if isinstance(streams, jax.Array) else jnp.concatenate(streams, axis=2)
