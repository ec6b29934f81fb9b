"""ELECTRA: BERT with a projection behind its embeddings, a discriminator's head and a generator's."""

from functools import partial

from vlm_jax.settings.changes import with_changes
from vlm_jax.weights import bert_tables
from vlm_jax.weights.bert import BERT, LAYER, LAYERS, TRUNK
from vlm_jax.weights.bert import KEYS as BERT_KEYS
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

KEYS = BERT_KEYS | {"text_feature_size": "embedding_size"}
HEADS = HeadNames(
    pooler="",
    words=(
        "generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias",
        "generator_lm_head",
    ),
    sequence=("classifier.dense", "classifier.out_proj"),
    sequence_act="gelu",
    replaced=("discriminator_predictions.dense", "discriminator_predictions.dense_prediction"),
)  # fmt: skip
SUMMARY = ("sequence_summary.", *bert_tables.LABELS)  # MultipleChoice


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    choice(config, "position_embedding_type", "absolute", ("absolute",))
    bert_tables.refuse_decoder(config)
    if "words" in file.parts:
        choice(config, "hidden_act", "gelu", ("gelu",))  # the generator's head has this one built in
    model = bert_tables.encoder_architecture(
        config,
        KEYS,
        layer_norm_eps=real(config, "layer_norm_eps", 1e-12),
        type_vocab_size=number(config, "type_vocab_size", 2),
    )
    model = with_changes(model, {"project_embeddings": model.text_feature_size != model.hidden_size})
    return text_architecture(file, model, HEADS, bert_tables.pad_id(config, 0))


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = bert_tables.encoder(architecture.model, LAYERS, LAYER)
    rows += linear("embeddings_project", "embed/text_fc") if architecture.model.project_embeddings else []
    return rows + head_rows(HEADS, architecture.parts)


ELECTRA = Family(
    name="electra",
    prefix="electra",
    recognise=BERT.recognise,
    trunk_names=(*TRUNK, "embeddings_project."),
    classes={
        "ElectraModel": PublishedClass(),
        "ElectraForPreTraining": PublishedClass(("replaced",), alone=True),
        "ElectraForMaskedLM": PublishedClass(("words",), alone=True),
        "ElectraForSequenceClassification": PublishedClass(("sequence",), alone=True),
        "ElectraForMultipleChoice": PublishedClass((), SUMMARY),
        "ElectraForTokenClassification": PublishedClass(("tokens",), alone=True),
        "ElectraForQuestionAnswering": PublishedClass(("spans",), alone=True),
    },
    heads=head_tensors(HEADS),
    settings=_settings,
    rows=_rows,
    config=partial(bert_tables.encoder_config, keys=KEYS),
    tied=("generator_lm_head.weight", "embeddings.word_embeddings.weight"),
    outside=outside(HEADS),
    proven=TRAINED,
)
