"""What BERT, RoBERTa, DistilBERT and VisualBERT share: rows of their tables, and settings of config.json.

Names and defaults are those of transformers' modeling and configuration files of each. Settings that a config.json
leaves out are the default of the class, except numbers that decide shapes.
"""

from collections.abc import Mapping

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.family import ConvertedArchitecture, choice, number
from vlm_jax.weights.tables import SAME, Row, linear, norm, table

MOST_LAYERS = 1000
ACTIVATIONS = ("gelu", "gelu_new", "relu")
# Beginnings of the names of heads that several classes have and none of ours stands for.
LABELS = ("classifier.",)  # SequenceClassification, TokenClassification, MultipleChoice
SPANS = ("qa_outputs.",)  # QuestionAnswering


def layer(source: str, target: str, names: Mapping[str, str]) -> list[Row]:
    """One transformer layer; `names` maps our modules to those of the source."""
    rows = []
    for path, name in names.items():
        rows += (norm if path.endswith("_norm") else linear)(f"{source}.{name}", f"{target}/{path}")
    return rows


def encoder(model: Architecture, layers: str, names: Mapping[str, str]) -> list[Row]:
    """Embeddings and layers; `layers` is the beginning of a layer's name."""
    rows = table("embeddings.word_embeddings", "text/word")
    rows += table("embeddings.position_embeddings", "text/position")
    if model.type_vocab_size:
        rows += table("embeddings.token_type_embeddings", "text/segment")
    rows += norm("embeddings.LayerNorm", "embed/norm")
    for index in range(model.num_layers):
        rows += layer(f"{layers}.{index}", f"trunk/layer_{index}", names)
    return rows


def words_head(transform: str, normalise: str, bias: str, decoder: str, *, tied: bool = True) -> list[Row]:
    """The masked-word head."""
    rows = linear(transform, "head/words/transform") + norm(normalise, "head/words/norm")
    rows += [Row((bias,), ("head/words/bias",), SAME)]
    return rows if tied else rows + linear(decoder, "head/words/decoder", bias=False)


def encoder_architecture(
    config: Mapping[str, Json],
    keys: Mapping[str, str],
    *,
    layer_norm_eps: float,
    type_vocab_size: int,
    first_position: int = 0,
) -> Architecture:
    """The trunk and text side that a config.json describes; `keys` maps our settings to the family's."""
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
        hidden_act=choice(config, keys["hidden_act"], "gelu", ACTIVATIONS),
        layer_norm_eps=layer_norm_eps,
        image=Features(),
        vocab_size=number(config, "vocab_size"),
        text_feature_size=width,
        max_position_embeddings=number(config, "max_position_embeddings"),
        type_vocab_size=type_vocab_size,
        first_position=first_position,
    )


def encoder_config(architecture: ConvertedArchitecture, keys: Mapping[str, str]) -> dict[str, Json]:
    """The config.json of an export: the inverse of `encoder_architecture`."""
    settings = {key: getattr(architecture.model, setting) for setting, key in keys.items()}
    return settings | {"tie_word_embeddings": "decoder" not in architecture.parts}


def pad_id(config: Mapping[str, Json], default: int) -> int | None:
    """`padding_idx` of the word table; None where config.json says null."""
    if config.get("pad_token_id", default) is None:
        return None
    return number(config, "pad_token_id", default, least=0)
