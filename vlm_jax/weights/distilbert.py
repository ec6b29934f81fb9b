"""DistilBERT: BERT without segments and without a pooler, under names of its own."""

from functools import partial

from vlm_jax.weights import bert_tables
from vlm_jax.weights.dropout import DropoutNames
from vlm_jax.weights.family import TRAINED, ConvertedArchitecture, Family, PublishedClass, PublishedFile
from vlm_jax.weights.tables import Row
from vlm_jax.weights.text_heads import HeadNames, head_rows, head_tensors, outside, text_architecture

KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "max_position_embeddings": "max_position_embeddings",
}
LAYER = {
    "attention/query": "attention.q_lin",
    "attention/key": "attention.k_lin",
    "attention/value": "attention.v_lin",
    "attention/output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "intermediate": "ffn.lin1",
    "output": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
HEADS = HeadNames(
    pooler="",
    words=("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector"),
    sequence=("pre_classifier", "classifier"),
    sequence_act="relu",
    dropout=DropoutNames(
        "dropout", "attention_dropout", after="feed_forward", before_transform=False,
        heads=(("sequence", "seq_classif_dropout"), ("spans", "qa_dropout"), ("tokens", "dropout")),
    ),
)  # fmt: skip


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    model = bert_tables.encoder_architecture(file.config, KEYS, layer_norm_eps=1e-12, type_vocab_size=0)
    return text_architecture(file, model, HEADS, bert_tables.pad_id(file.config, 0))


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = bert_tables.encoder(architecture.model, "transformer.layer.{}", LAYER)
    return rows + head_rows(HEADS, architecture.parts)


DISTILBERT = Family(
    name="distilbert",
    prefix="distilbert",
    recognise=("transformer.layer.0.sa_layer_norm.weight",),
    trunk_names=("embeddings.", "transformer.layer."),
    classes={
        "DistilBertModel": PublishedClass((), alone=True),
        "DistilBertForMaskedLM": PublishedClass(("words",), alone=True),
        "DistilBertForSequenceClassification": PublishedClass(("sequence",)),
        "DistilBertForMultipleChoice": PublishedClass((), ("pre_classifier.", *bert_tables.LABELS)),
        "DistilBertForTokenClassification": PublishedClass(("tokens",), alone=True),
        "DistilBertForQuestionAnswering": PublishedClass(("spans",), alone=True),
    },
    heads=head_tensors(HEADS),
    settings=_settings,
    rows=_rows,
    config=partial(bert_tables.encoder_config, keys=KEYS),
    tied=("vocab_projector.weight", "embeddings.word_embeddings.weight"),
    outside=outside(HEADS),
    proven=TRAINED,
)
