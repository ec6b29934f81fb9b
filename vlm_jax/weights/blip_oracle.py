"""What transformers' BLIP computes in float64. Needs torch.

transformers 5.24 ignores the mask of the states that a text attends to. So every example runs alone and without
padding, where all states are visible.
"""

from collections.abc import Iterator

import numpy as np
import torch

from vlm_jax.weights.family import Inputs, Outputs

Tensors = dict[str, torch.Tensor]


def reference_outputs(model: torch.nn.Module, inputs: Inputs) -> Outputs:
    """Layers and heads under the names of `blip.BLIP.kind.outputs`; NaN at padding."""
    pixels = torch.tensor(inputs["image"]).permute(0, 3, 1, 2).to(model.dtype)
    with torch.no_grad():
        vision = model.vision_model(pixels, output_hidden_states=True)
        outputs = _layers("image", vision.hidden_states)
        outputs |= {"image_embeds": vision.last_hidden_state, "pooler_output": vision.pooler_output}
        examples = [_texts(model, vision.last_hidden_state, *example) for example in _unpadded(inputs)]
    named = {name: x.numpy() for name, x in outputs.items()}
    named |= {name: _batch([example[name].numpy() for example in examples]) for name in examples[0]}
    if "itc_score" in named:
        named["itc_score"] = named["itc_score"].T
    return named


def _unpadded(inputs: Inputs) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
    """The number of each example, its text [1, T] and its answer [1, A]."""
    for index in range(len(inputs["image"])):
        texts = [
            torch.tensor(inputs[ids][index : index + 1, inputs[mask][index]]).long() if ids in inputs else None
            for ids, mask in (("input_ids", "text_mask"), ("decoder_input_ids", "decoder_mask"))
        ]
        yield index, *texts


def _texts(
    model: torch.nn.Module, tokens: torch.Tensor, index: int, ids: torch.Tensor, answer: torch.Tensor | None
) -> Tensors:
    """The text sides of an example: `tokens` [B, N, D] are those of all images."""
    states, outputs, written = tokens[index : index + 1], {}, ids
    if hasattr(model, "text_encoder"):
        read = model.text_encoder(ids, encoder_hidden_states=states, output_hidden_states=True)
        outputs |= _layers("encoder", read.hidden_states) | {"question_embeds": read.last_hidden_state}
        states, written = read.last_hidden_state, answer
    if hasattr(model, "text_decoder"):
        decoded = model.text_decoder(written, encoder_hidden_states=states, output_hidden_states=True)
        outputs |= _layers("decoder", decoded.hidden_states) | {"logits": decoded.logits}
    if hasattr(model, "itm_head"):
        alone = model.text_encoder(ids, output_hidden_states=True)
        vectors = [model.vision_proj(tokens[:, 0]), model.text_proj(alone.last_hidden_state[:, 0])]
        image, text = (torch.nn.functional.normalize(x, dim=-1) for x in vectors)
        outputs |= _layers("text", alone.hidden_states)
        outputs |= {"itm_score": model.itm_head(read.last_hidden_state[:, 0]), "itc_score": text @ image.T}
    return outputs


def _layers(side: str, states: tuple[torch.Tensor, ...]) -> Tensors:
    return {f"{side} layer {index}": x for index, x in enumerate(states) if index}


def _batch(examples: list[np.ndarray]) -> np.ndarray:
    """Arrays [1, T, D] of several lengths, one after the other, NaN behind each."""
    longest = max(x.shape[1] for x in examples)
    padding = [((0, 0), (0, longest - x.shape[1]), *((0, 0),) * (x.ndim - 2)) for x in examples]
    pairs = zip(examples, padding, strict=True)
    return np.concatenate([np.pad(x, widths, constant_values=np.nan) for x, widths in pairs])
