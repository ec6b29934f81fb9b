"""Tables and settings of transformers' image transformers, whatever a family calls its modules."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.data.image_settings import CenterCrop, ImageInput, Stretch
from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.bert_tables import MOST_LAYERS, layer
from vlm_jax.weights.family import choice, number, real
from vlm_jax.weights.tables import SAME, Row, linear, norm, patch_projection, rows_of_table, with_axes

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}

ACTIVATIONS = {
    "gelu": "gelu", "gelu_pytorch_tanh": "gelu_new", "gelu_new": "gelu_new", "quick_gelu": "quick_gelu", "relu": "relu",
}  # fmt: skip
"""transformers' names of the activations that can be ported, and ours."""
MOST_PIXELS = 10_000


@dataclass(frozen=True)
class EncoderNames:
    """What a family's files call the modules of its encoder; their leaves are added."""

    layers: str
    """The beginning of a layer's name."""
    layer: Mapping[str, str]
    """Our modules of a layer and theirs."""
    tokens: tuple[str, ...]
    """Tensors of the learned tokens before the patches."""
    token_axes: int
    """Axes of length 1 that these have before the vector."""
    positions: str
    position_axes: int
    patches: str
    final_norm: str
    embedding_norm: str = ""
    layer_scales: Mapping[str, str] | None = None
    """Our layer scales and their tensors."""


def encoder_rows(model: VisionTransformer, names: EncoderNames) -> list[Row]:
    """Embeddings, layers and norms."""
    rows = [Row((f"{names.patches}.weight",), ("image/embed/patches/kernel",), patch_projection(model.patch_size))]
    if model.patch_bias:
        rows.append(Row((f"{names.patches}.bias",), ("image/embed/patches/bias",), SAME))
    if names.tokens:
        rows.append(Row(names.tokens, ("image/embed/tokens/embedding",), rows_of_table(names.token_axes)))
    rows.append(Row((names.positions,), ("image/embed/positions/embedding",), with_axes(names.position_axes)))
    if model.embedding_norm:
        rows += norm(names.embedding_norm, "image/embed/norm")
    for index in range(model.num_layers):
        source, target = f"{names.layers}.{index}", f"image/layer_{index}"
        rows += layer(source, target, names.layer)
        for ours, theirs in (names.layer_scales or {}).items():
            rows.append(Row((f"{source}.{theirs}",), (f"{target}/{ours}/scale",), SAME))
    return rows + norm(names.final_norm, "image/norm")


def encoder_settings(
    config: Mapping[str, Json], *, patch_size: int, hidden_act: str, layer_norm_eps: float, **settings: object
) -> VisionTransformer:
    """The encoder that a config.json describes; the arguments are the defaults of the family's class.

    `settings` are ours that the family decides. Raises `InputError` for what is not supported.
    """
    choice(config, "num_channels", 3, (3,))
    choice(config, "qkv_bias", True, (True,))
    width = number(config, "hidden_size", 768)
    heads = number(config, "num_attention_heads", 12)
    if width % heads:
        raise InputError(f"config.json says num_attention_heads = {heads}, no divisor of the width {width}")
    settings.setdefault("intermediate_size", number(config, "intermediate_size", 3072))
    try:
        return VisionTransformer(
            hidden_size=width,
            num_attention_heads=heads,
            num_layers=number(config, "num_hidden_layers", 12, most=MOST_LAYERS),
            hidden_act=ACTIVATIONS[choice(config, "hidden_act", hidden_act, ACTIVATIONS)],
            layer_norm_eps=real(config, "layer_norm_eps", layer_norm_eps),
            patch_size=_patch_size(config, patch_size),
            image_size=_image_size(config),
            **settings,
        )
    except ValidationError as error:
        sizes = (
            f"image_size = {config.get('image_size', 224)!r} and patch_size = {config.get('patch_size', patch_size)!r}"
        )
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"config.json says {sizes}: {reason}") from None


def _image_size(config: Mapping[str, Json]) -> tuple[int, int]:
    value = config.get("image_size", 224)
    sides = value if isinstance(value, (list, tuple)) else (value, value)
    if len(sides) != 2:
        raise InputError(f"config.json says image_size = {value!r}; expected a number of pixels, or height and width")
    return tuple(number({"image_size": side}, "image_size", most=MOST_PIXELS) for side in sides)


def _patch_size(config: Mapping[str, Json], default: int) -> int:
    value = config.get("patch_size", default)
    sides = value if isinstance(value, (list, tuple)) else (value,)
    if not sides or any(side != sides[0] for side in sides):
        raise InputError(f"config.json says patch_size = {value!r}; square patches can be ported")
    return number({"patch_size": sides[0]}, "patch_size", most=MOST_PIXELS)


def encoder_config(model: VisionTransformer) -> dict[str, Json]:
    """The config.json of an export: the inverse of `encoder_settings`."""
    height, width = model.image_size
    activations = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    return {
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_attention_heads,
        "num_hidden_layers": model.num_layers,
        "intermediate_size": model.intermediate_size,
        "hidden_act": activations.get(model.hidden_act, "gelu"),  # with a gate the class does not read it
        "layer_norm_eps": model.layer_norm_eps,
        "patch_size": model.patch_size,
        "image_size": height if height == width else [height, width],
        "num_channels": 3,
    }


def stretched(model: VisionTransformer, resample: str, colours: Mapping[str, tuple[float, float, float]]) -> ImageInput:
    """Images scaled to the size of the position table, each side by itself."""
    return ImageInput(size=model.image_size, resize=Stretch(resample=resample), **colours)


def cut_out(size: tuple[int, int], short_side: int, colours: Mapping[str, tuple[float, float, float]]) -> ImageInput:
    """The centre of images whose short side is scaled to a number of pixels, bicubic."""
    return ImageInput(size=size, resize=CenterCrop(short_side=max(short_side, *size), corner="floored"), **colours)


def classifier_rows(parts: tuple[str, ...]) -> list[Row]:
    """A linear classifier."""
    return linear("classifier", "head/classifier") if "classifier" in parts else []
