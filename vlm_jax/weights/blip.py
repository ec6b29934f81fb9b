"""BLIP (Li et al. 2022): captioning, answers to questions, image-text retrieval."""

from typing import Any

import jax
import numpy as np

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.blip import Blip
from vlm_jax.config.encoders import Features, VisionTransformer
from vlm_jax.errors import InputError
from vlm_jax.models import blip
from vlm_jax.models.pretrained import Module, Part
from vlm_jax.types import Json, Parameters
from vlm_jax.weights.bert import CROSS_ATTENTION, LAYER, LAYERS
from vlm_jax.weights.bert_tables import ACTIVATIONS, MOST_LAYERS, encoder
from vlm_jax.weights.clip_vision import LAYER as SEPARATE_LAYER
from vlm_jax.weights.dropout import DropoutNames, trunk_dropout
from vlm_jax.weights.family import (
    ConvertedArchitecture,
    Family,
    Inputs,
    ModelKind,
    Outputs,
    PublishedClass,
    PublishedFile,
    choice,
    number,
    real,
)
from vlm_jax.weights.image_text import hidden_states, padded_with_nan, run_recorded, side_config, within
from vlm_jax.weights.tables import FUSED, SAME, Row, linear, norm, source_names
from vlm_jax.weights.vit_tables import CLIP, EncoderNames, encoder_config, encoder_rows, encoder_settings, stretched

TEXT, VISION = "text_config", "vision_config"
IMAGE_ENCODER, ENCODER, DECODER = "image_encoder", "text_encoder", "text_decoder"
EXAMPLES, TOKENS, ANSWER_TOKENS = 2, 12, 6

# Settings


def _image(file: PublishedFile) -> VisionTransformer:
    config = {"image_size": 384} | side_config(file, VISION)
    if rate := config.get("attention_dropout"):
        raise InputError(f"config.json says attention_dropout = {rate!r} of {VISION}; without dropout it can be ported")
    return encoder_settings(config, patch_size=16, hidden_act="gelu", layer_norm_eps=1e-5)


def _text(config: dict[str, Json], states_width: int) -> Architecture:
    """The layers of an encoder that attends to states of a width, which transformers takes from the image side."""
    width, heads = number(config, "hidden_size", 768), number(config, "num_attention_heads", 8)
    if width % heads:
        raise InputError(f"config.json says num_attention_heads = {heads} of {TEXT}, no divisor of the width {width}")
    choice(config, "is_decoder", True, (True,))  # without it the layers attend to no image
    layers = Architecture(
        fusion="cross",
        attention_pattern="bidirectional",
        head="lm",
        hidden_size=width,
        num_attention_heads=heads,
        num_layers=number(config, "num_hidden_layers", 12, most=MOST_LAYERS),
        intermediate_size=number(config, "intermediate_size", 3072),
        hidden_act=choice(config, "hidden_act", "gelu", ACTIVATIONS),
        layer_norm_eps=real(config, "layer_norm_eps", 1e-12),
        image=Features(feature_size=states_width),
        vocab_size=number(config, "vocab_size", 30524),
        text_feature_size=width,
        max_position_embeddings=number(config, "max_position_embeddings", 512),
        type_vocab_size=0,
    )
    return trunk_dropout(layers, config, DropoutNames(default=0.0))


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    if lacking := set(BLIP.classes[file.class_name].parts) - set(file.parts):
        names = [name for part in BLIP.classes[file.class_name].parts if part in lacking for name in BLIP.heads[part]]
        raise InputError(f"the file lacks tensors of {file.class_name}: {', '.join(names)}")
    image, config = _image(file), side_config(file, TEXT)
    text = _text(config, image.hidden_size)
    if file.class_name == "BlipForQuestionAnswering" and text.hidden_size != image.hidden_size:
        raise InputError(
            f"config.json says hidden_size = {text.hidden_size} of {TEXT} and {image.hidden_size} of {VISION}; "
            "BlipForQuestionAnswering, whose decoder reads the states of texts, needs the same"
        )
    ids = {"bos_token_id": 30522, "sep_token_id": 102, "pad_token_id": 0}
    ids = {name: number(config, name, default, least=0) for name, default in ids.items()}
    size = number(file.config, "image_text_hidden_size", 256)
    model = Blip(image=image, text=text, projection_size=size, **ids)
    return ConvertedArchitecture(model, file.parts, input=stretched(image, "bicubic", CLIP), pad_id=model.pad_token_id)


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    model, text = architecture.model, architecture.model.text
    tied = "decoder" not in architecture.parts
    text_settings = {
        "hidden_size": text.hidden_size,
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_layers,
        "intermediate_size": text.intermediate_size,
        "encoder_hidden_size": model.image.hidden_size,
        "hidden_act": text.hidden_act,
        "layer_norm_eps": text.layer_norm_eps,
        "hidden_dropout_prob": text.hidden_dropout_prob,
        "attention_probs_dropout_prob": text.attention_probs_dropout_prob,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_position_embeddings,
        "bos_token_id": model.bos_token_id,
        "sep_token_id": model.sep_token_id,
        "pad_token_id": model.pad_token_id,
        "is_decoder": True,
        "tie_word_embeddings": tied,
    }
    image_settings = {key: value for key, value in encoder_config(model.image).items() if key != "num_channels"}
    return {TEXT: text_settings, VISION: image_settings} | {
        "image_text_hidden_size": model.projection_size,
        "tie_word_embeddings": tied,
    }


