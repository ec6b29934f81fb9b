"""Heads of text models: what each family calls them, their rows, and how many classes they have."""

from typing import NamedTuple

from vlm_jax.config.architecture import Architecture
from vlm_jax.models.pretrained import Part
from vlm_jax.types import Json
from vlm_jax.weights.dropout import DropoutNames, head_dropout, trunk_dropout
from vlm_jax.weights.family import ConvertedArchitecture, PublishedFile, label_names
from vlm_jax.weights.tables import SAME, Row, linear, norm, source_names


class HeadNames(NamedTuple):
    """The layers of a family's heads; empty where it has none such."""

    pooler: str = "pooler.dense"
    words: tuple[str, ...] = ()
    """Dense layer, layer norm, bias, and the decoder that may be tied to the word table."""
    pairs: str = ""
    sequence: tuple[str, ...] = ("classifier",)
    """The classifier of a text, behind a dense layer of its own where there is one."""
    sequence_act: str | None = None
    """The activation of that dense layer; without one the classifier reads the pooled [CLS]."""
    tokens: str = "classifier"
    spans: str = "qa_outputs"
    replaced: tuple[str, ...] = ()
    """Dense layer and output."""
    dropout: DropoutNames = DropoutNames()


def head_rows(names: HeadNames, parts: tuple[Part, ...]) -> list[Row]:
    """The rows of some heads; a decoder of its own belongs to `words`."""
    rows = linear(names.pooler, "head/pooler") if "pooler" in parts else []
    rows += _words(names.words) if "words" in parts else []
    rows += linear(names.words[3], "head/words/decoder", bias=False) if "decoder" in parts else []
    rows += linear(names.pairs, "head/pairs") if "pairs" in parts else []
    if "sequence" in parts:
        rows += _stack(names.sequence, ("head/sequence_transform", "head/sequence"))
    rows += linear(names.tokens, "head/tokens") if "tokens" in parts else []
    rows += linear(names.spans, "head/spans") if "spans" in parts else []
    return rows + (_stack(names.replaced, ("head/replaced_transform", "head/replaced")) if "replaced" in parts else [])


def _words(names: tuple[str, ...]) -> list[Row]:
    transform, normalise, bias, _ = names
    rows = linear(transform, "head/words/transform") + norm(normalise, "head/words/norm")
    return [*rows, Row((bias,), ("head/words/bias",), SAME)]


def _stack(sources: tuple[str, ...], targets: tuple[str, str]) -> list[Row]:
    """Linear layers, the last of which is the last target."""
    pairs = zip(sources, targets[-len(sources) :], strict=True)
    return [row for source, target in pairs for row in linear(source, target)]


def head_tensors(names: HeadNames) -> dict[Part, tuple[str, ...]]:
    """The tensors of each head that a family has."""
    layers: dict[Part, str | tuple[str, ...]] = {
        "pooler": names.pooler, "words": names.words, "decoder": names.words, "pairs": names.pairs,
        "sequence": names.sequence, "tokens": names.tokens, "spans": names.spans, "replaced": names.replaced,
    }  # fmt: skip
    return {part: source_names(head_rows(names, (part,))) for part, named in layers.items() if named}


def outside(names: HeadNames) -> tuple[str, ...]:
    """Beginnings of the names of heads that stand outside the family's prefix: of all but the pooler."""
    tensors = [name for part, head in head_tensors(names).items() if part != "pooler" for name in head]
    return tuple(sorted({f"{name.split('.')[0]}." for name in tensors}))


def text_architecture(
    file: PublishedFile, model: Architecture, names: HeadNames, pad_id: int | None
) -> ConvertedArchitecture:
    """The architecture of a text model with the heads of its file."""
    layers = {"sequence": names.sequence[-1], "tokens": names.tokens}
    classes = [file.rows_of(f"{layer}.weight") for part, layer in layers.items() if part in file.parts]
    sequence_act = names.sequence_act if "sequence" in file.parts else None
    model = trunk_dropout(model, file.config, names.dropout)
    rates = head_dropout(file.parts, model, file.config, names.dropout)
    return ConvertedArchitecture(
        model, file.parts, sum(classes), pad_id=pad_id, sequence_act=sequence_act, head_dropout=rates
    )


def head_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    """What config.json must say of the heads."""
    labelled = {"sequence", "tokens"} & set(architecture.parts)
    return {"tie_word_embeddings": "decoder" not in architecture.parts} | (
        label_names(architecture.classes) if labelled else {}
    )
