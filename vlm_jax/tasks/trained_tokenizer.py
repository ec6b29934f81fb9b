"""A trained image tokenizer in one file, and the image tokens that it gives to a data set, computed once."""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float, Int, UInt8

from vlm_jax.config.image_generation import ImageGeneration
from vlm_jax.config.image_tokenizer import ImageTokenizer as Config
from vlm_jax.config.quantizers import ImageTokenizerSettings
from vlm_jax.data.digests import image_digests
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.file_cache import note_unwritable
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.images import denormalise
from vlm_jax.data.loader import EvaluationBatches
from vlm_jax.data.settings import DataSet
from vlm_jax.errors import InputError
from vlm_jax.files import replaced, sha256, text_sha256
from vlm_jax.integrity import change, file_entry, read_manifest, write_manifest
from vlm_jax.invocation import command_name
from vlm_jax.models.image_tokenizer import ImageTokenizer
from vlm_jax.models.pixels import normalise_pixels
from vlm_jax.placement import split_over_devices
from vlm_jax.run_folder import RunFolder, open_run
from vlm_jax.settings.changes import group_from_json, to_json
from vlm_jax.settings.groups import Group, Tree, flat, tree_of
from vlm_jax.tasks.examples import without_texts
from vlm_jax.trees import flatten, unflatten
from vlm_jax.types import Example, Parameters

BATCH = 64
SQUARES = 4  # along each side of a patch at most; image tokens with alike colours look alike
# Settings of an image tokenizer and of image generation that decide the tokens of an image.
SHARED = {"image_tokenizer": ImageTokenizerSettings, "image": ImageInput}


