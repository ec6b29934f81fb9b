"""An image as a small grid of image tokens, and back: convolutional encoder, quantizer, decoder."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from vlm_jax.config.quantizers import FSQ, VQ, ImageTokenizerSettings
from vlm_jax.models.convolution import Conv

REVIVAL = 0.25  # weight of the loss that moves unused image tokens to features of the batch

Features = Float[Array, "B gh gw d"]
ImageTokens = Int[Array, "B gh gw"]


class Quantized(NamedTuple):
    """Features rounded to image tokens."""

    features: Features
    """The input of the decoder: at each grid position its image token's, with the gradient of what was rounded."""
    tokens: ImageTokens
    loss: Float[Array, " B"]
    """What the quantizer adds to the loss of each image."""


class Reconstruction(NamedTuple):
    """Images that went through their image tokens."""

    image: Float[Array, "B h w 3"]
    tokens: ImageTokens
    loss: Float[Array, " B"]
    """The quantizer's share of the loss."""


def fsq_digits(levels: tuple[int, ...]) -> Int[np.ndarray, "V d"]:
    """Of each image token of finite scalar quantization the level of each number, from 0, the first number first."""
    tokens = np.arange(math.prod(levels), dtype=np.int32)
    return tokens[:, None] // _basis(levels)[None] % np.array(levels, np.int32)[None]


def _basis(levels: tuple[int, ...]) -> Int[np.ndarray, " d"]:
    """What a digit counts in an image token: the first one 1."""
    return np.cumprod([1, *levels[:-1]]).astype(np.int32)


class FiniteScalarQuantizer(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, section 3): d numbers, rounded to `levels` values each.

    A number is first bounded by a tanh, moved by half a level where there is an even number of them. Nothing is
    learned here, and no image token can die.
    """

    settings: FSQ

    @property
    def width(self) -> int:
        """Numbers of a grid position."""
        return len(self.settings.levels)

    def __call__(self, features: Features, *, revive: bool = False) -> Quantized:
        levels = self._levels()
        half, offset = (levels - 1) * (1 + 1e-3) / 2, np.where(levels % 2, 0.0, 0.5)
        bounded = jnp.tanh(features + np.arctanh(offset / half)) * half - offset
        digits = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
        middle = levels // 2
        digit_ids = jnp.round(jax.lax.stop_gradient(digits)).astype(jnp.int32) + middle
        tokens = jnp.sum(digit_ids * _basis(self.settings.levels)[None, None, None], axis=-1)
        return Quantized(digits / middle, tokens, jnp.zeros(len(features)))

    def dequantize(self, tokens: ImageTokens) -> Features:
        """The features of image tokens, each number from -1 to 1."""
        middle = self._levels() // 2
        return (jnp.asarray(fsq_digits(self.settings.levels))[tokens] - middle) / middle

    def _levels(self) -> Int[np.ndarray, "1 1 1 d"]:
        return np.array(self.settings.levels, np.int32)[None, None, None]


class VectorQuantizer(nn.Module):
    """A learned codebook (van den Oord et al. 2017, section 3.2, eq. 3), trained by its gradient alone.

    With `revive`, an image token that no feature of the batch took moves towards one: so an unused image token
    returns, as by reinitialization (Zheng and Vedaldi 2023), without any state of its own. Each image token has a place
    of its own among the features, so many standard deviations from their mean, and goes to the feature nearest to it:
    one chosen anew in every step would be another each time, and the image token would go to their mean, where no
    feature is. What "the batch" is, and so the loss, depends on how many devices and micro-batches it is split into.
    """

    settings: VQ

    def setup(self) -> None:
        s = self.settings
        bound = 1 / s.codebook_size  # as in the authors' code
        init = nn.initializers.uniform(2 * bound)
        self.codebook = self.param("codebook", lambda *args: init(*args) - bound, (s.codebook_size, s.embedding_size))

    @property
    def width(self) -> int:
        """Numbers of a grid position."""
        return self.settings.embedding_size

    def __call__(self, features: Features, *, revive: bool = False) -> Quantized:
        s, flat = self.settings, features.reshape(-1, features.shape[-1])
        tokens = _nearest(flat, self.codebook)
        taken = self.codebook[tokens].reshape(features.shape)
        to_code = jnp.square(jax.lax.stop_gradient(features) - taken).sum((1, 2, 3))
        to_feature = jnp.square(features - jax.lax.stop_gradient(taken)).sum((1, 2, 3))
        loss = (to_code + s.commitment * to_feature) / (features[0].size)
        if revive:
            seen = jax.lax.stop_gradient(flat)
            away = jax.random.normal(jax.random.key(0), self.codebook.shape)
            places = seen.mean(0)[None] + seen.std(0)[None] * away
            dead = jnp.ones(s.codebook_size, bool).at[tokens].set(False)
            distance = jnp.square(seen[_nearest(places, seen)] - self.codebook).mean(-1)
            loss += REVIVAL * jnp.sum(distance * dead) / s.codebook_size
        rounded = features + jax.lax.stop_gradient(taken - features)
        return Quantized(rounded, tokens.reshape(features.shape[:-1]), loss)

    def dequantize(self, tokens: ImageTokens) -> Features:
        """The features of image tokens."""
        return self.codebook[tokens]


def _nearest(points: Float[Array, "n d"], others: Float[Array, "m d"]) -> Int[Array, " n"]:
    """Which of the others is nearest to each point."""
    return jnp.argmin(jnp.square(others).sum(-1)[None] - 2 * points @ others.T, axis=-1)


QUANTIZERS = {"fsq": FiniteScalarQuantizer, "vq": VectorQuantizer}


class ResidualBlock(nn.Module):
    """Twice layer norm, activation and a convolution, added to what came in.

    The norm is of each place by itself: one over the whole image would let every image token depend on every pixel.
    """

    width: int
    method: str
    kernel_size: int = 3

    @nn.compact
    def __call__(self, x: Features) -> Features:
        for name in ("first", "second"):
            inner = jax.nn.silu(nn.LayerNorm(name=f"{name}_norm")(x if name == "first" else inner))
            inner = Conv(self.width, self.kernel_size, 1, self.method, name=f"{name}_conv")(inner)
        return x + inner


class Encoder(nn.Module):
    """Squares of pixels, then stages of residual blocks that halve height and width between them.

    With `patchwise` nothing passes from one grid position to another. An image token then describes its own patch
    only: image generation predicts each from the text and its neighbours.
    """

    settings: ImageTokenizerSettings
    features: int
    convolution: str = "auto"

    @nn.compact
    def __call__(self, image: Float[Array, "B h w 3"]) -> Features:
        s, kernel_size = self.settings, 1 if self.settings.encoder == "patchwise" else 3
        x = nn.Dense(s.widths[0], name="patch")(to_depth(image, s.patch_size))
        for stage, (width, depth) in enumerate(zip(s.widths, s.depths, strict=True)):
            if stage:
                x = nn.Dense(width, name=f"stage_{stage}_down")(to_depth(x, 2))
            for block in range(depth):
                x = ResidualBlock(width, self.convolution, kernel_size, name=f"stage_{stage}_block_{block}")(x)
        return nn.Dense(self.features, name="output")(jax.nn.silu(nn.LayerNorm(name="norm")(x)))


class ImageDecoder(nn.Module):
    """The encoder's stages the other way round, with 3x3 convolutions."""

    settings: ImageTokenizerSettings
    convolution: str = "auto"

    @nn.compact
    def __call__(self, features: Features) -> Float[Array, "B h w 3"]:
        s = self.settings
        x = nn.Dense(s.widths[-1], name="input")(features)
        for stage in reversed(range(len(s.widths))):
            for block in range(s.depths[stage]):
                x = ResidualBlock(s.widths[stage], self.convolution, name=f"stage_{stage}_block_{block}")(x)
            if stage:
                x = to_space(nn.Dense(4 * s.widths[stage - 1], name=f"stage_{stage}_up")(x), 2)
        x = jax.nn.silu(nn.LayerNorm(name="norm")(x))
        return to_space(nn.Dense(3 * s.patch_size**2, name="patch")(x), s.patch_size)


