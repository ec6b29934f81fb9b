"""RoBERTa: BERT with positions from 2, one segment, and heads with names of their own.

XLM-R, CamemBERT and Data2Vec's text model have the same architecture under names of their own.
"""

import dataclasses

from vlm_jax.types import Json
from vlm_jax.weights import bert_tables
from vlm_jax.weights.bert import BERT, TRUNK, bert_architecture, bert_config, bert_rows
from vlm_jax.weights.family import (
    TRAINED,
    ConvertedArchitecture,
    Family,
    PublishedClass,
    PublishedFile,
    choice,
    number,
    same_architecture,
)
from vlm_jax.weights.tables import Row
from vlm_jax.weights.text_heads import HeadNames, head_tensors, outside, text_architecture

HEADS = HeadNames(
    words=("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
    sequence=("classifier.dense", "classifier.out_proj"),
    sequence_act="tanh",
)
WORD_ALIASES = {"lm_head.decoder.bias": "lm_head.bias"}
TIED = ("lm_head.decoder.weight", "embeddings.word_embeddings.weight")


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    first = number(file.config, "pad_token_id", 1, least=0) + 1
    model = bert_architecture(file.config, first_position=first)
    if "words" in file.parts:
        choice(file.config, "hidden_act", "gelu", ("gelu",))  # lm_head has this one built in
    return text_architecture(file, model, HEADS, first - 1)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    return bert_rows(architecture, HEADS)


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    return bert_config(architecture) | {"pad_token_id": architecture.model.first_position - 1}


ROBERTA = Family(
    name="roberta",
    prefix="roberta",
    recognise=BERT.recognise,
    trunk_names=TRUNK,
    classes={
        "RobertaModel": PublishedClass(("pooler",)),
        "RobertaForMaskedLM": PublishedClass(("words",)),
        "RobertaForSequenceClassification": PublishedClass(("sequence",)),
        "RobertaForMultipleChoice": PublishedClass(("pooler",), bert_tables.LABELS),
        "RobertaForTokenClassification": PublishedClass(("tokens",)),
        "RobertaForQuestionAnswering": PublishedClass(("spans",)),
    },
    heads=head_tensors(HEADS),
    settings=_settings,
    rows=_rows,
    config=_config,
    aliases=WORD_ALIASES,
    tied=TIED,
    outside=outside(HEADS),
    proven=TRAINED,
    optional_pooler=True,
)
XLM_ROBERTA = same_architecture(ROBERTA, "xlm-roberta", "Roberta", "XLMRoberta")
CAMEMBERT = same_architecture(ROBERTA, "camembert", "Roberta", "Camembert")
DATA2VEC_TEXT = dataclasses.replace(
    same_architecture(ROBERTA, "data2vec-text", "Roberta", "Data2VecText"),
    prefix="data2vec_text",
    alias_of=ROBERTA.name,
)
