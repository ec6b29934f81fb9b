"""MPNet: RoBERTa without segments, and with a relative bias that all layers share."""

from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights import bert_tables
from vlm_jax.weights.bert import KEYS as BERT_KEYS
from vlm_jax.weights.bert import LAYERS
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
from vlm_jax.weights.roberta import HEADS as ROBERTA_HEADS
from vlm_jax.weights.roberta import TIED, WORD_ALIASES
from vlm_jax.weights.tables import SAME, Row
from vlm_jax.weights.text_heads import head_rows, head_tensors, outside, text_architecture

KEYS = {setting: key for setting, key in BERT_KEYS.items() if setting != "type_vocab_size"} | {
    "relative_attention_num_buckets": "relative_attention_num_buckets"
}
LAYER = {
    "attention/query": "attention.attn.q",
    "attention/key": "attention.attn.k",
    "attention/value": "attention.attn.v",
    "attention/output": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
PADDING = 1  # whatever config.json says, as in modeling_mpnet.py
BUCKETS = 32  # likewise
BIAS = "encoder.relative_attention_bias"
# The heads of modeling_mpnet.py read no other rate than the trunk's.
HEADS = ROBERTA_HEADS._replace(
    dropout=DropoutNames(heads=(("sequence", "hidden_dropout_prob"), ("tokens", "hidden_dropout_prob")))
)


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    number(file.config, "relative_attention_num_buckets", BUCKETS, least=BUCKETS, most=BUCKETS)
    number(file.config, "pad_token_id", PADDING, least=PADDING, most=PADDING)
    if "words" in file.parts:
        choice(file.config, "hidden_act", "gelu", ("gelu",))  # lm_head has this one built in
    epsilon = real(file.config, "layer_norm_eps", 1e-12)
    model = bert_tables.encoder_architecture(
        file.config, KEYS, layer_norm_eps=epsilon, type_vocab_size=0, first_position=PADDING + 1
    )
    model = with_changes(model, {"relative_attention_num_buckets": BUCKETS})
    return text_architecture(file, model, HEADS, PADDING)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = bert_tables.encoder(architecture.model, LAYERS, LAYER)
    rows += [Row((f"{BIAS}.weight",), ("trunk/relative_bias/embedding",), SAME)]
    return rows + head_rows(HEADS, architecture.parts)


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    return bert_tables.encoder_config(architecture, KEYS) | {"pad_token_id": PADDING}


MPNET = Family(
    name="mpnet",
    prefix="mpnet",
    recognise=(f"{BIAS}.weight", "encoder.layer.0.attention.attn.q.weight"),
    trunk_names=("embeddings.", "encoder."),
    classes={
        "MPNetModel": PublishedClass(("pooler",), alone=True),
        "MPNetForMaskedLM": PublishedClass(("words",), alone=True),
        "MPNetForSequenceClassification": PublishedClass(("sequence",), alone=True),
        "MPNetForMultipleChoice": PublishedClass(("pooler",), bert_tables.LABELS),
        "MPNetForTokenClassification": PublishedClass(("tokens",), alone=True),
        "MPNetForQuestionAnswering": PublishedClass(("spans",), alone=True),
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
