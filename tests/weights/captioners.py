"""Captioners of transformers with weights that see the image, what their `generate` writes, and how clearly it chose.

Weights of std 0.02 write one caption for every image: a port that ignores the image would pass.
"""

import math
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.images import decode_image, normalise, resize_image
from vlm_jax.decoding import Decoded
from vlm_jax.weights.checks import BOUND

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "coco_photos.tar"  # beside a checkout, if at all


def make_seeing(model: torch.nn.Module, *, output: str = "", gain: float) -> None:
    """Give every parameter noise of one seed, in the order of `named_parameters`.

    Matrices and convolutions keep the size of what they read, times `gain`. `output` names the matrix of the logits
    where that is no table of embeddings.
    """
    generator = torch.Generator().manual_seed(0)
    norms = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, torch.nn.LayerNorm)}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name in norms:
            value = 1 + 0.1 * noise
        elif "embedding" in name and "patch" not in name and not name.endswith("bias"):
            value = 0.05 * noise
        elif parameter.ndim == 1 or name == output:
            value = 0.1 * noise
        else:
            value = gain * noise / math.sqrt(parameter[0].numel())
        parameter.data.copy_(value)


@contextmanager
def encoded_once(encoder: torch.nn.Module) -> Iterator[None]:
    """Inside, an image encoder computes the images of its first call alone; beams and further calls have the same."""
    forward, calls = encoder.forward, []

    def remembered(pixel_values: torch.Tensor, **options) -> BaseModelOutput:
        if not calls:
            calls.append((pixel_values, forward(pixel_values, **options)))
        images, output = calls[0]
        times = len(pixel_values) // len(images)
        assert torch.equal(pixel_values[::times], images), "other images than before"
        return BaseModelOutput(last_hidden_state=output.last_hidden_state.repeat_interleave(times, 0))

    encoder.forward = remembered
    try:
        yield
    finally:
        del encoder.forward


class Captions(NamedTuple):
    """The best caption of each image."""

    ids: np.ndarray
    """Token ids [I, L] without the first one, and `pad` after the end; L is `max_length` - 1."""
    token_log_probability: np.ndarray
    """Of each token in float64 [I, L], computed without a cache; 0 after the end."""
    gap: np.ndarray
    """The least difference [I] between two log-probabilities that a choice lay between."""


def generated(
    model: torch.nn.Module, pixels: np.ndarray, *, num_beams: int, max_length: int, begin: int, end: int, pad: int
) -> Captions:
    """What the class's own `generate` writes of pixels [I, h, w, 3], by its defaults; best in float64."""
    image = torch.tensor(pixels).permute(0, 3, 1, 2).to(model.dtype)
    gaps, method = [], "_get_top_k_continuations"
    options = {"num_beams": num_beams, "max_length": max_length, "do_sample": False}
    options |= {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}

    def observed(accumulated_log_probs, *arguments, **named):
        largest = torch.topk(accumulated_log_probs, 2 * num_beams + 1).values
        gaps.append((largest[:, :-1] - largest[:, 1:]).amin(1).numpy())
        return type(model)._get_top_k_continuations(model, accumulated_log_probs, *arguments, **named)

    with torch.no_grad():
        if num_beams > 1:
            setattr(model, method, observed)
        try:
            sequences = model.generate(pixel_values=image, **options)
        finally:
            vars(model).pop(method, None)
        logits = model(input_ids=sequences[:, :-1], pixel_values=image).logits[:, 1 - sequences.shape[1] :]
    ids = sequences[:, 1:]
    ends = (ids == end).long()
    shown = (ends.cumsum(1) - ends) == 0
    ids = ids.where(shown, pad)
    if num_beams == 1:
        best, second = logits.topk(2).values.unbind(-1)
        gaps = [(best - second).where(shown, math.inf).amin(1).numpy()]
        chosen = logits.argmax(-1)
        assert torch.equal(chosen[shown], ids[shown]), "generate with its cache writes other ids than without"
    log_p = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    missing = (0, max_length - sequences.shape[1])
    ids, log_p = (
        torch.nn.functional.pad(x, missing, value=fill) for x, fill in ((ids, pad), (log_p.where(shown, 0), 0))
    )
    return Captions(ids.numpy(), log_p.numpy(), np.min(gaps, axis=0))


def same_captions(decoded: Decoded, reference: Captions) -> np.ndarray:
    """Which images [I] have the reference's caption, whose log-probabilities are then within the bound."""
    same = (decoded.ids[:, 0] == reference.ids).all(1)
    difference = np.abs(decoded.token_log_probability[:, 0] - reference.token_log_probability)
    assert difference[same].max() <= BOUND
    return same


def photographs(count: int, settings: ImageInput) -> np.ndarray:
    """Normalised pixels of the first photographs [I, h, w, 3]."""
    with tarfile.open(PHOTOGRAPHS) as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))[:count]
        files = {name: archive.extractfile(name).read() for name in names}
    images = [decode_image(data, name=name, max_pixels=10**7) for name, data in files.items()]
    return np.stack([normalise(resize_image(image, settings), settings) for image in images])