def to_depth(x: Float[Array, "B h w C"], side: int) -> Float[Array, "B _ _ _"]:
    """Squares of `side` x `side` positions, row by row, as channels of one position."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, height // side, width // side, side * side * channels)


def to_space(x: Float[Array, "B h w C"], side: int) -> Float[Array, "B _ _ _"]:
    """What `to_depth` took apart."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height, width, side, side, channels // side**2).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, height * side, width * side, channels // side**2)


class ImageTokenizer(nn.Module):
    """Normalised pixels to image tokens and back; height and width are multiples of the side of a token's patch."""

    settings: ImageTokenizerSettings
    convolution: str = "auto"

    def setup(self) -> None:
        self.quantizer = QUANTIZERS[self.settings.quantizer.kind](self.settings.quantizer)
        self.encoder = Encoder(self.settings, self.quantizer.width, self.convolution)
        self.decoder = ImageDecoder(self.settings, self.convolution)

    def __call__(self, image: Float[Array, "B h w 3"], *, revive: bool = False) -> Reconstruction:
        """Images as their image tokens show them; with `revive` dead image tokens of a codebook are brought back."""
        quantized = self.quantizer(self.encoder(image), revive=revive)
        return Reconstruction(self.decoder(quantized.features), quantized.tokens, quantized.loss)

    def encode(self, image: Float[Array, "B h w 3"]) -> ImageTokens:
        """The image tokens of images."""
        return self.quantizer(self.encoder(image)).tokens

    def decode(self, tokens: ImageTokens) -> Float[Array, "B h w 3"]:
        """The images of image tokens."""
        return self.decoder(self.quantizer.dequantize(tokens))
