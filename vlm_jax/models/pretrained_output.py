"""What published encoders compute, under their heads' names and those of transformers' outputs."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class PretrainedOutput(NamedTuple):
    """What a pretrained encoder computes of B texts; None where it has no such head.

    Fields are named by the heads. Properties have the names of transformers' outputs.
    """

    text: Float[Array, "B T D"]
    image: Float[Array, "B G D"]
    pooled: Float[Array, "B D"] | None
    words: Float[Array, "B T V"] | None
    """Logits of the masked word at every text position."""
    image_words: Float[Array, "B G V"] | None
    """The same at every grid position, as in VisualBERT."""
    pairs: Float[Array, "B 2"] | None
    """Logits of "the second text follows the first" and "it does not"."""
    answers: Float[Array, "B A"] | None
    sequence: Float[Array, "B A"] | None = None
    """Logits of the classes of a text."""
    tokens: Float[Array, "B T A"] | None = None
    """Logits of the classes of each token."""
    spans: Float[Array, "B T 2"] | None = None
    """Logits of "the answer begins here" and "it ends here"."""
    replaced: Float[Array, "B T"] | None = None
    """Logits of "a generator wrote this token" (Clark et al. 2020)."""
    hidden_states: tuple[Float[Array, "B N D"], ...] | None = None
    """Of the embeddings and of every layer; N is T + G, the words first."""
    attentions: tuple[Float[Array, "B H N N"], ...] | None = None
    """The weights of every layer, query by key."""
    cross_attentions: tuple[Float[Array, "B H T M"], ...] | None = None
    """A decoder's weights over the states of its encoder."""

    @property
    def last_hidden_state(self) -> Float[Array, "B N D"]:
        """The last layer of the words and, behind them, of the grid positions."""
        return jnp.concatenate([self.text, self.image], axis=1) if self.image.shape[1] else self.text

    @property
    def pooler_output(self) -> Float[Array, "B D"] | None:
        """[CLS] through the pooler."""
        return self.pooled

    @property
    def logits(self) -> Float[Array, "B *n A"] | None:
        """Those of the one head that the class has; None for spans, and where masked words and pairs have two."""
        heads = (self.prediction_logits, self.pairs, self.answers, self.sequence, self.tokens, self.replaced)
        logits = [head for head in heads if head is not None]
        return logits[0] if len(logits) == 1 else None

    @property
    def prediction_logits(self) -> Float[Array, "B N V"] | None:
        """Those of the masked word at every position."""
        if self.words is None or not self.image.shape[1]:
            return self.words
        return jnp.concatenate([self.words, self.image_words], axis=1)

    @property
    def seq_relationship_logits(self) -> Float[Array, "B 2"] | None:
        """Those of pairs."""
        return self.pairs

    @property
    def start_logits(self) -> Float[Array, "B T"] | None:
        """Those of "the answer begins here"."""
        return None if self.spans is None else self.spans[..., 0]

    @property
    def end_logits(self) -> Float[Array, "B T"] | None:
        """Those of "the answer ends here"."""
        return None if self.spans is None else self.spans[..., 1]

    def cut(self, length: int) -> "PretrainedOutput":
        """Without the text positions from `length` on; grid positions, which stand behind them, stay."""
        end = self.text.shape[1]
        if length == end:
            return self

        def kept(x: Array, *axes: int) -> Array:
            for axis in axes:
                parts = jnp.split(x, (length, end), axis)
                x = jnp.concatenate([parts[0], parts[2]], axis) if parts[2].shape[axis] else parts[0]
            return x

        def each(states: tuple[Array, ...] | None, *axes: int) -> tuple[Array, ...] | None:
            return None if states is None else tuple(kept(x, *axes) for x in states)

        by_token = ("text", "words", "tokens", "spans", "replaced")
        changes = {name: kept(x, 1) for name in by_token if (x := getattr(self, name)) is not None}
        return self._replace(
            **changes,
            hidden_states=each(self.hidden_states, 1),
            attentions=each(self.attentions, 2, 3),
            cross_attentions=each(self.cross_attentions, 2),
        )


class ImageClassifierOutput(NamedTuple):
    """What a CNN computes of B images."""

    pooler_output: Float[Array, "B C"]
    """The mean of the grid features, with ConvNeXt's norm."""
    logits: Float[Array, "B A"] | None
    """None where there are no classes."""
    last_hidden_state: Float[Array, "B gh gw C"]
    """The grid features; transformers has the channels first."""
