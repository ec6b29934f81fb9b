"""What transformers' dual encoders compute in float64. Needs torch."""

import numpy as np
import torch

from vlm_jax.weights.family import Inputs, Outputs
from vlm_jax.weights.image_text import padded_with_nan

TEXTS = {"input_ids": "input_ids", "text_mask": "attention_mask", "segments": "token_type_ids"}
"""Our names of what a text consists of, and theirs."""
VECTORS = ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")


def reference_outputs(model: torch.nn.Module, inputs: Inputs) -> Outputs:
    """Layers of both sides, both vectors and their products, under the names of `dual_encoder.outputs`."""
    image = torch.tensor(inputs["image"]).permute(0, 3, 1, 2).to(model.dtype)
    texts = {theirs: torch.tensor(inputs[ours]).long() for ours, theirs in TEXTS.items() if ours in inputs}
    with torch.no_grad():
        output = model(pixel_values=image, **texts)
        image_states = model.vision_model(image, output_hidden_states=True).hidden_states
        text_states = model.text_model(**texts, output_hidden_states=True).hidden_states
    states = {}
    for index, x in enumerate(image_states[1:], 1):
        if x.ndim == 4:
            states[f"image block {index}"] = x.permute(0, 2, 3, 1).numpy()
        else:
            states[f"image layer {index}"] = x.numpy()
    for index, x in enumerate(text_states[1:], 1):
        shown = np.asarray(inputs.get("text_mask", np.ones(x.shape[:2], bool)))
        states[f"text layer {index}"] = padded_with_nan(x.numpy(), shown)
    return states | {name: output[name].numpy() for name in VECTORS}
