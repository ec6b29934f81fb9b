"""BERT, RoBERTa, DistilBERT and VisualBERT: transformers' names of them.

Names and defaults are those of transformers' modeling and configuration files of each. Settings that a config.json
leaves out are the default of the class, except numbers that decide shapes.
"""

from collections.abc import Mapping
from typing import Any

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import Part
from vlm_jax.settings.changes import with_changes
from vlm_jax.weights.family import ConvertedArchitecture, Family, Names, PublishedClass, choice, number, real
from vlm_jax.weights.source import Tensors
from vlm_jax.weights.tables import SAME, Row, linear, norm, source_names, table

MOST_LAYERS = 1000
ACTIVATIONS = ("gelu", "gelu_new", "relu")
BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "mlp_output": "output.dense",
    "output_norm": "output.LayerNorm",
}
DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "intermediate": "ffn.lin1",
    "mlp_output": "ffn.lin2",
    "output_norm": "output_layer_norm",
}


def layer(source: str, target: str, names: Mapping[str, str]) -> list[Row]:
    """One transformer layer; `names` are theirs of its eight modules."""
    rows = []
    for name in ("query", "key", "value", "output"):
        rows += linear(f"{source}.{names[name]}", f"{target}/attention/{name}")
    rows += norm(f"{source}.{names['attention_norm']}", f"{target}/attention_norm")
    rows += linear(f"{source}.{names['intermediate']}", f"{target}/intermediate")
    rows += linear(f"{source}.{names['mlp_output']}", f"{target}/output")
    return rows + norm(f"{source}.{names['output_norm']}", f"{target}/output_norm")


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


def words_head(transform: str, normalise: str, bias: str, decoder: str, *, tied: bool) -> list[Row]:
    """The masked-word head."""
    rows = linear(transform, "head/words/transform") + norm(normalise, "head/words/norm")
    rows += [Row((bias,), ("head/words/bias",), SAME)]
    return rows if tied else rows + linear(decoder, "head/words/decoder", bias=False)


# BERT


def _bert_model(config: Mapping[str, Any], *, epsilon: float, first_position: int = 0) -> Architecture:
    choice(config, "position_embedding_type", "absolute", ("absolute",))
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise InputError("config.json says it is a decoder; encoders can be ported")
    width = number(config, "hidden_size")
    return Architecture(
        fusion="concat",
        attention_pattern="bidirectional",
        head="cls",
        hidden_size=width,
        num_attention_heads=_heads(config, "num_attention_heads", width),
        num_layers=number(config, "num_hidden_layers", most=MOST_LAYERS),
        intermediate_size=number(config, "intermediate_size"),
        hidden_act=choice(config, "hidden_act", "gelu", ACTIVATIONS),
        layer_norm_eps=real(config, "layer_norm_eps", epsilon),
        image=Features(),
        vocab_size=number(config, "vocab_size"),
        text_feature_size=width,
        max_position_embeddings=number(config, "max_position_embeddings"),
        type_vocab_size=number(config, "type_vocab_size", 2),
        first_position=first_position,
    )


def _heads(config: Mapping[str, Any], name: str, width: int) -> int:
    heads = number(config, name)
    if width % heads:
        raise InputError(f"config.json says {name} = {heads}, which does not divide the width {width}")
    return heads


def _pad_id(config: Mapping[str, Any], default: int) -> int | None:
    """`padding_idx` of the word table; None where config.json says null."""
    if config.get("pad_token_id", default) is None:
        return None
    return number(config, "pad_token_id", default, least=0)


def _bert_settings(
    config: Mapping[str, Any], names: Names, tensors: Tensors, named: str, parts: tuple[Part, ...]
) -> ConvertedArchitecture:
    return ConvertedArchitecture(_bert_model(config, epsilon=1e-12), parts, pad_id=_pad_id(config, 0))


def _bert_rows(architecture: ConvertedArchitecture) -> list[Row]:
    model, parts = architecture.model, architecture.parts
    return encoder(model, "encoder.layer", BERT_LAYER) + _bert_heads(parts)


def _bert_heads(parts: tuple[str, ...]) -> list[Row]:
    rows = linear("pooler.dense", "head/pooler") if "pooler" in parts else []
    if "words" in parts:
        predictions = "cls.predictions"
        rows += words_head(
            f"{predictions}.transform.dense",
            f"{predictions}.transform.LayerNorm",
            f"{predictions}.bias",
            f"{predictions}.decoder",
            tied="decoder" not in parts,
        )
    return rows + (linear("cls.seq_relationship", "head/pairs") if "pairs" in parts else [])


def _bert_config(architecture: ConvertedArchitecture) -> dict[str, Any]:
    model = architecture.model
    return {
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "intermediate_size": model.intermediate_size,
        "hidden_act": model.hidden_act,
        "layer_norm_eps": model.layer_norm_eps,
        "max_position_embeddings": model.max_position_embeddings,
        "type_vocab_size": model.type_vocab_size,
        "tie_word_embeddings": "decoder" not in architecture.parts,
    }


