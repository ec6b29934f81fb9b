"""VisualBERT: BERT, and a second set of embeddings for the image."""

import dataclasses

from vlm_jax.config.encoders import Features
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights.bert import BERT, bert_architecture, bert_config, bert_rows
from vlm_jax.weights.bert_tables import pad_id
from vlm_jax.weights.dropout import DropoutNames, trunk_dropout
from vlm_jax.weights.family import ConvertedArchitecture, PublishedClass, PublishedFile, label_names, number
from vlm_jax.weights.tables import SAME, Row, linear, source_names, table

CLASSIFIER = ("cls.weight", "cls.bias")
REGIONS = ("cls.predictions.", "cls.seq_relationship.", "attention.")


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    if file.config.get("bypass_transformer"):
        raise InputError("config.json says bypass_transformer = true, which is not supported")
    model = trunk_dropout(bert_architecture(file.config), file.config, DropoutNames())
    # Every grid position has position 0 unless an alignment to words is given.
    image = Features(feature_size=number(file.config, "visual_embedding_dim", 512), positions="shared")
    if model.type_vocab_size != 2:
        raise InputError(f"config.json says type_vocab_size = {model.type_vocab_size}; VisualBERT has 2")
    changes = {"image": image, "max_image_positions": model.max_position_embeddings, "modality_type_vocab_size": 2}
    classes = file.rows_of("cls.weight") if "answers" in file.parts else 0
    return ConvertedArchitecture(with_changes(model, changes), file.parts, classes, pad_id=pad_id(file.config, 1))


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    rows = bert_rows(architecture)
    rows += [Row(("embeddings.visual_token_type_embeddings.weight",), ("embed/image_segment",), SAME)]
    rows += table("embeddings.visual_position_embeddings", "embed/image_position")
    rows += linear("embeddings.visual_projection", "embed/image_fc")
    return rows + (linear("cls", "head/answers/classifier") if "answers" in architecture.parts else [])


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    config = bert_config(architecture) | {"visual_embedding_dim": architecture.model.image.feature_size}
    return config | (label_names(architecture.classes) if "answers" in architecture.parts else {})


VISUAL_BERT = dataclasses.replace(
    BERT,
    name="visual_bert",
    prefix="visual_bert",
    recognise=("embeddings.visual_projection.weight",),
    trunk_names=(*BERT.trunk_names, "embeddings.visual_"),
    classes={
        "VisualBertModel": PublishedClass(("pooler",), alone=True),
        "VisualBertForPreTraining": PublishedClass(("pooler", "words", "pairs"), alone=True),
        "VisualBertForQuestionAnswering": PublishedClass(("pooler", "answers")),  # the same names as the next two
        "VisualBertForVisualReasoning": PublishedClass(("pooler",), CLASSIFIER),  # reads the pooled [CLS]
        "VisualBertForMultipleChoice": PublishedClass(("pooler",), CLASSIFIER),
        "VisualBertForRegionToPhraseAlignment": PublishedClass(("pooler",), REGIONS),
    },
    heads={part: BERT.heads[part] for part in ("pooler", "words", "decoder", "pairs")}
    | {"answers": source_names(linear("cls", ""))},
    outside=("cls.",),
    proven=("forward", "export"),
    settings=_settings,
    rows=_rows,
    config=_config,
)
