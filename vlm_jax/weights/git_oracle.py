"""What transformers' GIT computes in float64: the references of `git`. Needs torch."""

import numpy as np
import torch

from vlm_jax.weights.family import Inputs, Outputs
from vlm_jax.weights.git import shown_alone


def git_references(model: torch.nn.Module, inputs: Inputs) -> Outputs:
    """Layers and logits of the class under the names of the port's outputs."""
    pixels = torch.tensor(inputs["image"]).permute(0, 3, 1, 2).to(model.dtype)
    ids, mask = (torch.tensor(inputs[name]).long() for name in ("input_ids", "text_mask"))
    trunk = getattr(model, "git", model)
    arguments = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
    with torch.no_grad():
        image = trunk.image_encoder(pixels, output_hidden_states=True)
        states = trunk(**arguments, output_hidden_states=True).hidden_states
        logits = None if trunk is model else model(**arguments).logits[:, image.last_hidden_state.shape[1] :].numpy()
    references = {f"image layer {index}": x.numpy() for index, x in enumerate(image.hidden_states) if index}
    references["image last state"] = image.last_hidden_state.numpy()
    names = ["embeddings", *(f"layer {index + 1}" for index in range(len(states) - 1))]
    joint = {name: x.numpy() for name, x in zip(names, states, strict=True)}
    return references | shown_alone(joint, logits, np.asarray(inputs["text_mask"]))
