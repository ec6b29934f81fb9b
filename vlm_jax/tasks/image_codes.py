"""A trained image tokenizer in one file, and the codes that it gives to a data set, computed once."""

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from vlm_jax.config import Config, Data, ImageInput, ImageTokenizerSettings
from vlm_jax.config_json import from_json, to_json
from vlm_jax.data.digests import image_digests
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.images import denormalise
from vlm_jax.data.loader import evaluation_batches
from vlm_jax.errors import InputError
from vlm_jax.integrity import change, facts_of, read_manifest, sha256, write_manifest
from vlm_jax.models.image_tokenizer import ImageTokenizer, code_count, grid_size
from vlm_jax.tasks.shared import without_texts
from vlm_jax.trees import flatten, unflatten
from vlm_jax.types import Example

BATCH = 64
SQUARES = 4  # along each side of a cell at most, by whose colours codes are told to look alike
PICTURE = ("size", "resize", "mean", "std")  # how a picture file becomes what is encoded


class TrainedTokenizer:
    """An image tokenizer as a run left it, read from a safetensors file that carries its config."""

    def __init__(self, file: Path) -> None:
        from safetensors import safe_open

        try:
            with safe_open(file, "np") as opened:
                config = from_json(opened.metadata()["config"])
                params = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no dict)
        except Exception as error:
            raise InputError(f"{file} is no image tokenizer: {error}; train again") from None
        self.digest, self.config = sha256(file), config
        self.settings: ImageTokenizerSettings = config.model.image_tokenizer
        self.image: ImageInput = config.data.image
        self.codes = code_count(self.settings)
        """How many codes there are."""
        self.grid = grid_size(self.settings, self.image.size)
        """Rows and columns of a picture's codes."""
        self._params = jax.device_put({"params": unflatten(params)})  # once, not with every batch
        model = ImageTokenizer(self.settings)
        self._encode = jax.jit(lambda params, image: model.apply(params, image, method="encode"))
        self._decode = jax.jit(lambda params, codes: model.apply(params, codes, method="decode"))

    def encode(self, examples: Sequence[Example], encode: ExampleEncoder) -> Int[np.ndarray, "N gh gw"]:
        """The codes of pictures."""
        batches = evaluation_batches(without_texts(examples), encode, batch_images=BATCH)
        found = [self._encode(self._params, jax.device_put(loaded.batch.image)) for loaded in batches]
        return np.concatenate(jax.device_get(found))[: len(examples)].astype(np.int32)

    def decode(self, codes: Int[np.ndarray, "N gh gw"]) -> UInt8[np.ndarray, "N h w 3"]:
        """The pictures of codes."""
        pictures = [np.empty((0, *self.image.size, 3), np.uint8)]
        for first in range(0, len(codes), BATCH):
            some = codes[first : first + BATCH]
            filled = np.concatenate([some, np.zeros((BATCH - len(some), *some.shape[1:]), some.dtype)])
            image = jax.device_get(self._decode(self._params, jax.device_put(filled)))
            pictures.append(denormalise(image, self.image)[: len(some)])
        return np.concatenate(pictures)

    def looks(self) -> Float[np.ndarray, "V F"]:
        """What each code looks like: mean colours of at most `SQUARES` x `SQUARES` squares of its cell, standardised.

        The cell is the middle one of 3 x 3 that all have the code. Standardised as a whole, so that what differs more
        from code to code, such as the colour, counts more.
        """
        side = self.image.size[0] // self.grid[0]
        squares = math.gcd(side, SQUARES)
        found = []
        for first in range(0, self.codes, BATCH):
            # The last batch has some codes twice: another number of them would be compiled anew.
            codes = np.minimum(np.arange(first, first + BATCH, dtype=np.int32), self.codes - 1)
            grids = np.broadcast_to(codes[:, None, None], (BATCH, 3, 3))
            cells = jax.device_get(self._decode(self._params, jax.device_put(grids)))
            cells = cells[:, side : 2 * side, side : 2 * side]
            found.append(cells.reshape(BATCH, squares, side // squares, squares, side // squares, 3).mean((2, 4)))
        looks = np.concatenate(found)[: self.codes].reshape(self.codes, -1)
        looks = looks - looks.mean(0, keepdims=True)
        return looks / max(float(looks.std()), 1e-6)

    def cached(self, examples: Sequence[Example], encode: ExampleEncoder, data: Data) -> Int[np.ndarray, "N gh gw"]:
        """`encode`, but read from `data.directory` where this tokenizer has met the very same pictures before."""
        digest = hashlib.sha256("\n".join(image_digests(examples, data)).encode()).hexdigest()
        file = Path(data.directory).expanduser() / "image_tokens" / self.digest[:16] / f"{digest[:32]}.npy"
        manifest = file.with_suffix(".json")
        try:
            if change(file, read_manifest(manifest)) is None:
                return np.load(file, allow_pickle=False)
        except InputError:  # not there, or damaged
            pass
        codes = self.encode(examples, encode)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.npy")
        np.save(part, codes)
        part.replace(file)
        write_manifest(manifest, facts_of(file))
        return codes


def save_tokenizer(file: Path, config: Config, params: Any) -> None:
    """Write an image tokenizer's parameters, with its config, whole or not at all."""
    from safetensors.numpy import save_file

    part = file.with_suffix(f".{os.getpid()}.part")
    save_file({path: np.asarray(leaf) for path, leaf in flatten(params).items()}, part, {"config": to_json(config)})
    part.replace(file)


def differing(mine: Config, its: Config) -> str:
    """What decides a picture's codes and is not the same in two configs, as the second has it."""
    one, other = mine.model.image_tokenizer, its.model.image_tokenizer
    own = ("levels",) if other.quantizer == "fsq" else ("codebook_size", "embedding_size")
    rows = [
        (f"model.image_tokenizer.{name}", one, other)
        for name in ("quantizer", "encoder", "patch_size", "widths", "depths", *own)
    ]
    rows = [(name, getattr(a, name.rpartition(".")[2]), getattr(b, name.rpartition(".")[2])) for name, a, b in rows]
    pictures = (mine.data.image, its.data.image)
    rows += [(f"data.image.{name}", *(getattr(each, name) for each in pictures)) for name in PICTURE]
    return ", ".join(f"{name} {wanted}" for name, given, wanted in rows if given != wanted)
