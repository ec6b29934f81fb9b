"""What transformers' image transformers compute in float64: the references of `image_proof`. Needs torch."""

import inspect

import numpy as np
import torch

from vlm_jax.weights.converted_model import ConvertedModel


def image_references(converted: ConvertedModel, model: torch.nn.Module, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Layers and heads of the class under the names of `image_outputs`, of pixels [B, h, w, 3]."""
    architecture = converted.architecture
    parts = architecture.parts
    image = torch.tensor(pixels).permute(0, 3, 1, 2).double()
    trunk = getattr(model, converted.family.prefix, model)
    # DINOv2 interpolates by itself; the others refuse another size unless they are told.
    interpolates = "interpolate_pos_encoding" in inspect.signature(trunk.forward).parameters
    told = {"interpolate_pos_encoding": pixels.shape[1:3] != architecture.model.image_size} if interpolates else {}
    with torch.no_grad():
        output = trunk(image, output_hidden_states=True, return_dict=True, **told)
        projected = model.visual_projection(output.pooler_output) if "projection" in parts else None
        has_logits = {"classifier", "distilled_classifiers"} & set(parts)
        logits = model(image, return_dict=True, **told).logits if has_logits else None
    names = ["embeddings", *(f"layer {index + 1}" for index in range(architecture.model.num_layers))]
    references = dict(zip(names, output.hidden_states, strict=True))
    pooled = output.pooler_output
    has_pooler = {"pooler", "attention_pooler"} & set(parts)
    # Without a pooler of its own a class calls the class token pooled.
    class_token = output.last_hidden_state[:, 0] if has_pooler or pooled is None else pooled
    heads = {"last state": output.last_hidden_state, "pooled": pooled if has_pooler else None}
    heads |= {"class token": class_token, "projected": projected, "logits": logits}
    return {name: x.numpy() for name, x in (references | heads).items() if x is not None}
