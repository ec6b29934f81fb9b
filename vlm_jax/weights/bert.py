"""BERT, as an encoder and as a decoder: with `is_decoder` a token attends to those before it alone.

With `add_cross_attention` it attends to the states of an encoder in every layer. ERNIE has the same architecture.
"""

import dataclasses
from collections.abc import Mapping

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights import bert_tables
from vlm_jax.weights.dropout import DropoutNames
from vlm_jax.weights.family import (
    TRAINED,
    ConvertedArchitecture,
    Family,
    PublishedClass,
    PublishedFile,
    choice,
    number,
    real,
    same_architecture,
)
from vlm_jax.weights.tables import Row
from vlm_jax.weights.text_heads import HeadNames, head_rows, head_tensors, outside, text_architecture

KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "max_position_embeddings": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
}
"""Our settings, and transformers' names of them."""
LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
LAYERS = "encoder.layer.{}"
CROSS_ATTENTION = {f"cross_{path}": f"cross{name}" for path, name in LAYER.items() if path.startswith("attention")}
HEADS = HeadNames(
    words=(
        "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias",
        "cls.predictions.decoder",
    ),
    pairs="cls.seq_relationship",
    dropout=DropoutNames(before_transform=False),
)  # fmt: skip
TRUNK = (
    "embeddings.word_embeddings.", "embeddings.position_embeddings.", "embeddings.token_type_embeddings.",
    "embeddings.LayerNorm.", "encoder.layer.",
)  # fmt: skip


def bert_architecture(config: Mapping[str, Json], *, first_position: int = 0, decoder: bool = False) -> Architecture:
    """The model that a config.json with BERT's keys describes."""
    choice(config, "position_embedding_type", "absolute", ("absolute",))
    if not decoder:
        bert_tables.refuse_decoder(config)
    epsilon, segments = real(config, "layer_norm_eps", 1e-12), number(config, "type_vocab_size", 2)
    return bert_tables.encoder_architecture(
        config, KEYS, layer_norm_eps=epsilon, type_vocab_size=segments, first_position=first_position
    )


def bert_rows(architecture: ConvertedArchitecture, names: HeadNames = HEADS) -> list[Row]:
    """The encoder and the heads that the architecture has."""
    layer = LAYER | (CROSS_ATTENTION if architecture.model.fusion == "cross" else {})
    return bert_tables.encoder(architecture.model, LAYERS, layer) + head_rows(names, architecture.parts)


def bert_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    """The config.json of an export."""
    config = bert_tables.encoder_config(architecture, KEYS)
    if not architecture.is_decoder:
        return config
    return config | {"is_decoder": True, "add_cross_attention": architecture.model.fusion == "cross"}


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    is_decoder, has_cross_attention = bool(file.config.get("is_decoder")), file.config.get("add_cross_attention")
    known = BERT.classes.get(file.class_name)
    if known and file.class_name != BERT.trunk and known.decoder != is_decoder:
        kind = "a decoder" if known.decoder else "an encoder"
        raise InputError(f"config.json says is_decoder = {is_decoder}, and {file.class_name} is ported as {kind}")
    if has_cross_attention and not is_decoder:
        raise InputError("config.json says add_cross_attention = true without is_decoder = true")
    model = bert_architecture(file.config, decoder=is_decoder)
    if is_decoder:
        fusion = "cross" if has_cross_attention else "concat"
        model = with_changes(model, {"attention_pattern": "causal", "fusion": fusion})
    return text_architecture(file, model, HEADS, bert_tables.pad_id(file.config, 0))


BERT = Family(
    name="bert",
    prefix="bert",
    recognise=("encoder.layer.0.attention.self.query.weight", "embeddings.position_embeddings.weight"),
    trunk_names=TRUNK,
    classes={
        "BertModel": PublishedClass(("pooler",)),
        "BertForMaskedLM": PublishedClass(("words",)),  # the same names as the next, which sees the past alone
        "BertLMHeadModel": PublishedClass(("words",), decoder=True),
        "BertForPreTraining": PublishedClass(("pooler", "words", "pairs"), alone=True),
        "BertForNextSentencePrediction": PublishedClass(("pooler", "pairs"), alone=True),
        "BertForSequenceClassification": PublishedClass(("pooler", "sequence")),
        "BertForMultipleChoice": PublishedClass(("pooler",), bert_tables.LABELS),
        "BertForTokenClassification": PublishedClass(("tokens",)),
        "BertForQuestionAnswering": PublishedClass(("spans",)),
    },
    heads=head_tensors(HEADS),
    settings=_settings,
    rows=bert_rows,
    config=bert_config,
    aliases={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    tied=("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
    outside=outside(HEADS),
    proven=TRAINED,
    optional_pooler=True,
)


def _ernie_settings(file: PublishedFile) -> ConvertedArchitecture:
    if file.config.get("use_task_id"):
        raise InputError("config.json says use_task_id = true, which is not supported; expected false")
    return text_architecture(file, bert_architecture(file.config), HEADS, bert_tables.pad_id(file.config, 0))


_ERNIE = same_architecture(BERT, "ernie", "Bert", "Ernie")
ERNIE = dataclasses.replace(
    _ERNIE,
    prefix="ernie",
    settings=_ernie_settings,
    alias_of=BERT.name,
    classes={name: known for name, known in _ERNIE.classes.items() if not known.decoder},
)