# Tables

IMAGE_NAMES = EncoderNames(
    layers="encoder.layers",
    layer={
        "attention/output": "self_attn.projection",
        **{path: name for path, name in SEPARATE_LAYER.items() if not path.startswith("attention/")},
    },
    tokens=("embeddings.class_embedding",),
    token_axes=2,
    positions="embeddings.position_embedding",
    position_axes=1,
    patches="embeddings.patch_embedding",
    final_norm="post_layernorm",
)
WORDS = f"{DECODER}.cls.predictions"


def _image_rows(model: VisionTransformer) -> list[Row]:
    rows = encoder_rows(model, IMAGE_NAMES)
    for index in range(model.num_layers):
        for theirs, ours in (("weight", "kernel"), ("bias", "bias")):
            paths = tuple(f"image/layer_{index}/attention/{part}/{ours}" for part in ("query", "key", "value"))
            rows.append(Row((f"encoder.layers.{index}.self_attn.qkv.{theirs}",), paths, FUSED))
    return within(rows, "vision_model", IMAGE_ENCODER)


def _word_rows() -> list[Row]:
    target = f"{DECODER}/head/words"
    rows = linear(f"{WORDS}.transform.dense", f"{target}/transform")
    rows += norm(f"{WORDS}.transform.LayerNorm", f"{target}/norm")
    return [*rows, Row((f"{WORDS}.bias",), (f"{target}/bias",), SAME)]


def _decoder_rows() -> list[Row]:
    return linear(f"{WORDS}.decoder", f"{DECODER}/head/words/decoder", bias=False)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    model, parts = architecture.model, architecture.parts
    bert_rows = encoder(model.text, LAYERS, LAYER | CROSS_ATTENTION)
    rows = _image_rows(model.image)
    rows += within(bert_rows, ENCODER, ENCODER) if "text_encoder" in parts else []
    rows += within(bert_rows, f"{DECODER}.bert", DECODER) if "words" in parts else []
    rows += _word_rows() if "words" in parts else []
    rows += _decoder_rows() if "decoder" in parts else []
    rows += linear("itm_head", "itm_head") if "matching" in parts else []
    rows += linear("vision_proj", "vision_proj") if "projections" in parts else []
    return rows + (linear("text_proj", "text_proj") if "projections" in parts else [])


# The proof

CLASSES: dict[str, tuple[type[Module], PublishedClass]] = {
    "BlipForConditionalGeneration": (
        blip.BlipForConditionalGeneration, PublishedClass(("words",), alone=True, pipeline="image-to-text"),
    ),
    "BlipForQuestionAnswering": (
        blip.BlipForQuestionAnswering,
        PublishedClass(("text_encoder", "words"), alone=True, pipeline="visual-question-answering"),
    ),
    "BlipForImageTextRetrieval": (
        blip.BlipForImageTextRetrieval, PublishedClass(("text_encoder", "matching", "projections"), alone=True),
    ),
}  # fmt: skip


def _module(architecture: ConvertedArchitecture, dtype: str) -> Module:
    """The module of the class that has these heads."""
    return CLASSES[BLIP.class_of(architecture)][0](architecture.model, architecture.parts, dtype)