# Beginnings of the names of heads that several classes have and none of ours stands for.
LABELS = ("classifier.",)  # SequenceClassification, TokenClassification, MultipleChoice
SPANS = ("qa_outputs.",)  # QuestionAnswering
CLS = ("cls.weight", "cls.bias")  # of VisualBERT
REGIONS = ("cls.predictions.", "cls.seq_relationship.", "attention.")
POOLER = source_names(linear("pooler.dense", ""))
BERT_HEADS: dict[Part, tuple[str, ...]] = {
    "pooler": POOLER,
    "words": source_names(_bert_heads(("words",))),
    "decoder": ("cls.predictions.decoder.weight",),
    "pairs": source_names(_bert_heads(("pairs",))),
}

BERT_TRUNK = (
    "embeddings.word_embeddings.", "embeddings.position_embeddings.", "embeddings.token_type_embeddings.",
    "embeddings.LayerNorm.", "encoder.layer.",
)  # fmt: skip

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
        "BertForSequenceClassification": PublishedClass(("pooler",), LABELS),
        "BertForMultipleChoice": PublishedClass(("pooler",), LABELS),
        "BertForTokenClassification": PublishedClass((), LABELS),
        "BertForQuestionAnswering": PublishedClass((), SPANS),
    },
    heads=BERT_HEADS,
    settings=_bert_settings,
    rows=_bert_rows,
    config=_bert_config,
    aliases={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    tied=("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
    outside=("cls.",),
    optional_pooler=True,
)


# RoBERTa: BERT with positions from 2, one segment, another name and no choice of activation in the head


def _roberta_settings(
    config: Mapping[str, Any], names: Names, tensors: Tensors, named: str, parts: tuple[Part, ...]
) -> ConvertedArchitecture:
    first = number(config, "pad_token_id", 1, least=0) + 1
    model = _bert_model(config, epsilon=1e-12, first_position=first)
    if "words" in parts:
        choice(config, "hidden_act", "gelu", ("gelu",))  # lm_head has this one built in
    return ConvertedArchitecture(model, parts, pad_id=first - 1)


ROBERTA_WORDS = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder")


def _roberta_rows(architecture: ConvertedArchitecture) -> list[Row]:
    model, parts = architecture.model, architecture.parts
    rows = encoder(model, "encoder.layer", BERT_LAYER)
    rows += linear("pooler.dense", "head/pooler") if "pooler" in parts else []
    return rows + (words_head(*ROBERTA_WORDS, tied="decoder" not in parts) if "words" in parts else [])


def _roberta_config(architecture: ConvertedArchitecture) -> dict[str, Any]:
    return _bert_config(architecture) | {"pad_token_id": architecture.model.first_position - 1}


ROBERTA = Family(
    name="roberta",
    prefix="roberta",
    recognise=("encoder.layer.0.attention.self.query.weight", "embeddings.position_embeddings.weight"),
    trunk_names=BERT_TRUNK,
    classes={
        "RobertaModel": PublishedClass(("pooler",)),
        "RobertaForMaskedLM": PublishedClass(("words",)),
        "RobertaForSequenceClassification": PublishedClass((), LABELS),
        "RobertaForMultipleChoice": PublishedClass(("pooler",), LABELS),
        "RobertaForTokenClassification": PublishedClass((), LABELS),
        "RobertaForQuestionAnswering": PublishedClass((), SPANS),
    },
    heads={
        "pooler": POOLER,
        "words": source_names(words_head(*ROBERTA_WORDS, tied=True)),
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


# DistilBERT: no segments, no pooler, names of its own


def _distilbert_settings(
    config: Mapping[str, Any], names: Names, tensors: Tensors, named: str, parts: tuple[Part, ...]
) -> ConvertedArchitecture:
    width = number(config, "dim")
    model = Architecture(
        fusion="concat",
        attention_pattern="bidirectional",
        head="cls",
        hidden_size=width,
        num_attention_heads=_heads(config, "n_heads", width),
        num_layers=number(config, "n_layers", most=MOST_LAYERS),
        intermediate_size=number(config, "hidden_dim"),
        hidden_act=choice(config, "activation", "gelu", ACTIVATIONS),
        layer_norm_eps=1e-12,
        image=Features(),
        vocab_size=number(config, "vocab_size"),
        text_feature_size=width,
        max_position_embeddings=number(config, "max_position_embeddings"),
        type_vocab_size=0,
    )
    return ConvertedArchitecture(model, parts, pad_id=_pad_id(config, 0))


DISTILBERT_WORDS = ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector")


def _distilbert_rows(architecture: ConvertedArchitecture) -> list[Row]:
    model, parts = architecture.model, architecture.parts
    rows = encoder(model, "transformer.layer", DISTILBERT_LAYER)
    return rows + (words_head(*DISTILBERT_WORDS, tied="decoder" not in parts) if "words" in parts else [])


def _distilbert_config(architecture: ConvertedArchitecture) -> dict[str, Any]:
    model = architecture.model
    return {
        "vocab_size": model.vocab_size,
        "dim": model.hidden_size,
        "n_layers": model.num_layers,
        "n_heads": model.num_attention_heads,
        "hidden_dim": model.intermediate_size,
        "activation": model.hidden_act,
        "max_position_embeddings": model.max_position_embeddings,
        "tie_word_embeddings": "decoder" not in architecture.parts,
    }


DISTILBERT = Family(
    name="distilbert",
    prefix="distilbert",
    recognise=("transformer.layer.0.sa_layer_norm.weight",),
    trunk_names=("embeddings.", "transformer.layer."),
    classes={
        "DistilBertModel": PublishedClass((), alone=True),
        "DistilBertForMaskedLM": PublishedClass(("words",), alone=True),
        "DistilBertForSequenceClassification": PublishedClass((), ("pre_classifier.", *LABELS)),
        "DistilBertForMultipleChoice": PublishedClass((), ("pre_classifier.", *LABELS)),
        "DistilBertForTokenClassification": PublishedClass((), LABELS),
        "DistilBertForQuestionAnswering": PublishedClass((), SPANS),
    },
    heads={"words": source_names(words_head(*DISTILBERT_WORDS, tied=True)), "decoder": ("vocab_projector.weight",)},
    settings=_distilbert_settings,
    rows=_distilbert_rows,
    config=_distilbert_config,
    tied=("vocab_projector.weight", "embeddings.word_embeddings.weight"),
    outside=("vocab_",),
)


# VisualBERT: BERT, and a second set of embeddings for the image


def _visual_bert_settings(
    config: Mapping[str, Any], names: Names, tensors: Tensors, named: str, parts: tuple[Part, ...]
) -> ConvertedArchitecture:
    if config.get("bypass_transformer"):
        raise InputError("config.json says bypass_transformer = true, which is not supported")
    model = _bert_model(config, epsilon=1e-12)
    # Every grid position has position 0 unless an alignment to words is given.
    image = Features(feature_size=number(config, "visual_embedding_dim", 512), positions="shared")
    if model.type_vocab_size != 2:
        raise InputError(f"config.json says type_vocab_size = {model.type_vocab_size}; VisualBERT has 2")
    changes = {
        "image": image,
        "max_image_positions": model.max_position_embeddings,
        "modality_type_vocab_size": model.type_vocab_size,
    }
    shape = tensors[names["cls.weight"]].shape if "answers" in parts else ()
    classes = shape[0] if shape else 0
    return ConvertedArchitecture(with_changes(model, changes), parts, classes, pad_id=_pad_id(config, 1))


def _visual_bert_rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = _bert_rows(architecture)
    rows += [Row(("embeddings.visual_token_type_embeddings.weight",), ("embed/image_segment",), SAME)]
    rows += table("embeddings.visual_position_embeddings", "embed/image_position")
    rows += linear("embeddings.visual_projection", "embed/image_fc")
    return rows + (linear("cls", "head/answers/classifier") if "answers" in architecture.parts else [])


def _visual_bert_config(architecture: ConvertedArchitecture) -> dict[str, Any]:
    config = _bert_config(architecture) | {"visual_embedding_dim": architecture.model.image.feature_size}
    if "answers" in architecture.parts:
        config |= {"id2label": {str(index): f"LABEL_{index}" for index in range(architecture.classes)}}
    return config


VISUAL_BERT = Family(
    name="visual_bert",
    prefix="visual_bert",
    recognise=("embeddings.visual_projection.weight",),
    trunk_names=(*BERT_TRUNK, "embeddings.visual_"),
    classes={
        "VisualBertModel": PublishedClass(("pooler",), alone=True),
        "VisualBertForPreTraining": PublishedClass(("pooler", "words", "pairs"), alone=True),
        "VisualBertForQuestionAnswering": PublishedClass(("pooler", "answers")),  # the same names as the next two
        "VisualBertForVisualReasoning": PublishedClass(("pooler",), CLS),  # reads the pooled [CLS]
        "VisualBertForMultipleChoice": PublishedClass(("pooler",), CLS),
        "VisualBertForRegionToPhraseAlignment": PublishedClass(("pooler",), REGIONS),
    },
    heads=BERT_HEADS | {"answers": source_names(linear("cls", ""))},
    settings=_visual_bert_settings,
    rows=_visual_bert_rows,
    config=_visual_bert_config,
    aliases={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    tied=("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
    outside=("cls.",),
    optional_pooler=True,
)
