"""The settings of a transformer's layers: sizes, dropout, norms and activation."""

from typing import Literal

from pydantic import model_validator

from vlm_jax.settings.groups import Group
from vlm_jax.settings.rules import Count, Positive, ShareBelowOne, nearest_multiple

Activation = Literal["gelu", "gelu_new", "quick_gelu", "relu"]
GatedActivation = Literal[Activation, "swiglu"]


class LayerSizes(Group):
    """The widths and the number of layers."""

    hidden_size: Count = 128
    """Width of the layers (D)."""
    intermediate_size: Count = 512
    """Width of the feed-forward layers."""
    num_attention_heads: Count = 4
    """Attention heads."""
    num_layers: Count = 2
    """Layers one after the other."""

    @model_validator(mode="after")
    def check_heads(self) -> "LayerSizes":
        """The heads share the hidden size."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}; "
                f"the nearest hidden size is {nearest_multiple(self.hidden_size, self.num_attention_heads)}"
            )
        return self


class Layers(LayerSizes):
    """The trunk's layers."""

    hidden_dropout_prob: ShareBelowOne = 0.0
    """Dropout after embeddings, attention and feed-forward layers."""
    attention_probs_dropout_prob: ShareBelowOne = 0.0
    """Dropout on attention weights."""
    use_qk_norm: bool = False
    """An RMS norm of each head's queries and keys (Henry et al. 2020, Dehghani et al. 2023)."""


class ActivationAndNorm(Group):
    """Activation and norms that pretrained weights prescribe; the defaults are BERT's."""

    hidden_act: Activation = "gelu"
    """Feed-forward activation: `gelu` is BERT's, exact; `gelu_new` the tanh approximation; `quick_gelu` CLIP's."""
    layer_norm_eps: Positive = 1e-12
    """Epsilon of every layer norm."""


class LayerStack(Layers, ActivationAndNorm):
    """Everything that a layer of a transformer, or a row of layers, reads."""

    hidden_act: GatedActivation = "gelu"
    """Feed-forward activation; `swiglu` has a gate for each channel."""
    pre_norm: bool = False
    """Norm what attention and feed-forward layers read, as ViT does, and not their sum with the stream, as BERT."""
    layer_scale: bool = False
    """Scale each channel of what attention and feed-forward layers add (CaiT, DINOv2)."""
    dropout_after: Literal["both", "attention", "feed_forward"] = "both"
    """The parts of a layer behind which `hidden_dropout_prob` holds: ALBERT's attention, DistilBERT's feed-forward."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Type of activations and products; parameters, softmax, norms and loss stay float32. float64, which JAX has with
    `jax_enable_x64` alone, is for proofs."""
    remat: bool = False
    """Recompute each layer in the backward pass."""
    scan_layers: bool = False
    """Compile one layer and loop over it."""
