"""ALBERT: layers that share their parameters, a projection behind the embeddings, and a sentence-order head."""

from functools import partial

from vlm_jax.settings.changes import with_changes
from vlm_jax.weights import bert_tables
from vlm_jax.weights.bert import KEYS as BERT_KEYS
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
)
from vlm_jax.weights.tables import Row, linear
from vlm_jax.weights.text_heads import HeadNames, head_rows, head_tensors, outside, text_architecture

KEYS = BERT_KEYS | {"text_feature_size": "embedding_size", "num_hidden_groups": "num_hidden_groups"}
LAYER = {
    "attention/query": "attention.query",
    "attention/key": "attention.key",
    "attention/value": "attention.value",
    "attention/output": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "intermediate": "ffn",
    "output": "ffn_output",
    "output_norm": "full_layer_layer_norm",
}
GROUPS = "encoder.albert_layer_groups.{}.albert_layers.0"
HEADS = HeadNames(
    pooler="pooler",
    words=("predictions.dense", "predictions.LayerNorm", "predictions.bias", "predictions.decoder"),
    pairs="sop_classifier.classifier",
    dropout=DropoutNames(
        default=0.0, after="attention", before_transform=False,
        heads=tuple((part, "classifier_dropout_prob") for part in ("pairs", "sequence", "tokens")),
    ),
)  # fmt: skip


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    choice(config, "position_embedding_type", "absolute", ("absolute",))
    number(config, "inner_group_num", 1, most=1)
    model = bert_tables.encoder_architecture(
        config,
        KEYS,
        layer_norm_eps=real(config, "layer_norm_eps", 1e-12),
        type_vocab_size=number(config, "type_vocab_size", 2),
        hidden_act="gelu_new",
    )
    groups = number(config, "num_hidden_groups", 1, most=model.num_layers)
    model = with_changes(model, {"project_embeddings": True, "num_hidden_groups": groups})
    return text_architecture(file, model, HEADS, bert_tables.pad_id(config, 0))


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = bert_tables.encoder(architecture.model, GROUPS, LAYER)
    rows += linear("encoder.embedding_hidden_mapping_in", "embed/text_fc")
    return rows + head_rows(HEADS, architecture.parts)


ALBERT = Family(
    name="albert",
    prefix="albert",
    recognise=("encoder.embedding_hidden_mapping_in.weight", "embeddings.word_embeddings.weight"),
    trunk_names=("embeddings.", "encoder."),
    classes={
        "AlbertModel": PublishedClass(("pooler",), alone=True),
        "AlbertForPreTraining": PublishedClass(("pooler", "words", "pairs"), alone=True),
        "AlbertForMaskedLM": PublishedClass(("words",), alone=True),
        "AlbertForSequenceClassification": PublishedClass(("pooler", "sequence")),
        "AlbertForMultipleChoice": PublishedClass(("pooler",), bert_tables.LABELS),
        "AlbertForTokenClassification": PublishedClass(("tokens",), alone=True),
        "AlbertForQuestionAnswering": PublishedClass(("spans",), alone=True),
    },
    heads=head_tensors(HEADS),
    settings=_settings,
    rows=_rows,
    config=partial(bert_tables.encoder_config, keys=KEYS),
    aliases={"predictions.decoder.bias": "predictions.bias"},
    tied=("predictions.decoder.weight", "embeddings.word_embeddings.weight"),
    outside=outside(HEADS),
    proven=TRAINED,
    optional_pooler=True,
)
