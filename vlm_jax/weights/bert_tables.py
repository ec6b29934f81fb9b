"""What text encoders share: rows of their tables, and settings of config.json.

Names and defaults are those of transformers' modeling and configuration files of each. Settings that a config.json
leaves out are the default of the class, except numbers that decide shapes.
"""

from collections.abc import Mapping

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.family import ConvertedArchitecture, choice, number
from vlm_jax.weights.tables import Row, linear, norm, table
from vlm_jax.weights.text_heads import head_config

MOST_LAYERS = 1000
ACTIVATIONS = ("gelu", "gelu_new", "relu")
# Beginnings of the names of heads that several classes have and none of ours stands for.
LABELS = ("classifier.",)  # MultipleChoice


def layer(source: str, target: str, names: Mapping[str, str]) -> list[Row]:
    """One transformer layer; `names` maps our modules to those of the source."""
    rows = []
    for path, name in names.items():
        rows += (norm if path.endswith("_norm") else linear)(f"{source}.{name}", f"{target}/{path}")
    return rows


def encoder(model: Architecture, layers: str, names: Mapping[str, str]) -> list[Row]:
    """Embeddings and layers; `layers` is a layer's name with {} for its number."""
    rows = table("embeddings.word_embeddings", "text/word")
    rows += table("embeddings.position_embeddings", "text/position")
    if model.type_vocab_size:
        rows += table("embeddings.token_type_embeddings", "text/segment")
    rows += norm("embeddings.LayerNorm", "embed/norm")
    for index in range(model.num_hidden_groups or model.num_layers):
        rows += layer(layers.format(index), f"trunk/layer_{index}", names)
    return rows


def encoder_architecture(
    config: Mapping[str, Json],
    keys: Mapping[str, str],
    *,
    layer_norm_eps: float,
    type_vocab_size: int,
    first_position: int = 0,
    hidden_act: str = "gelu",
) -> Architecture:
    """The trunk and text side that a config.json describes; `keys` maps our settings to the family's.

    `hidden_act` is the default of the family.
    """
    width, heads = number(config, keys["hidden_size"]), number(config, keys["num_attention_heads"])
    if width % heads:
        raise InputError(f"config.json says {keys['num_attention_heads']} = {heads}, no divisor of the width {width}")
    return Architecture(
        fusion="concat",
        attention_pattern="bidirectional",
        head="cls",
        hidden_size=width,
        num_attention_heads=heads,
        num_layers=number(config, keys["num_layers"], most=MOST_LAYERS),
        intermediate_size=number(config, keys["intermediate_size"]),
        hidden_act=choice(config, keys["hidden_act"], hidden_act, ACTIVATIONS),
        layer_norm_eps=layer_norm_eps,
        image=Features(),
        vocab_size=number(config, "vocab_size"),
        text_feature_size=number(config, keys.get("text_feature_size", keys["hidden_size"])),
        max_position_embeddings=number(config, "max_position_embeddings"),
        type_vocab_size=type_vocab_size,
        first_position=first_position,
    )


def encoder_config(architecture: ConvertedArchitecture, keys: Mapping[str, str]) -> dict[str, Json]:
    """The config.json of an export: the inverse of `encoder_architecture`, with what its heads say."""
    settings = {key: getattr(architecture.model, setting) for setting, key in keys.items()}
    return settings | head_config(architecture)


def refuse_decoder(config: Mapping[str, Json]) -> None:
    """`InputError` where config.json says what only the class of a decoder has."""
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise InputError("config.json says it is a decoder; of its family encoders can be ported")


def pad_id(config: Mapping[str, Json], default: int) -> int | None:
    """`padding_idx` of the word table; None where config.json says null."""
    if config.get("pad_token_id", default) is None:
        return None
    return number(config, "pad_token_id", default, least=0)
