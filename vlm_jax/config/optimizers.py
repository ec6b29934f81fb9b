"""Optimizers, each with the settings of its own."""

from typing import Annotated, Literal

from vlm_jax.settings.groups import CHOICE, Group
from vlm_jax.settings.rules import NotNegative, Positive, ShareBelowOne, Whole


class Optimizer(Group):
    """How gradients become updates."""

    learning_rate: NotNegative = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after warm-up, to zero (or none)."""
    warmup_steps: Whole = 100
    """Optimizer steps of linear warm-up."""
    weight_decay: NotNegative = 0.05
    """Decoupled weight decay."""
    no_decay: tuple[str, ...] = (r"(^|/)(bias|scale)$", r"(^|/)embedding$")
    """Parameters whose path matches one of these regular expressions are not decayed."""
    clip_norm: Positive | None = 1.0
    """Gradients are scaled down to this global norm."""
    multipliers: tuple[tuple[str, NotNegative], ...] = ()
    """(regular expression, factor) pairs: learning-rate factors of the parameters whose path matches."""
    frozen: tuple[str, ...] = ()
    """Parameters whose path matches one of these regular expressions are not trained."""
    ema: ShareBelowOne | None = None
    """Decay of an exponential moving average of the parameters, which evaluation then uses."""


class Adam(Optimizer):
    """Adam's moments."""

    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.98)
    """Decay of Adam's first and second moment."""
    epsilon: Positive = 1e-8
    """Adam's epsilon."""


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"


class Muon(Adam):
    """Muon for chosen matrices and convolutions, AdamW for the rest: fewer steps."""

    kind: Literal["muon"] = "muon"
    matrices: tuple[str, ...] = (r"^trunk/",)
    """Muon takes matrices and convolutions whose path matches one of these regular expressions."""


class SGD(Optimizer):
    """Plain gradient descent."""

    kind: Literal["sgd"] = "sgd"


TrunkOptimizer = Annotated[AdamW | Muon | SGD, CHOICE]
