"""The image tokenizer: an image to a small grid of image tokens and back, as alike as can be."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from vlm_jax.config.image_tokenizer import ImageTokenizer as Config
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.images import denormalise
from vlm_jax.data.loader import EvaluationBatches
from vlm_jax.errors import InputError
from vlm_jax.figures import Card, side_by_side
from vlm_jax.metrics.images import PLAIN, codebook_use, psnr, ssim
from vlm_jax.models.image_tokenizer import ImageTokenizer
from vlm_jax.models.inspection import inspect_image_tokenizer
from vlm_jax.models.pixels import normalise_pixels
from vlm_jax.placement import split_over_devices
from vlm_jax.tasks.base import ImageSums, Inspection, Item, Task
from vlm_jax.tasks.examples import without_texts
from vlm_jax.types import Batch, Example, Json, Parameters

FEW_TOKENS = 0.1  # share of the image tokens in use below which something is wrong
DYING = {
    "vq": "the codebook is dying; choose the scalar quantizer",
    "fsq": "images are alike, or too few numbers change; train on, or choose fewer image_tokenizer.quantizer.levels",
}
ENCODE = 0  # what an image's key is used for
NOISE = 2.0  # levels of 255, standard deviation: nobody sees it


class Reconstructed(NamedTuple):
    """An image and what its image tokens show."""

    image_id: str
    original: UInt8[np.ndarray, "h w 3"]
    reconstruction: UInt8[np.ndarray, "h w 3"]
    tokens: Int[np.ndarray, "gh gw"]
    psnr: float
    ssim: float
    tokens_stable: float
    """Share of the image tokens that stay as they are when a little noise is added to the pixels."""

    right: bool | None = None

    def as_dict(self) -> dict[str, Json]:
        return {"image_id": self.image_id, "psnr": self.psnr, "ssim": self.ssim, "image_tokens": self.tokens.tolist()}

    def card(self, image: np.ndarray) -> Card:
        """For a sheet: the original on the left, its reconstruction on the right."""
        scores = f"{self.psnr:.1f} dB, SSIM {self.ssim:.3f}"
        return Card(side_by_side(self.original, self.reconstruction), "", scores, None, (), None)


class ImageTokenization(Task[Reconstructed]):
    """The task of one config: its encoder, its model, its loss and its scores."""

    metric = "psnr"
    scores = ("psnr", "ssim", "tokens_stable", "codebook_use", "codebook_perplexity", "dead_codes")
    shares = ("codebook_use", "tokens_stable")
    unit = "PSNR in dB"
    contact_sheets = True

    @classmethod
    def scale_of(cls, config: Config) -> tuple[str, ...]:
        """Images of another size, or cut in another way, have another PSNR."""
        return "image.size", "image.resize"

    @classmethod
    def inspect(cls, config: Config, classes: int | None) -> Inspection:
        """The model of a config, which has no classes."""
        if classes is not None:
            raise InputError(f"{config.name} is an image tokenizer, which answers nothing; leave --classes out")
        (height, width), tokenizer = config.image.size, config.image_tokenizer
        rows, columns = tokenizer.grid_size(config.image.size)
        number, kind = tokenizer.quantizer.codebook_size, tokenizer.quantizer.kind
        before = [
            f"{config.name}: an image tokenizer, {number:,} image tokens ({kind})",
            f"example: one image of {height} x {width} pixels, {rows} x {columns} image tokens",
        ]
        return Inspection(before, inspect_image_tokenizer(tokenizer, image_size=config.image.size), [])

    @classmethod
    def read_item(cls, line: dict[str, Json]) -> Item:
        """The PSNR of the reconstruction."""
        return Item(line["image_id"], line["psnr"])

    def __init__(self, config: Config, encode: ExampleEncoder) -> None:
        self.config = config
        self.encode = dataclasses.replace(encode, texts_per_image=1)  # texts are not looked at
        self.model = ImageTokenizer(config.image_tokenizer, config.compute.convolution)
        self._reconstruct = split_over_devices(self._reconstruct_batch)

    def init_params(self, key: Key[Array, ""]) -> Parameters:
        return self.model.init(key, jnp.zeros((1, *self.encode.image.size, 3)))["params"]

    def prepare(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The images without their texts."""
        return without_texts(examples)

    def loss_sums(self, params: Parameters, batch: Batch, keys: Key[Array, " I"]) -> ImageSums:
        """Mean squared error of each image, however noisy the encoder's input was, and the quantizer's loss."""
        image = normalise_pixels(batch.image, self.encode.image)
        real, shown = batch.weight[:, 0], image
        if self.config.image_tokenizer.noise:
            own = jax.vmap(lambda key: jax.random.fold_in(key, ENCODE))(keys)
            shown = shown + self._noise(own, shown.shape[1:], self.config.image_tokenizer.noise)
        seen = self.model.apply({"params": params}, shown, revive=True)
        loss = jnp.square(seen.image - image).mean((1, 2, 3)) + seen.loss
        return ImageSums(jnp.sum(loss * real), jnp.sum(real), jnp.sum(real))

    def _reconstruct_batch(
        self, params: Parameters, image: UInt8[Array, "I h w 3"]
    ) -> tuple[Float[Array, "I h w 3"], Int[Array, "I gh gw"], Float[Array, " I"]]:
        """The reconstructions, their image tokens, and of each image the share of these that a little noise leaves."""
        image = normalise_pixels(image, self.encode.image)
        seen = self.model.apply({"params": params}, image)
        noise = self._noise(jax.random.key(self.config.seed)[None], image.shape[1:], NOISE)
        again = self.model.bind({"params": params}).encode(image + noise)
        return seen.image, seen.tokens, jnp.mean(again == seen.tokens, axis=(1, 2))

    def _noise(self, keys: Key[Array, " n"], shape: tuple[int, ...], levels: float) -> Float[Array, "n h w 3"]:
        """For each key an image of noise, in the normalised levels that the model sees."""
        std = levels / 255 / np.array(self.encode.image.std, np.float32)[None, None, None]
        return jax.vmap(lambda key: jax.random.normal(key, shape))(keys) * std

    def predict(self, params: Parameters, examples: Sequence[Example]) -> list[Reconstructed]:
        """Every image of `examples`, which `prepare` gave, as its image tokens show it, in order."""
        size = self.config.training.evaluation_batch_images
        batches = EvaluationBatches(examples, self.encode, batch_images=size, threads=self.config.data.threads)
        rows: list[Reconstructed] = []
        for loaded in batches:
            originals = loaded.batch.image
            decoded, tokens, stable = jax.device_get(self._reconstruct(params, originals))
            images = denormalise(decoded, self.encode.image)
            alike = _psnr(images, originals), ssim(images, originals).tolist()
            names = [ids[0] for ids in loaded.text_ids]
            rows += map(Reconstructed, names, originals, images, tokens, *alike, stable.tolist())
        return rows[: len(examples)]  # the last batch is filled up

    def score(self, predictions: Sequence[Reconstructed]) -> dict[str, float]:
        """How alike the images are, on average, and how the image tokens are used."""
        use = codebook_use(
            np.stack([row.tokens for row in predictions]), self.config.image_tokenizer.quantizer.codebook_size
        )
        means = {name: [getattr(row, name) for row in predictions] for name in ("psnr", "ssim", "tokens_stable")}
        alike = {name: float(np.mean(values)) for name, values in means.items()}
        return alike | use

    def warnings(self, predictions: Sequence[Reconstructed], metrics: dict[str, float]) -> list[str]:
        """What a person should know of the scores."""
        messages = []
        quantizer = self.config.image_tokenizer.quantizer
        count, num_tokens = quantizer.codebook_size, sum(row.tokens.size for row in predictions)
        if metrics["codebook_use"] * count < FEW_TOKENS * min(count, num_tokens):  # few images cannot show many
            messages.append(f"{metrics['codebook_use']:.1%} of the image tokens are in use: {DYING[quantizer.kind]}")
        if all(row.reconstruction.std((0, 1)).max() < PLAIN <= row.original.std((0, 1)).max() for row in predictions):
            messages.append("every image comes back in one colour: the image tokens say nothing of it (yet)")
        return messages

    def title(self, metrics: dict[str, float]) -> str:
        return f"PSNR {metrics['psnr']:.1f} dB, {metrics['codebook_use']:.0%} of the image tokens in use"

    def baselines(
        self,
        params: Parameters,
        examples: Sequence[Example],
        train: Sequence[Example],
        predictions: Sequence[Reconstructed],
    ) -> dict[str, float]:
        """What the mean colour of each image alone would reach."""
        originals = np.stack([row.original for row in predictions])
        plain = np.broadcast_to(originals.mean((1, 2), keepdims=True).round().astype(np.uint8), originals.shape)
        return {"baseline/mean_colour/psnr": float(np.mean(_psnr(plain, originals)))}


def _psnr(images: UInt8[np.ndarray, "N h w 3"], originals: UInt8[np.ndarray, "N h w 3"]) -> list[float]:
    """In dB, of equal images what one value that is a level off would leave: a mean over images stays a number."""
    best = 10 * np.log10(255.0**2 * originals[0].size)
    return np.minimum(psnr(images, originals), best).tolist()


TASK = ImageTokenization
