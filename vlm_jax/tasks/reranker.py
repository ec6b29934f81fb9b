"""Which of several generated images fits its prompt best, by the likelihood of the prompt as a caption."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float, Int, UInt8

from vlm_jax.data.images import resize_image
from vlm_jax.tasks.base import LoadTask
from vlm_jax.tasks.captioning import Captioning
from vlm_jax.tasks.trained_tokenizer import finished_run
from vlm_jax.trees import flatten
from vlm_jax.types import Example, Json, Parameters

AT_ONCE = 512  # candidates whose pixels are in memory at a time


class Reranker:
    """A captioning model that ranks images by the log-probability of their prompt as a caption.

    It was trained with real images only (Ding et al. 2021, CogView, section 3.2, tune the generating model to caption
    and rank its own samples).
    """

    def __init__(self, captioning: Captioning, params: Parameters, origin: dict[str, Json]) -> None:
        self._captioning, self._params = captioning, params
        self.origin = origin
        """Which run it is of, and which step of it."""
        self._known: set[str] = set()

    def place(self, where: Sharding) -> None:
        """Put the parameters there."""
        self._params = jax.device_put(self._params, where)

    def __call__(self, images: UInt8[np.ndarray, "N h w 3"], prompts: Sequence[str]) -> Float[np.ndarray, " N"]:
        """The log-probability of each prompt, given its image."""
        self._warn_unread(prompts)
        settings = self._captioning.encode.image
        shown = [Example(str(place), resize_image(image, settings)) for place, image in enumerate(images)]
        return np.array(self._captioning.log_likelihoods(self._params, shown, prompts), np.float32)

    def best(
        self,
        prompts: Sequence[str],
        tokens: Int[np.ndarray, "N gh gw"],
        num_candidates: int,
        decode: Callable[[Int[np.ndarray, "N gh gw"]], UInt8[np.ndarray, "N h w 3"]],
    ) -> UInt8[np.ndarray, "M h w 3"]:
        """For each prompt the image with the highest score among its `num_candidates` candidates of `tokens`."""
        size, chosen = max(1, AT_ONCE // num_candidates), []
        for first in range(0, len(prompts), size):
            images = decode(tokens[first * num_candidates : (first + size) * num_candidates])
            texts = [prompt for prompt in prompts[first : first + size] for _ in range(num_candidates)]
            best = self(images, texts).reshape(-1, num_candidates).argmax(1)
            chosen.append(images[np.arange(len(best)) * num_candidates + best])
        return np.concatenate(chosen)

    def _warn_unread(self, prompts: Sequence[str]) -> None:
        """Once a prompt: what the reranker does not read decides nothing."""
        encode = self._captioning.encode
        for prompt in dict.fromkeys(prompts):
            if prompt in self._known:
                continue
            self._known.add(prompt)
            if encode.tokenizer.truncated([prompt], encode.max_length):
                print(
                    f"note: the reranker reads only the first {encode.max_length - 2} tokens of {prompt!r}",
                    file=sys.stderr,
                )
            if encode.tokenizer.unknown_id in encode.tokenizer.tokens([prompt])[0]:
                print(f"note: the reranker does not know every word of {prompt!r}", file=sys.stderr)


def load_reranker(run: Path, load: LoadTask) -> Reranker:
    """The captioning run in a folder; `InputError` where it has not ended or writes no captions."""
    folder = finished_run("reranker", run, "captioning", "configs/shape_scenes_captioning.py")
    task, params, step = load(folder)
    flat = flatten(jax.device_get(params))
    digest = hashlib.sha256(b"".join(flat[name].tobytes() for name in sorted(flat))).hexdigest()
    return Reranker(task, params, {"run": str(run), "checkpoint_step": step, "sha256": digest})
