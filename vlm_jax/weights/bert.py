"""BERT, and RoBERTa: BERT with positions from 2, one segment, and a masked-word head with names of its own."""

from collections.abc import Mapping

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import Part
from vlm_jax.types import Json
from vlm_jax.weights import bert_tables
from vlm_jax.weights.family import ConvertedArchitecture, Family, PublishedClass, PublishedFile, choice, number, real
from vlm_jax.weights.tables import Row, linear, source_names

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
WORDS = (
    "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias",
    "cls.predictions.decoder",
)  # fmt: skip
POOLER = source_names(linear("pooler.dense", ""))
ROBERTA_WORDS = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder")


def bert_architecture(config: Mapping[str, Json], *, first_position: int = 0) -> Architecture:
    """The model that a config.json with BERT's keys describes."""
    choice(config, "position_embedding_type", "absolute", ("absolute",))
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise InputError("config.json says it is a decoder; encoders can be ported")
    epsilon, segments = real(config, "layer_norm_eps", 1e-12), number(config, "type_vocab_size", 2)
    return bert_tables.encoder_architecture(
        config, KEYS, layer_norm_eps=epsilon, type_vocab_size=segments, first_position=first_position
    )


def bert_rows(architecture: ConvertedArchitecture) -> list[Row]:
    """The encoder and the heads that the architecture has."""
    return bert_tables.encoder(architecture.model, "encoder.layer", LAYER) + _heads(architecture.parts, WORDS)


def _heads(parts: tuple[Part, ...], words: tuple[str, str, str, str]) -> list[Row]:
    rows = linear("pooler.dense", "head/pooler") if "pooler" in parts else []
    rows += bert_tables.words_head(*words, tied="decoder" not in parts) if "words" in parts else []
    return rows + (linear("cls.seq_relationship", "head/pairs") if "pairs" in parts else [])


def bert_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    """The config.json of an export."""
    return bert_tables.encoder_config(architecture, KEYS)


def _bert_settings(file: PublishedFile) -> ConvertedArchitecture:
    return ConvertedArchitecture(bert_architecture(file.config), file.parts, pad_id=bert_tables.pad_id(file.config, 0))


BERT_TRUNK = (
    "embeddings.word_embeddings.", "embeddings.position_embeddings.", "embeddings.token_type_embeddings.",
    "embeddings.LayerNorm.", "encoder.layer.",
)  # fmt: skip
BERT_HEADS: dict[Part, tuple[str, ...]] = {
    "pooler": POOLER,
    "words": source_names(bert_tables.words_head(*WORDS)),
    "decoder": ("cls.predictions.decoder.weight",),
    "pairs": source_names(linear("cls.seq_relationship", "")),
}

BERT = Family(
    name="bert",
    prefix="bert",
    recognise=("encoder.layer.0.attention.self.query.weight", "embeddings.position_embeddings.weight"),
    trunk_names=BERT_TRUNK,
    classes={
        "BertModel": PublishedClass(("pooler",)),
        "BertForMaskedLM": PublishedClass(("words",)),  # the same names as BertLMHeadModel, which sees the past alone
        "BertForPreTraining": PublishedClass(("pooler", "words", "pairs"), alone=True),
        "BertForNextSentencePrediction": PublishedClass(("pooler", "pairs"), alone=True),
        "BertForSequenceClassification": PublishedClass(("pooler",), bert_tables.LABELS),
        "BertForMultipleChoice": PublishedClass(("pooler",), bert_tables.LABELS),
        "BertForTokenClassification": PublishedClass((), bert_tables.LABELS),
        "BertForQuestionAnswering": PublishedClass((), bert_tables.SPANS),
    },
    heads=BERT_HEADS,
    settings=_bert_settings,
    rows=bert_rows,
    config=bert_config,
    aliases={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    tied=("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
    outside=("cls.",),
    optional_pooler=True,
)


def _roberta_settings(file: PublishedFile) -> ConvertedArchitecture:
    first = number(file.config, "pad_token_id", 1, least=0) + 1
    model = bert_architecture(file.config, first_position=first)
    if "words" in file.parts:
        choice(file.config, "hidden_act", "gelu", ("gelu",))  # lm_head has this one built in
    return ConvertedArchitecture(model, file.parts, pad_id=first - 1)


def _roberta_rows(architecture: ConvertedArchitecture) -> list[Row]:
    return bert_tables.encoder(architecture.model, "encoder.layer", LAYER) + _heads(architecture.parts, ROBERTA_WORDS)


def _roberta_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    return bert_config(architecture) | {"pad_token_id": architecture.model.first_position - 1}


ROBERTA = Family(
    name="roberta",
    prefix="roberta",
    recognise=BERT.recognise,
    trunk_names=BERT_TRUNK,
    classes={
        "RobertaModel": PublishedClass(("pooler",)),
        "RobertaForMaskedLM": PublishedClass(("words",)),
        "RobertaForSequenceClassification": PublishedClass((), bert_tables.LABELS),
        "RobertaForMultipleChoice": PublishedClass(("pooler",), bert_tables.LABELS),
        "RobertaForTokenClassification": PublishedClass((), bert_tables.LABELS),
        "RobertaForQuestionAnswering": PublishedClass((), bert_tables.SPANS),
    },
    heads={
        "pooler": POOLER,
        "words": source_names(bert_tables.words_head(*ROBERTA_WORDS)),
        "decoder": ("lm_head.decoder.weight",),
    },
    settings=_roberta_settings,
    rows=_roberta_rows,
    config=_roberta_config,
    aliases={"lm_head.decoder.bias": "lm_head.bias"},
    tied=("lm_head.decoder.weight", "embeddings.word_embeddings.weight"),
    outside=("lm_head.",),
    optional_pooler=True,
)