def _texts(model: Blip, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of texts, the second of half the length."""
    length = min(length, model.text.max_position_embeddings)
    mask = np.arange(length)[None] < np.array([[length], [max(1, length // 2)]])
    ids = random.integers(0, model.text.vocab_size, mask.shape)
    return np.where(mask, ids, model.pad_token_id).astype(np.int32), mask


def _inputs(architecture: ConvertedArchitecture) -> Inputs:
    """Images of the model's size, texts of two lengths, and for questions answers of two lengths."""
    model, random = architecture.model, np.random.default_rng(0)
    image = random.normal(size=(EXAMPLES, *model.image.image_size, 3)).astype(np.float32)
    inputs = dict(zip(("input_ids", "text_mask"), _texts(model, random, TOKENS), strict=True))
    if {"text_encoder", "words"} <= set(architecture.parts):
        answers = _texts(model, random, ANSWER_TOKENS)
        inputs |= dict(zip(("decoder_input_ids", "decoder_mask"), answers, strict=True))
    return {"image": image} | inputs


def _outputs(model: Module, params: Parameters, inputs: Inputs) -> Outputs:
    """Layers of every side and all heads; `text layer` is the encoder's without an image."""
    output, captured = jax.device_get(run_recorded(model, (), params, inputs))
    settings = model.settings
    states = hidden_states(captured[IMAGE_ENCODER]["image"], settings.image.num_layers, "image")
    mask, depth, heads = inputs["text_mask"], settings.text.num_layers, output._asdict()
    texts = {}
    if ENCODER in captured:
        texts |= _padded(hidden_states(captured[ENCODER]["trunk"], depth, "encoder"), mask)
        heads["question_embeds"] = padded_with_nan(heads["question_embeds"], mask)
    if isinstance(model, blip.BlipForImageTextRetrieval):
        texts |= _padded(hidden_states(captured[ENCODER]["trunk"], depth, "text", call=1), mask)
    if DECODER in captured:
        mask = inputs.get("decoder_mask", mask)
        texts |= _padded(hidden_states(captured[DECODER]["trunk"], depth, "decoder"), mask)
        heads["logits"] = padded_with_nan(heads["logits"], mask)
    return states | texts | heads


def _padded(states: Outputs, mask: np.ndarray) -> Outputs:
    return {name: padded_with_nan(x, mask) for name, x in states.items()}


def _references(model: Any, inputs: Inputs) -> Outputs:
    """What transformers' class computes."""
    from vlm_jax.weights.blip_oracle import reference_outputs

    return reference_outputs(model, inputs)


def _image_side(architecture: ConvertedArchitecture, params: Parameters) -> tuple[ConvertedArchitecture, Parameters]:
    """The image encoder alone."""
    return architecture._replace(model=architecture.model.image, parts=()), params[IMAGE_ENCODER]


HEADS: dict[Part, tuple[str, ...]] = {
    "words": source_names(_word_rows()),
    "decoder": source_names(_decoder_rows()),
    "text_encoder": source_names(norm(f"{ENCODER}.embeddings.LayerNorm", "")),
    "matching": source_names(linear("itm_head", "")),
    "projections": source_names(linear("vision_proj", "") + linear("text_proj", "")),
}
BLIP = Family(
    name="blip",
    prefix="",
    recognise=("vision_model.encoder.layers.0.self_attn.qkv.weight", "vision_model.post_layernorm.weight"),
    trunk_names=(
        "vision_model.", f"{DECODER}.bert.", f"{ENCODER}.encoder.",
        f"{ENCODER}.embeddings.word_embeddings.", f"{ENCODER}.embeddings.position_embeddings.",
    ),
    classes={name: known for name, (_, known) in CLASSES.items()},
    heads=HEADS,
    settings=_settings,
    rows=_rows,
    config=_config,
    sides=(TEXT, VISION),
    kind=ModelKind(Blip, _module, _inputs, _outputs, _references, _image_side),
    aliases={f"{WORDS}.decoder.bias": f"{WORDS}.bias"},
    tied=(f"{WORDS}.decoder.weight", f"{DECODER}.bert.embeddings.word_embeddings.weight"),
)  # fmt: skip
