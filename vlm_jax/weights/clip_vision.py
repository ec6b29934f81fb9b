"""The image sides of CLIP and SigLIP as files of their own."""

from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import Part
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights.family import TRAINED, ConvertedArchitecture, Family, PublishedClass, PublishedFile, label_names
from vlm_jax.weights.tables import FUSED, Row, linear, norm, rows_of_table, source_names
from vlm_jax.weights.vit_tables import (
    CLIP,
    HALF,
    EncoderNames,
    classifier_rows,
    cut_out,
    encoder_config,
    encoder_rows,
    encoder_settings,
    stretched,
)

LAYER = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.out_proj",
    "attention_norm": "layer_norm1",
    "intermediate": "mlp.fc1",
    "output": "mlp.fc2",
    "output_norm": "layer_norm2",
}
SIGLIP_NAMES = EncoderNames(
    layers="encoder.layers",
    layer=LAYER,
    tokens=(),
    token_axes=0,
    positions="embeddings.position_embedding.weight",
    position_axes=0,
    patches="embeddings.patch_embedding",
    final_norm="post_layernorm",
)
CLIP_NAMES = EncoderNames(
    **vars(SIGLIP_NAMES) | {"tokens": ("embeddings.class_embedding",), "embedding_norm": "pre_layrnorm"}
)
VISION = "vision_config"
OF_BOTH_SIDES = ("CLIPModel", "ChineseCLIPModel", "CLIPForImageClassification")
CLASSIFIER: dict[Part, tuple[str, ...]] = {"classifier": source_names(linear("classifier", ""))}


def _config_of(file: PublishedFile) -> dict[str, Json]:
    """The settings of the image side: those under `vision_config` in files of both sides."""
    nested = file.config.get(VISION, file.config)
    return nested if isinstance(nested, dict) else {}


def _classes(file: PublishedFile) -> int:
    return file.rows_of("classifier.weight") if "classifier" in file.parts else 0


def _nested(architecture: ConvertedArchitecture, settings: dict[str, Json], model_type: str) -> dict[str, Json]:
    """The config.json of an export: classifiers have the encoder's settings under `vision_config`."""
    if "classifier" not in architecture.parts:
        return settings
    return {"model_type": model_type, VISION: settings} | label_names(architecture.classes)


# CLIP: a layer norm before the first layer; the last one is of the class token


def _clip_config_of(file: PublishedFile) -> dict[str, Json]:
    """As CLIPConfig of transformers: `vision_config_dict` of old files, with the class's defaults, comes first."""
    older = file.config.get(f"{VISION}_dict")
    if older is None or file.class_name not in OF_BOTH_SIDES:
        return _config_of(file)
    if not isinstance(older, dict):
        raise InputError(f"config.json says {VISION}_dict = {older!r}; expected an object of settings")
    return older


def clip_image_settings(file: PublishedFile) -> ConvertedArchitecture:
    own = {"patch_bias": False, "embedding_norm": True, "final_norm": "class_token"}
    defaults = {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    model = encoder_settings(_clip_config_of(file), **defaults, **own)
    size = file.rows_of("visual_projection.weight") if "projection" in file.parts else 0
    image = cut_out(model.image_size, max(model.image_size), CLIP)
    return ConvertedArchitecture(model, file.parts, _classes(file), image, projection_size=size)


def clip_image_rows(architecture: ConvertedArchitecture) -> list[Row]:
    parts = architecture.parts
    rows = encoder_rows(architecture.model, CLIP_NAMES) + classifier_rows(parts)
    return rows + (linear("visual_projection", "head/projection", bias=False) if "projection" in parts else [])


def clip_image_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    settings = encoder_config(architecture.model)
    if architecture.projection_size:
        settings |= {"projection_dim": architecture.projection_size}
    return _nested(architecture, settings, "clip")


CLIP_VISION = Family(
    name="clip_vision_model",
    prefix="vision_model",
    recognise=("embeddings.class_embedding", "pre_layrnorm.weight"),
    trunk_names=("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm."),
    classes={
        "CLIPVisionModel": PublishedClass(),
        "CLIPVisionModelWithProjection": PublishedClass(("projection",)),
        "CLIPForImageClassification": PublishedClass(("classifier",)),
    },
    heads=CLASSIFIER | {"projection": ("visual_projection.weight",)},
    settings=clip_image_settings,
    rows=clip_image_rows,
    config=clip_image_config,
    outside=("classifier.", "visual_projection."),
    model_types=("clip",),
    nested_config=VISION,
    prefix_always=True,
    proven=TRAINED,
)


# SigLIP: no class token; a pooler of attention


def _pooler_rows() -> list[Row]:
    target = "head/attention_pooler"
    rows = [Row(("head.probe",), (f"{target}/query/embedding",), rows_of_table(2))]
    for theirs, ours in (("weight", "kernel"), ("bias", "bias")):
        paths = tuple(f"{target}/attention/{part}/{ours}" for part in ("query", "key", "value"))
        rows.append(Row((f"head.attention.in_proj_{theirs}",), paths, FUSED))
    rows += linear("head.attention.out_proj", f"{target}/attention/output") + norm("head.layernorm", f"{target}/norm")
    return rows + linear("head.mlp.fc1", f"{target}/intermediate") + linear("head.mlp.fc2", f"{target}/output")


def siglip_image_settings(file: PublishedFile) -> ConvertedArchitecture:
    defaults = {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    model = encoder_settings(_config_of(file), **defaults, class_token=False, drop_remainder=True)
    model = with_changes(model, {"drop_remainder": any(side % model.patch_size for side in model.image_size)})
    return ConvertedArchitecture(model, file.parts, _classes(file), stretched(model, "bicubic", HALF))


def siglip_image_rows(architecture: ConvertedArchitecture) -> list[Row]:
    parts = architecture.parts
    rows = encoder_rows(architecture.model, SIGLIP_NAMES) + classifier_rows(parts)
    return rows + (_pooler_rows() if "attention_pooler" in parts else [])


def siglip_image_config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    settings = encoder_config(architecture.model) | {"vision_use_head": "attention_pooler" in architecture.parts}
    return _nested(architecture, settings, "siglip")


POOLER: tuple[Part, ...] = ("attention_pooler",)

SIGLIP_VISION = Family(
    name="siglip_vision_model",
    prefix="vision_model",
    recognise=("embeddings.patch_embedding.bias", "post_layernorm.weight", "head.probe"),
    trunk_names=("embeddings.", "encoder.", "post_layernorm."),
    classes={
        "SiglipVisionModel": PublishedClass(POOLER),
        "SiglipForImageClassification": PublishedClass((*POOLER, "classifier")),
    },
    heads=CLASSIFIER | {"attention_pooler": source_names(_pooler_rows())},
    settings=siglip_image_settings,
    rows=siglip_image_rows,
    config=siglip_image_config,
    outside=("classifier.",),
    model_types=("siglip",),
    nested_config=VISION,
    prefix_always=True,
)
