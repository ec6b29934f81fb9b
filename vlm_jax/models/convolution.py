"""Convolution, norms and pooling in the formulation that suits the machine: one set of parameters, equal results."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from vlm_jax.errors import InputError
from vlm_jax.models.products import product

Padding = Literal["symmetric", "same", "even"]
"""`symmetric` is k // 2 on every side, as in PyTorch's models. `same` is TensorFlow's SAME: what the windows need, an
odd one at the bottom or right, so that strides start elsewhere. For odd k both give ceil(n / stride) positions. `even`
is SAME of an even side, whatever the side is: with a stride of 2 and k > 1 an odd side has floor(n / 2) positions."""
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
FEW_CHANNELS = 4  # input channels up to which lax.conv wastes most of a CPU's vectors


def use_products(method: str) -> bool:
    """`auto` takes the formulation for a CPU on one, and lax.conv elsewhere."""
    return method == "products" or (method == "auto" and jax.default_backend() == "cpu")


def margins(length: int, *, size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """The padding before and after a side of `length` positions, for an odd `size`."""
    if padding == "symmetric":
        return size // 2, size // 2
    if padding == "even":
        length = stride  # or any other multiple of it
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def num_positions(length: int, *, size: int, stride: int, padding: Padding) -> int:
    """The positions of a window on a side of `length`."""
    return (length + sum(margins(length, size=size, stride=stride, padding=padding)) - size) // stride + 1


def convolve(
    x: Float[Array, "B h w C"],
    kernel: Float[Array, "k k C_of_a_group F"],
    *,
    stride: int,
    method: str,
    padding: Padding = "symmetric",
) -> Float[Array, "B H W F"]:
    """A convolution with zeros around the image, in as many groups as the kernel's channels leave.

    `products` is the formulation for a CPU. A 1x1 is a matrix product, and so is a convolution with fewer output
    positions than input channels: of the windows side by side. Others are lax.conv, a stem of few channels on pairs
    of pixels; the input gradient of stride 2 is four convolutions.
    """
    size, channels = kernel.shape[0], kernel.shape[2]
    if not use_products(method) or channels < x.shape[-1]:
        return _direct(x, kernel, stride, padding, groups=x.shape[-1] // channels)
    height, width = (num_positions(n, size=size, stride=stride, padding=padding) for n in x.shape[1:3])
    positions = len(x) * height * width
    if size > 1 and positions >= channels:
        return _convolve_on_cpu(x, kernel, stride, padding)
    columns = jnp.concatenate(shifted(x, size=size, stride=stride, fill=0.0, padding=padding), axis=-1)
    return product(columns, kernel.reshape(size * size * channels, kernel.shape[-1]))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_on_cpu(x, kernel, stride, padding):
    if kernel.shape[0] == 3 and stride == 1 and kernel.shape[2] <= FEW_CHANNELS and x.shape[2] % 2 == 0:
        return _by_pairs(x, kernel)
    return _direct(x, kernel, stride, padding, groups=1)


def _forward(x, kernel, stride, padding):
    return _convolve_on_cpu(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, inputs, gradient):
    _, pull = jax.vjp(lambda x, kernel: _direct(x, kernel, stride, padding, groups=1), *inputs)
    of_input, of_kernel = pull(gradient)
    if stride == 2:
        of_input = _input_gradient(gradient, *inputs, padding)
    return of_input, of_kernel


_convolve_on_cpu.defvjp(_forward, _backward)


def _by_pairs(x, kernel):
    """A 3x3 of stride 1 with two neighbouring pixels of a row as one position: twice the channels in and out."""
    batch, height, width, channels = x.shape
    features = kernel.shape[-1]
    wide = jnp.zeros((3, 6, channels, 2, features), kernel.dtype)  # pixels of three pairs, both pixels of the output
    for pixel in range(2):
        wide = wide.at[:, pixel + 1 : pixel + 4, :, pixel].set(kernel)
    pairs = x.reshape(batch, height, width // 2, 2 * channels)
    y = _direct(pairs, wide.reshape(3, 3, 2 * channels, 2 * features), 1, "symmetric", groups=1)
    return y.reshape(batch, height, width, features)


def _input_gradient(gradient, x, kernel, padding):
    """That of stride 2 as four convolutions: an input row that is even, or odd, meets every other row of weights."""
    size, transposed = kernel.shape[0], kernel.transpose(0, 1, 3, 2)
    if padding == "even":  # an odd side has one position fewer than pairs of rows
        lacking = [(0, -(-n // 2) - positions) for n, positions in zip(x.shape[1:3], gradient.shape[1:3], strict=True)]
        gradient = jnp.pad(gradient, ((0, 0), *lacking, (0, 0)))

    def phase(parity, length):
        """The weights that an input row or column meets, and the padding of the gradient."""
        before = margins(length, size=size, stride=2, padding=padding)[0]
        first = (parity + before) % 2
        count, offset = len(range(first, size, 2)), (parity + before - first) // 2
        return slice(first, None, 2), (count - 1 - offset, offset)

    def convolved(row, column):
        (rows, above), (columns, left) = (phase(p, n) for p, n in zip((row, column), x.shape[1:3], strict=True))
        weights = transposed[rows, columns][::-1, ::-1]
        return jax.lax.conv_general_dilated(gradient, weights, (1, 1), (above, left), dimension_numbers=DIMENSIONS)

    phases = jnp.stack([jnp.stack([convolved(row, column) for column in range(2)], 3) for row in range(2)], 2)
    batch, height, _, width, _, channels = phases.shape
    return phases.reshape(batch, 2 * height, 2 * width, channels)[:, : x.shape[1], : x.shape[2]]


def convolve_depthwise(
    x: Float[Array, "B h w C"],
    kernel: Float[Array, "k k 1 C"],
    *,
    stride: int,
    method: str,
    padding: Padding = "symmetric",
) -> Float[Array, "B H W C"]:
    """A convolution of each channel with its own k x k weights, zeros around the image.

    As products: the strided slice of each kernel position times its weights, summed up. There is no matrix to multiply,
    and lax.conv with groups takes tens of times as long on a CPU.
    """
    size, channels = kernel.shape[0], x.shape[-1]
    if not use_products(method):
        return _direct(x, kernel, stride, padding, groups=channels)
    windows = shifted(x, size=size, stride=stride, fill=0.0, padding=padding)
    weights = kernel.reshape(size * size, 1, 1, 1, channels)
    return sum(window * weight for window, weight in zip(windows, weights, strict=True))


def _direct(x, kernel, stride, padding, groups):
    around = [margins(n, size=kernel.shape[0], stride=stride, padding=padding) for n in x.shape[1:3]]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), around, dimension_numbers=DIMENSIONS, feature_group_count=groups
    )


def shifted(
    x: Float[Array, "B h w C"], *, size: int, stride: int, fill: float, padding: Padding = "symmetric"
) -> list[Float[Array, "B H W C"]]:
    """The input at each position of a `size` x `size` window, for every output position, row by row."""
    height, width = (num_positions(n, size=size, stride=stride, padding=padding) for n in x.shape[1:3])
    rows, columns = (margins(n, size=size, stride=stride, padding=padding) for n in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=fill) if size > 1 else x
    return [
        padded[:, row : row + stride * (height - 1) + 1 : stride, column : column + stride * (width - 1) + 1 : stride]
        for row in range(size)
        for column in range(size)
    ]


def max_pool(x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
    """3x3 maximum with stride 2. Slices and a maximum: the gradient of reduce_window is slow."""
    windows = shifted(x, size=3, stride=2, fill=-jnp.inf)
    return jnp.stack(windows).max(0)


# He et al. 2015, for rectifiers: variance 2 / fan-in.
INIT = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class Conv(nn.Module):
    """A convolution without bias; `kernel` is [k, k, in / groups, out]."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    method: str = "auto"
    dtype: jnp.dtype = jnp.dtype("float32")
    padding: Padding = "symmetric"
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W F"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", INIT, shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return convolve(x, kernel, stride=self.stride, method=self.method, padding=self.padding)


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself; `kernel` is [k, k, 1, channels]."""

    kernel_size: int = 3
    stride: int = 1
    method: str = "auto"
    dtype: jnp.dtype = jnp.dtype("float32")
    padding: Padding = "symmetric"
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
        kernel = self.param("kernel", INIT, (self.kernel_size, self.kernel_size, 1, x.shape[-1]))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = convolve_depthwise(x, kernel, stride=self.stride, method=self.method, padding=self.padding)
        if not self.use_bias:
            return y
        return y + self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(self.dtype)[None, None, None]


class GroupNorm(nn.Module):
    """Group norm (Wu and He 2018) over at most 32 groups of at least 4 channels; statistics in float32."""

    def num_groups(self, x: Float[Array, "B h w C"]) -> int:
        """How many groups the channels form."""
        channels = x.shape[-1]
        return max(g for g in range(1, 33) if channels % g == 0 and channels // g >= min(4, channels))

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        channels = x.shape[-1]
        groups = self.num_groups(x)
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        wide = x.astype(jnp.float32)
        members = channels // groups
        # One pass: sums of x and of its square, first over the image, then over each group.
        mean = wide.mean((1, 2)).reshape(-1, groups, members).mean(-1)
        square = jnp.square(wide).mean((1, 2)).reshape(-1, groups, members).mean(-1)
        inverse = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + 1e-5)
        factor = jnp.repeat(inverse, members, axis=-1) * scale[None]
        offset = bias[None] - jnp.repeat(mean, members, axis=-1) * factor
        return (wide * factor[:, None, None] + offset[:, None, None]).astype(x.dtype)


class InstanceNorm(GroupNorm):
    """Instance norm (Ulyanov et al. 2016): every channel of an image is a group. Needs more than one position."""

    def num_groups(self, x: Float[Array, "B h w C"]) -> int:
        """How many groups the channels form."""
        if x.shape[1] * x.shape[2] == 1:
            raise InputError("model.image.norm 'instance' makes zeros of a 1 x 1 grid; choose 'group' or larger images")
        return x.shape[-1]


class FrozenNorm(nn.Module):
    """A batch norm folded into a scale and a bias: no statistics, no state."""

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(x.dtype)
        return x * scale[None, None, None] + bias[None, None, None]


NORMS = {"group": GroupNorm, "instance": InstanceNorm, "frozen": FrozenNorm}
