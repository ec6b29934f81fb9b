"""The dropout that a text model was trained with: its rates in config.json, and the places where its class has them."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import HeadDropout, Part
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json

CLASSIFIER = (("sequence", "classifier_dropout"), ("tokens", "classifier_dropout"))
DEFAULTS = {"classifier_dropout_prob": 0.1, "seq_classif_dropout": 0.2, "qa_dropout": 0.1}
"""Of transformers' configuration files; every other key of a head falls back on the trunk's rate."""


class DropoutNames(NamedTuple):
    """A family's keys in config.json, and where its layers and heads have dropout."""

    hidden: str = "hidden_dropout_prob"
    attention: str = "attention_probs_dropout_prob"
    default: float = 0.1
    """Of both, where config.json has none."""
    after: Literal["both", "attention", "feed_forward"] = "both"
    heads: tuple[tuple[Part, str], ...] = CLASSIFIER
    """The key of each head that has dropout before its logits."""
    before_transform: bool = True
    """Whether the same rate holds before the dense layer of the sequence head."""


def trunk_dropout(model: Architecture, config: Mapping[str, Json], names: DropoutNames) -> Architecture:
    """The model with the rates that config.json has."""
    rates = {
        "hidden_dropout_prob": _rate(config, names.hidden, names.default),
        "attention_probs_dropout_prob": _rate(config, names.attention, names.default),
    }
    return with_changes(model, rates | {"dropout_after": names.after})


def head_dropout(
    parts: tuple[Part, ...], model: Architecture, config: Mapping[str, Json], names: DropoutNames
) -> HeadDropout:
    """The rates of a model's heads; `model` has those of its trunk."""
    keys = [key for part, key in names.heads if part in parts]
    if not keys:
        return HeadDropout()
    rate = _rate(config, keys[0], DEFAULTS.get(keys[0], model.hidden_dropout_prob))
    before_transform = names.before_transform and "sequence" in parts
    return HeadDropout(rate if before_transform else 0.0, rate)


def _rate(config: Mapping[str, Json], name: str, default: float) -> float:
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise InputError(f"config.json says {name} = {value!r}; expected a share from 0 to below 1")
    return float(value)
