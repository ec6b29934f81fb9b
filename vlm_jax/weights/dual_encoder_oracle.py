"""What transformers' dual encoders compute in float64. Needs torch."""

import numpy as np
import torch

from vlm_jax.weights.family import Inputs, Outputs
from vlm_jax.weights.image_text import padded_with_nan

VECTORS = ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")


def reference_outputs(model: torch.nn.Module, inputs: Inputs) -> Outputs:
    """Layers of both sides, both vectors and their products, under the names of `dual_encoder.outputs`."""
    image = torch.tensor(inputs["image"]).permute(0, 3, 1, 2).to(model.dtype)
    ids, mask = (torch.tensor(inputs[name]).long() for name in ("input_ids", "text_mask"))
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, pixel_values=image)
        image_states = model.vision_model(image, output_hidden_states=True).hidden_states
        text_states = model.text_model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    states = {f"image layer {index}": x.numpy() for index, x in enumerate(image_states) if index}
    for index, x in enumerate(text_states[1:]):
        states[f"text layer {index + 1}"] = padded_with_nan(x.numpy(), np.asarray(inputs["text_mask"]))
    return states | {name: output[name].numpy() for name in VECTORS}
