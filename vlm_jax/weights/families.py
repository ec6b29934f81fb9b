"""The families that can be ported, and which of them a file is of."""

from vlm_jax.errors import InputError, nearest
from vlm_jax.weights.bert import BERT, DISTILBERT, ROBERTA, VISUAL_BERT
from vlm_jax.weights.cnn import EFFICIENTNET_LITE0, RESNET, TORCHVISION_MOBILENET, TORCHVISION_RESNET
from vlm_jax.weights.family import Family
from vlm_jax.weights.source import Source

# The first that recognises a file without a model_type has it: BERT's names occur in RoBERTa and VisualBERT too.
_ALL = (
    VISUAL_BERT, ROBERTA, DISTILBERT, BERT, RESNET, TORCHVISION_RESNET, TORCHVISION_MOBILENET, EFFICIENTNET_LITE0,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}


def family_of(source: Source) -> Family:
    """The family that config.json names, or the one whose names the file holds."""
    named = source.config.get("model_type")
    if named is not None:
        if not isinstance(named, str) or named not in FAMILIES:
            raise InputError(f"{source.name} is a {named!r}, which cannot be ported; {nearest(str(named), FAMILIES)}")
        return FAMILIES[named]
    for family in FAMILIES.values():
        if all(any(name.endswith(ending) for name in source.tensors) for ending in family.recognise):
            return family
    shown = ", ".join(sorted(source.tensors)[:3])
    raise InputError(
        f"{source.name} is of no known family (its tensors begin {shown}); known are {', '.join(FAMILIES)}"
    )
