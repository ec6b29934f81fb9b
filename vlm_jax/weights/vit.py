"""ViT, DeiT and DINOv2. Files keep the names that transformers' modules had before version 5."""

from vlm_jax.data.image_settings import ImageInput, StretchCrop
from vlm_jax.models.pretrained import Part
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights.family import (
    MOST,
    TRAINED,
    ConvertedArchitecture,
    Family,
    PublishedClass,
    PublishedFile,
    choice,
    label_names,
    number,
    real,
)
from vlm_jax.weights.tables import Row, linear, source_names
from vlm_jax.weights.vit_tables import (
    HALF,
    IMAGENET,
    EncoderNames,
    classifier_rows,
    cut_out,
    encoder_config,
    encoder_rows,
    encoder_settings,
    stretched,
)

ATTENTION = {
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/output": "attention.output.dense",
}
LAYER = ATTENTION | {
    "attention_norm": "layernorm_before",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "layernorm_after",
}
NAMES = EncoderNames(
    layers="encoder.layer",
    layer=LAYER,
    tokens=("embeddings.cls_token",),
    token_axes=2,
    positions="embeddings.position_embeddings",
    position_axes=1,
    patches="embeddings.patch_embeddings.projection",
    final_norm="layernorm",
)
TRUNK = ("embeddings.", "encoder.", "layernorm.")
POOLER: dict[Part, tuple[str, ...]] = {"pooler": source_names(linear("pooler.dense", ""))}
CLASSIFIER: dict[Part, tuple[str, ...]] = {"classifier": source_names(linear("classifier", ""))}


def _classes(file: PublishedFile, head: str = "classifier") -> int:
    return file.rows_of(f"{head}.weight") if f"{head}.weight" in file.names else 0


def _pooler_rows(parts: tuple[Part, ...]) -> list[Row]:
    return linear("pooler.dense", "head/pooler") if "pooler" in parts else []


def _check_pooler(file: PublishedFile) -> None:
    """Only the pooler that the class has by default is ported."""
    width = number(file.config, "hidden_size", 768)
    if file.config.get("pooler_output_size") is not None:
        choice(file.config, "pooler_output_size", width, (width,))
    choice(file.config, "pooler_act", "tanh", ("tanh",))


# ViT


def _vit_settings(file: PublishedFile) -> ConvertedArchitecture:
    _check_pooler(file)
    model = encoder_settings(file.config, patch_size=16, hidden_act="gelu", layer_norm_eps=1e-12)
    image = stretched(model, "bilinear", HALF)
    return ConvertedArchitecture(model, file.parts, _classes(file), image, pooling="class_token")


def _vit_rows(architecture: ConvertedArchitecture) -> list[Row]:
    parts = architecture.parts
    return encoder_rows(architecture.model, NAMES) + _pooler_rows(parts) + classifier_rows(parts)


def _vit_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    labels = label_names(architecture.classes) if architecture.classes else {}
    return encoder_config(architecture.model) | {"qkv_bias": True} | labels


VIT = Family(
    name="vit",
    prefix="vit",
    recognise=("embeddings.cls_token", "encoder.layer.0.layernorm_before.weight"),
    trunk_names=TRUNK,
    # DeiT, BEiT and others have these names too.
    classes={"ViTModel": PublishedClass(("pooler",)), "ViTForImageClassification": PublishedClass(("classifier",))},
    heads=POOLER | CLASSIFIER,
    settings=_vit_settings,
    rows=_vit_rows,
    config=_vit_config,
    outside=("classifier.",),
    optional_pooler=True,
    proven=TRAINED,
)


# DeiT: a second token, whose classifier learns from a teacher

DEIT_NAMES = EncoderNames(**vars(NAMES) | {"tokens": ("embeddings.cls_token", "embeddings.distillation_token")})
TEACHER = linear("cls_classifier", "head/class_token_classifier")
TEACHER += linear("distillation_classifier", "head/distillation_classifier")


