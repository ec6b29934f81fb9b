"""Which model published weights become: the one with the methods that their parts allow."""

from vlm_jax.config.dual_encoder import DualEncoder
from vlm_jax.inference.dual_encoder import DualEncoderModel
from vlm_jax.inference.generating import AnswererModel, CaptionerModel, ImageTextModel
from vlm_jax.inference.published import (
    ClassifierModel,
    GridFeatureModel,
    ImageModel,
    MaskedWordModel,
    PublishedModel,
    TextClassifierModel,
    TextModel,
)
from vlm_jax.weights.converted_model import ConvertedModel


def published_model(converted: ConvertedModel) -> PublishedModel:
    """The model of published weights, with the methods that its parts allow."""
    architecture = converted.architecture
    if isinstance(architecture.model, DualEncoder):
        return DualEncoderModel(converted)
    if architecture.is_image_text:
        if "words" not in architecture.parts:
            return ImageTextModel(converted)
        return AnswererModel(converted) if "text_encoder" in architecture.parts else CaptionerModel(converted)
    if architecture.is_image_encoder:
        return ClassifierModel(converted) if architecture.classes else ImageModel(converted)
    if not converted.tokenizer:
        return PublishedModel(converted)
    if architecture.sees:
        return GridFeatureModel(converted)
    if "words" in architecture.parts and not architecture.is_decoder:
        return MaskedWordModel(converted)
    return TextClassifierModel(converted) if "sequence" in architecture.parts else TextModel(converted)
