"""What the ports of dual encoders share: example inputs, and outputs by name."""

from functools import partial
from typing import Any

import jax
import numpy as np

from vlm_jax.config.dual_encoder import DualEncoder
from vlm_jax.models import dual_encoder
from vlm_jax.models.pretrained import Module
from vlm_jax.types import Parameters
from vlm_jax.weights.family import ConvertedArchitecture, Inputs, ModelKind, Outputs
from vlm_jax.weights.image_text import hidden_states, padded_with_nan

EXAMPLES = 3
TOKENS = 16
IMAGE, TEXT = "image_encoder", "text_encoder"


def example_inputs(architecture: ConvertedArchitecture) -> Inputs:
    """Images of the model's size, and texts of several lengths that end with the end token, padded behind it."""
    model, random = architecture.model, np.random.default_rng(0)
    layers, end = model.text.layers, model.text.end_id
    length = min(TOKENS, layers.max_position_embeddings)
    lengths = np.array([length, max(2, length // 2), 2])
    mask = np.arange(length)[None] < lengths[:, None]
    last = layers.vocab_size - 1
    ids = random.integers(3, last, mask.shape)
    ends = last if end is None else end
    ids = np.where(ids == ends, 3, ids)
    ids[np.arange(EXAMPLES), lengths - 1] = ends
    return {
        "image": random.normal(size=(EXAMPLES, *model.image.image_size, 3)).astype(np.float32),
        "input_ids": np.where(mask, ids, 0).astype(np.int32),
        "text_mask": mask,
    }


def module(architecture: ConvertedArchitecture, dtype: str) -> dual_encoder.DualEncoder:
    """The Flax module of a dual encoder."""
    return dual_encoder.DualEncoder(architecture.model, dtype)


@partial(jax.jit, static_argnums=0)
def _run(model: Module, params: Parameters, inputs: dict[str, jax.Array]) -> tuple[tuple, dict]:
    return model.apply(
        {"params": params},
        **inputs,
        capture_intermediates=lambda m, _: m.name is not None and m.name.startswith("layer_"),
        mutable=["intermediates"],
    )


def outputs(model: dual_encoder.DualEncoder, params: Parameters, inputs: Inputs) -> Outputs:
    """Layers of both sides, both vectors and their products."""
    with jax.default_matmul_precision("highest"):
        output, captured = jax.device_get(_run(model, params, inputs))
    captured, settings = captured["intermediates"], model.settings
    image = hidden_states(captured[IMAGE]["image"], settings.image.num_layers, "image")
    text = hidden_states(captured[TEXT]["trunk"], settings.text.layers.num_layers, "text")
    text = {name: padded_with_nan(states, inputs["text_mask"]) for name, states in text.items()}
    return image | text | output._asdict()


def references(model: Any, inputs: Inputs) -> Outputs:
    """What transformers' class computes."""
    from vlm_jax.weights.dual_encoder_oracle import reference_outputs

    return reference_outputs(model, inputs)


def image_side(architecture: ConvertedArchitecture) -> ConvertedArchitecture:
    """The image encoder with its heads."""
    model = architecture.model
    return architecture._replace(model=model.image, parts=(model.image_head,), projection_size=model.projection_size)


DUAL_ENCODER = ModelKind(DualEncoder, module, example_inputs, outputs, references, image_side)