def _deit_settings(file: PublishedFile) -> ConvertedArchitecture:
    _check_pooler(file)
    classes = _classes(file, "cls_classifier" if "distilled_classifiers" in file.parts else "classifier")
    defaults = {"patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    model = encoder_settings(file.config, **defaults, distillation_token=True)
    # preprocessor_config.json of facebook/deit-base-distilled-patch16-224: 224 pixels of 256, each side by itself.
    scaled = tuple(side * 256 // 224 for side in model.image_size)
    image = ImageInput(size=model.image_size, resize=StretchCrop(scaled_size=scaled, corner="floored"), **IMAGENET)
    return ConvertedArchitecture(model, file.parts, classes, image, pooling="class_token")


def _deit_rows(architecture: ConvertedArchitecture) -> list[Row]:
    parts = architecture.parts
    rows = encoder_rows(architecture.model, DEIT_NAMES) + _pooler_rows(parts) + classifier_rows(parts)
    return rows + (TEACHER if "distilled_classifiers" in parts else [])


DEIT = Family(
    name="deit",
    prefix="deit",
    recognise=("embeddings.distillation_token", "encoder.layer.0.layernorm_before.weight"),
    trunk_names=TRUNK,
    classes={
        "DeiTModel": PublishedClass(("pooler",)),
        "DeiTForImageClassification": PublishedClass(("classifier",)),
        "DeiTForImageClassificationWithTeacher": PublishedClass(("distilled_classifiers",)),
    },
    heads=POOLER | CLASSIFIER | {"distilled_classifiers": source_names(TEACHER)},
    settings=_deit_settings,
    rows=_deit_rows,
    config=_vit_config,
    outside=("classifier.", "cls_classifier.", "distillation_classifier."),
    optional_pooler=True,
)


# DINOv2: layer scale, and a classifier that reads the class token and the mean

DINOV2_LAYER = ATTENTION | {
    "attention_norm": "norm1",
    "intermediate": "mlp.fc1",
    "output": "mlp.fc2",
    "output_norm": "norm2",
}
DINOV2_NAMES = EncoderNames(
    **vars(NAMES)
    | {
        "layer": DINOV2_LAYER,
        "layer_scales": {"attention_scale": "layer_scale1.lambda1", "output_scale": "layer_scale2.lambda1"},
    }
)

GATED_NAMES = EncoderNames(
    **vars(DINOV2_NAMES) | {"layer": DINOV2_LAYER | {"intermediate": "mlp.weights_in", "output": "mlp.weights_out"}}
)


def _dinov2_settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    width, ratio = number(config, "hidden_size", 768), real(config, "mlp_ratio", 4.0, below=float(MOST))
    inner = number({"mlp_ratio x hidden_size": int(width * ratio)}, "mlp_ratio x hidden_size")
    defaults = {"patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    model = encoder_settings(config, **defaults, layer_scale=True, intermediate_size=inner)
    if choice(config, "use_swiglu_ffn", False, (False, True)):  # Dinov2SwiGLUFFN of modeling_dinov2.py
        gated = {"hidden_act": "swiglu", "intermediate_size": (int(inner * 2 / 3) + 7) // 8 * 8}
        model = with_changes(model, gated)
    image = _dinov2_input(model.patch_size)
    return ConvertedArchitecture(model, file.parts, _classes(file), image, pooling="class_token_and_mean")


def _dinov2_input(patch_size: int) -> ImageInput:
    """preprocessor_config.json of facebook/dinov2-base: 224 pixels of 256, whatever the position table is for."""
    side = max(1, round(224 / patch_size)) * patch_size
    return cut_out((side, side), 256, IMAGENET)


def _dinov2_rows(architecture: ConvertedArchitecture) -> list[Row]:
    names = GATED_NAMES if architecture.model.hidden_act == "swiglu" else DINOV2_NAMES
    return encoder_rows(architecture.model, names) + classifier_rows(architecture.parts)


def _dinov2_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    model, settings = architecture.model, _vit_config(architecture)
    ratio = settings.pop("intermediate_size") / model.hidden_size
    if model.hidden_act == "swiglu":  # a width is that of several ratios: the source's stays
        return settings | {"use_swiglu_ffn": True}
    return settings | {"mlp_ratio": int(ratio) if ratio == int(ratio) else ratio, "use_swiglu_ffn": False}


DINOV2 = Family(
    name="dinov2",
    prefix="dinov2",
    recognise=("encoder.layer.0.layer_scale1.lambda1", "encoder.layer.0.norm1.weight"),
    trunk_names=TRUNK,
    # Depth Anything and others have these names too.
    classes={"Dinov2Model": PublishedClass(), "Dinov2ForImageClassification": PublishedClass(("classifier",))},
    heads=CLASSIFIER,
    settings=_dinov2_settings,
    rows=_dinov2_rows,
    config=_dinov2_config,
    outside=("classifier.",),
    unread=("embeddings.mask_token",),  # stands for masked patches in training
    proven=TRAINED,
)