class TrainedTokenizer:
    """An image tokenizer as a run left it, read from a safetensors file that carries its config."""

    def __init__(self, file: Path) -> None:
        from safetensors import safe_open

        try:
            with safe_open(file, "np") as opened:
                config = group_from_json(opened.metadata()["config"], Config)
                params = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no dict)
        except Exception as error:
            raise InputError(f"{file} is no image tokenizer: {error}; train again") from None
        self.digest, self.config = sha256(file), config
        self.settings: ImageTokenizerSettings = config.image_tokenizer
        self.image: ImageInput = config.image
        self.codebook_size = self.settings.quantizer.codebook_size
        """How many image tokens there are."""
        self.grid = self.settings.grid_size(self.image.size)
        """Rows and columns of an image's image tokens."""
        self._params = jax.device_put({"params": unflatten(params)})  # once, not with every batch
        model = ImageTokenizer(self.settings, config.compute.convolution)
        self._encode = split_over_devices(
            lambda variables, image: model.bind(variables).encode(normalise_pixels(image, self.image))
        )
        self._decode = split_over_devices(lambda variables, tokens: model.bind(variables).decode(tokens))

    def place(self, where: Sharding) -> None:
        """Put the parameters there."""
        self._params = jax.device_put(self._params, where)

    def encode(self, examples: Sequence[Example], encode: ExampleEncoder) -> Int[np.ndarray, "N gh gw"]:
        """The image tokens of images."""
        batches = EvaluationBatches(without_texts(examples), encode, batch_images=BATCH)
        encoded = [self._encode(self._params, loaded.batch.image) for loaded in batches]
        return np.concatenate(jax.device_get(encoded))[: len(examples)].astype(np.int32)

    def decode(self, tokens: Int[np.ndarray, "N gh gw"]) -> UInt8[np.ndarray, "N h w 3"]:
        """The images of image tokens."""
        images = [np.empty((0, *self.image.size, 3), np.uint8)]
        for first in range(0, len(tokens), BATCH):
            chunk = tokens[first : first + BATCH]
            filled = np.concatenate([chunk, np.zeros((BATCH - len(chunk), *chunk.shape[1:]), chunk.dtype)])
            image = jax.device_get(self._decode(self._params, filled))
            images.append(denormalise(image, self.image)[: len(chunk)])
        return np.concatenate(images)

    def appearance(self) -> Float[np.ndarray, "V F"]:
        """What each image token looks like: mean colours of at most `SQUARES` x `SQUARES` squares of its patch,
        standardised.

        The patch is the middle one of 3 x 3 that all have the image token. Standardised as a whole: what differs more
        from image token to image token, such as the colour, counts more.
        """
        side = self.image.size[0] // self.grid[0]
        squares = math.gcd(side, SQUARES)
        colours = []
        for first in range(0, self.codebook_size, BATCH):
            # The last batch has some image tokens twice: another number of them would be compiled anew.
            tokens = np.minimum(np.arange(first, first + BATCH, dtype=np.int32), self.codebook_size - 1)
            grids = np.broadcast_to(tokens[:, None, None], (BATCH, 3, 3))
            decoded = jax.device_get(self._decode(self._params, grids))
            decoded = decoded[:, side : 2 * side, side : 2 * side]
            colours.append(decoded.reshape(BATCH, squares, side // squares, squares, side // squares, 3).mean((2, 4)))
        appearance = np.concatenate(colours)[: self.codebook_size].reshape(self.codebook_size, -1)
        appearance = appearance - appearance.mean(0, keepdims=True)
        return appearance / max(float(appearance.std()), 1e-6)

    def cached(self, examples: Sequence[Example], encode: ExampleEncoder, data: DataSet) -> Int[np.ndarray, "N gh gw"]:
        """`encode`, but read from `data.directory` where this tokenizer has met the very same images before."""
        digest = text_sha256("\n".join(image_digests(examples, data)))
        file = Path(data.directory).expanduser() / "image_tokens" / self.digest[:16] / f"{digest[:32]}.npy"
        manifest = file.with_suffix(".json")
        try:
            if change(file, read_manifest(manifest)) is None:
                return np.load(file, allow_pickle=False)
        except InputError:  # not there, or damaged
            pass
        tokens = self.encode(examples, encode)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replaced(file) as part, part.open("wb") as stream:
                np.save(stream, tokens)
            write_manifest(manifest, file_entry(file))
        except OSError as error:
            note_unwritable(data.directory.expanduser(), error, f"image tokens are not cached in {file}")
        return tokens


def save_tokenizer(file: Path, config: Config, params: Parameters) -> None:
    """Write an image tokenizer's parameters, with its config, whole or not at all."""
    from safetensors.numpy import save_file

    with replaced(file) as part:
        save_file({path: np.asarray(leaf) for path, leaf in flatten(params).items()}, part, {"config": to_json(config)})


def differing(config: ImageGeneration, trained: Config) -> str:
    """The settings that decide an image's tokens and differ from those of a trained tokenizer, with its values."""
    values, wanted = (
        flat({name: _shared(getattr(either, name), group) for name, group in SHARED.items()})
        for either in (config, trained)
    )
    return ", ".join(f"{name} {value}" for name, value in wanted.items() if values.get(name) != value)


def _shared(group: Group, base: type[Group]) -> Tree:
    return {name: value for name, value in tree_of(group).items() if name in base.model_fields}


def tokenizer_run(config: ImageGeneration) -> RunFolder:
    """The run of `image_tokenizer.run`; `InputError` where it has not ended or has other settings."""
    path = config.image_tokenizer.run
    folder = finished_run("image_tokenizer.run", path, "image_tokenizer", "configs/shape_scenes_tokenizer.py")
    if differences := differing(config, folder.config()):
        raise InputError(f"image_tokenizer.run {path} has {differences}, and the config says otherwise; give the same")
    return folder


def finished_run(setting: str, path: Path, task: str, preset: str) -> RunFolder:
    """The run that a setting names; `InputError` where it has not ended or has another task than `preset`'s."""
    folder = open_run(path.expanduser())
    if (its := folder.config().task) != task:
        raise InputError(
            f"{setting} {path} is a run of the task {its!r}; give one of {task!r}, such as {preset} leaves"
        )
    if not folder.finished:
        raise InputError(f"{setting} {path} is a run that has not ended; finish it with {command_name('train')}")
    return folder
