"""Architectures for tests: image encoders by name, and what each task's fusions go with."""

from vlm_jax.config.encoders import (
    GROUPED_OR_WIDE_RESNETS,
    ConvNeXt,
    EfficientNet,
    EfficientNetLite0,
    MobileNetV2,
    Patches,
    PixelEncoder,
    ResNet,
    SmallCNN,
    VisionTransformer,
)
from vlm_jax.settings.changes import with_changes

# Of each task and fusion the attention patterns and the heads, the default first.
PAIRINGS = {
    "vqa": {
        "concat": (("image_to_text", "bidirectional"), ("cls", "token_before_sep", "per_token")),
        "cross": (("image_to_text",), ("cls", "per_token")),
        "co_attention": (("bidirectional",), ("cls", "per_token")),
        "late": (("dual_encoder",), ("product", "concatenation")),
    },
    "captioning": {
        "concat": (("prefix", "causal"), ("lm",)),
        "cross": (("prefix", "causal"), ("lm",)),
    },
    "image_generation": {
        "concat": (("text_to_image", "autoregressive"), ("image_tokens",)),
        "cross": (("text_to_image", "autoregressive"), ("image_tokens",)),
    },
}


def encoder(name: str, **settings) -> PixelEncoder:
    """The image encoder of a name such as `resnet18`, with those settings that it has."""
    if name in GROUPED_OR_WIDE_RESNETS:
        cnn = GROUPED_OR_WIDE_RESNETS[name]
        return with_changes(cnn, {setting: value for setting, value in settings.items() if hasattr(cnn, setting)})
    known = (SmallCNN, Patches, MobileNetV2, EfficientNet, EfficientNetLite0, ConvNeXt, VisionTransformer)
    kind = {kind.model_fields["kind"].default: kind for kind in known}.get(name, ResNet)
    if kind is ResNet:
        settings |= {"depth": int(name.removeprefix("resnet"))}
    return kind(**{setting: value for setting, value in settings.items() if setting in kind.model_fields})
