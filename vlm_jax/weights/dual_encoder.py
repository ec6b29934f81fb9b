"""What the ports of dual encoders share: example inputs, and outputs by name."""

from typing import Any

import jax
import numpy as np

from vlm_jax.config.dual_encoder import DualEncoder
from vlm_jax.config.encoders import VisionTransformer
from vlm_jax.models import dual_encoder
from vlm_jax.types import Parameters
from vlm_jax.weights.family import ConvertedArchitecture, Inputs, ModelKind, Outputs
from vlm_jax.weights.image_text import hidden_states, padded_with_nan, run_recorded

EXAMPLES = 3
TOKENS = 16
IMAGE, TEXT = "image_encoder", "text_encoder"


def example_inputs(architecture: ConvertedArchitecture) -> Inputs:
    """Images of the model's size, and texts of several lengths that end with the end token, padded behind it.

    Where padding is attended to, there is no mask, and texts have the length of the position table.
    """
    model, random = architecture.model, np.random.default_rng(0)
    layers, end = model.text.layers, model.text.end_id
    longest = layers.max_position_embeddings
    length = longest if model.text.attends_to_padding else min(TOKENS, longest)
    lengths = np.array([length, max(2, length // 2), 2])
    mask = np.arange(length)[None] < lengths[:, None]
    last = layers.vocab_size - 1
    ids = random.integers(3, last, mask.shape)
    ends = last if end is None else end
    ids = np.where(ids == ends, 3, ids)
    ids[np.arange(EXAMPLES), lengths - 1] = ends
    size = model.image.image_size if isinstance(model.image, VisionTransformer) else architecture.input.size
    inputs = {
        "image": random.normal(size=(EXAMPLES, *size, 3)).astype(np.float32),
        "input_ids": np.where(mask, ids, 0).astype(np.int32),
    }
    inputs |= {} if model.text.attends_to_padding else {"text_mask": mask}
    if layers.type_vocab_size > 1:
        inputs["segments"] = random.integers(0, layers.type_vocab_size, mask.shape).astype(np.int32)
    return inputs


def module(architecture: ConvertedArchitecture, dtype: str) -> dual_encoder.DualEncoder:
    """The Flax module of a dual encoder."""
    return dual_encoder.DualEncoder(architecture.model, dtype)


def outputs(model: dual_encoder.DualEncoder, params: Parameters, inputs: Inputs) -> Outputs:
    """Layers of both sides, both vectors and their products."""
    output, captured = jax.device_get(run_recorded(model, (), params, inputs))
    settings = model.settings
    captured_image = captured[IMAGE]["image"]
    if isinstance(settings.image, VisionTransformer):
        image = hidden_states(captured_image, settings.image.num_layers, "image")
    else:
        grids = (captured_image[f"block_{index}"]["__call__"][0] for index in range(len(captured_image)))
        image = {f"image block {number}": grid for number, grid in enumerate(grids, 1)}
    text = hidden_states(captured[TEXT]["trunk"], settings.text.layers.num_layers, "text")
    if "text_mask" in inputs:
        text = {name: padded_with_nan(states, inputs["text_mask"]) for name, states in text.items()}
    return image | text | output._asdict()


def references(model: Any, inputs: Inputs) -> Outputs:
    """What transformers' class computes."""
    from vlm_jax.weights.dual_encoder_oracle import reference_outputs

    return reference_outputs(model, inputs)


def image_side(architecture: ConvertedArchitecture) -> ConvertedArchitecture:
    """The image encoder with its heads."""
    model = architecture.model
    if isinstance(model.image, VisionTransformer):
        parts, size = (model.image_head,), model.projection_size
        return architecture._replace(model=model.image, parts=parts, projection_size=size)
    return architecture._replace(model=model.image, pooling=model.image_head)


def _taken_out(architecture: ConvertedArchitecture, params: Parameters) -> tuple[ConvertedArchitecture, Parameters]:
    return image_side(architecture), params[IMAGE]


DUAL_ENCODER = ModelKind(DualEncoder, module, example_inputs, outputs, references, _taken_out)
