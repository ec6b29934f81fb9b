"""Convolution, pooling and norms: both formulations agree, with each other and with PyTorch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.config import encoders
from vlm_jax.models.cnn import SmallCNN
from vlm_jax.models.convolution import NORMS, convolve, convolve_depthwise, margins, max_pool

SIZES = [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)]  # kernel, stride
DEPTHWISE_SIZES = [(3, 1), (3, 2), (5, 1), (5, 2)]
CHANNELS = [3, 8]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def furthest(a, b):
    """The largest difference of two arrays, as a share of the largest entry."""
    assert a.shape == b.shape
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


def pull(function, *inputs):
    """The function's value, and its gradients at a random cotangent."""

    @jax.jit
    def both(*inputs):
        value, back = jax.vjp(function, *inputs)
        return value, *back(normal(9, *value.shape))

    return both(*inputs)


def has_convolution(function, *inputs):
    return "conv_general_dilated" in str(jax.make_jaxpr(function)(*inputs))


@pytest.mark.parametrize("padding", ["symmetric", "same", "even"])
@pytest.mark.parametrize("shape", [(2, 9, 12, 3), (2, 8, 11, 8), (1, 3, 4, 24)], ids=str)  # the last has few positions
def test_the_formulation_for_a_cpu_equals_the_direct_convolution(shape, padding):
    kernels = [normal(size, size, size, shape[-1], 5) for size, _ in SIZES]

    def way(method):
        def convolved(x, *kernels):
            options = {"method": method, "padding": padding}
            values = [convolve(x, k, stride=s, **options) for k, (_, s) in zip(kernels, SIZES, strict=True)]
            return jnp.concatenate([jnp.ravel(value) for value in values])

        return lambda *inputs: pull(convolved, *inputs)

    inputs = normal(1, *shape), *kernels
    assert max(map(furthest, way("products")(*inputs), way("direct")(*inputs))) < 2e-5


@pytest.mark.parametrize(("shape", "size"), [((2, 5, 6, 3), 3), ((1, 3, 2, 16), 3), ((2, 5, 5, 3), 1)])
def test_formulations_have_the_same_second_derivative_under_vmap_and_remat(shape, size):
    x, kernel = normal(1, 2, *shape), normal(2, size, size, shape[-1], 4)

    def way(method):
        @jax.checkpoint
        def convolved(x, kernel):
            return jnp.square(convolve(x, kernel, stride=2, method=method)).sum()

        def slope(x, kernel):
            gradients = jax.vmap(jax.grad(convolved, (0, 1)), (0, None))(x, kernel)
            return jnp.square(gradients[0]).sum() + jnp.square(gradients[1]).sum()

        return jax.jit(jax.grad(slope, (0, 1)))(x, kernel)

    assert max(map(furthest, way("products"), way("direct"))) < 2e-5


@pytest.mark.parity
@pytest.mark.parametrize("method", ["products", "direct"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("size", "stride"), [(1, 2), (3, 1), (3, 2), (7, 2)])
def test_convolution_is_that_of_torch(size, stride, channels, method):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x, kernel = normal(1, 2, 9, 12, channels), normal(2, size, size, channels, 5)
    ours = pull(lambda *inputs: convolve(*inputs, stride=stride, method=method), x, kernel)
    target = [
        torch.tensor(np.asarray(x, np.float64).transpose(0, 3, 1, 2), requires_grad=True),
        torch.tensor(np.asarray(kernel, np.float64).transpose(3, 2, 0, 1), requires_grad=True),
    ]
    value = torch.nn.functional.conv2d(*target, stride=stride, padding=size // 2)
    value.backward(torch.tensor(np.asarray(normal(9, *ours[0].shape), np.float64).transpose(0, 3, 1, 2)))
    assert furthest(ours[0], value.detach().numpy().transpose(0, 2, 3, 1)) < 2e-5
    assert furthest(ours[1], target[0].grad.numpy().transpose(0, 2, 3, 1)) < 2e-5
    assert furthest(ours[2], target[1].grad.numpy().transpose(2, 3, 1, 0)) < 2e-5


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, "symmetric"), (5, 2, "same"), (3, 2, "even")])
def test_depthwise_products_equal_the_direct_convolution(size, stride, padding):
    inputs = normal(1, 2, 9, 12, 6), normal(2, size, size, 1, 6)

    def way(method):
        return lambda x, kernel: convolve_depthwise(x, kernel, stride=stride, method=method, padding=padding)

    assert has_convolution(way("direct"), *inputs) and not has_convolution(way("products"), *inputs)
    products, direct = pull(way("products"), *inputs), pull(way("direct"), *inputs)
    height = 9 // stride if padding == "even" else -(-9 // stride)
    assert products[0].shape == (2, height, -(-12 // stride), 6)
    assert max(map(furthest, products, direct)) < 2e-5


@pytest.mark.parity
@pytest.mark.parametrize("method", ["products", "direct"])
@pytest.mark.parametrize(("size", "stride"), DEPTHWISE_SIZES)
def test_depthwise_convolution_is_that_of_torch(size, stride, method):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x, kernel = normal(1, 2, 9, 12, 6), normal(2, size, size, 1, 6)
    ours = pull(lambda *inputs: convolve_depthwise(*inputs, stride=stride, method=method), x, kernel)
    target = [
        torch.tensor(np.asarray(x, np.float64).transpose(0, 3, 1, 2), requires_grad=True),
        torch.tensor(np.asarray(kernel, np.float64).transpose(3, 2, 0, 1), requires_grad=True),
    ]
    value = torch.nn.functional.conv2d(*target, stride=stride, padding=size // 2, groups=6)
    value.backward(torch.tensor(np.asarray(normal(9, *ours[0].shape), np.float64).transpose(0, 3, 1, 2)))
    assert furthest(ours[0], value.detach().numpy().transpose(0, 2, 3, 1)) < 2e-5
    assert furthest(ours[1], target[0].grad.numpy().transpose(0, 2, 3, 1)) < 2e-5
    assert furthest(ours[2], target[1].grad.numpy().transpose(2, 3, 1, 0)) < 2e-5


@pytest.mark.parametrize(
    ("length", "size", "stride", "around"),
    [
        (8, 1, 2, (0, 0)),
        (7, 3, 1, (1, 1)),
        (8, 3, 1, (1, 1)),
        (7, 3, 2, (1, 1)),
        (8, 3, 2, (0, 1)),
        (224, 3, 2, (0, 1)),
        (8, 5, 1, (2, 2)),
        (7, 5, 2, (2, 2)),
        (8, 5, 2, (1, 2)),
        (1, 5, 2, (2, 2)),
        (2, 5, 2, (1, 2)),
    ],
)
def test_margins_by_hand(length, size, stride, around):
    assert margins(length, size=size, stride=stride, padding="same") == around
    assert margins(length, size=size, stride=stride, padding="symmetric") == (size // 2, size // 2)
    if length % stride == 0:
        assert margins(length + 1, size=size, stride=stride, padding="even") == around


@pytest.mark.parametrize("method", ["products", "direct"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("length", [7, 8])
def test_same_is_the_padding_of_tensorflow(length, size, stride, method):
    """By lax, and by numpy with the formula of TensorFlow's documentation of `tf.nn`."""
    x = normal(1, 2, length, length + 3, 4)

    def by_hand(kernel):
        """Of kernels [k, k, C, F]."""
        around = [max(size - (n % stride or stride), 0) for n in x.shape[1:3]]
        padded = np.pad(np.asarray(x, np.float64), ((0, 0), *((n // 2, n - n // 2) for n in around), (0, 0)))
        out = np.zeros((2, *(-(-n // stride) for n in x.shape[1:3]), kernel.shape[-1]))
        for row, column in np.ndindex(out.shape[1:3]):
            window = padded[:, row * stride : row * stride + size, column * stride : column * stride + size]
            out[:, row, column] = np.einsum("bijc,ijcf->bf", window, kernel)
        return out

    for function, groups, kernel in (
        (convolve, 1, normal(2, size, size, 4, 5)),
        (convolve_depthwise, 4, normal(3, size, size, 1, 4)),
    ):
        ours = jax.jit(partial(function, stride=stride, method=method, padding="same"))(x, kernel)
        target = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )
        assert furthest(ours, target) < 2e-5
        wide = np.asarray(kernel, np.float64)
        assert furthest(ours, by_hand(wide if groups == 1 else np.eye(4) * wide)) < 2e-5


@pytest.mark.parity
@pytest.mark.parametrize("size", [(8, 8), (9, 12), (1, 5)])
def test_pooling_is_that_of_torch(size):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x = normal(1, 2, *size, 3) - 3.0  # below the zero that a wrong padding would bring in
    value, gradient = pull(max_pool, x)
    target = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2), requires_grad=True)
    pooled = torch.nn.functional.max_pool2d(target, 3, 2, 1)
    pooled.backward(torch.tensor(np.asarray(normal(9, *value.shape)).transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(value, pooled.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(gradient, target.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "channels", "groups"),
    [*(("group", *sizes) for sizes in ((3, 1), (8, 2), (12, 3), (96, 24), (256, 32))), ("instance", 12, None)],
)
def test_norms_are_those_of_torch(name, channels, groups):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x = 0.5 * normal(1, 2, 5, 4, channels) + normal(2, channels)[None, None, None]
    x = x.at[1].multiply(3e-3)  # so small that epsilon counts
    scale, bias = 1.0 + 0.2 * normal(3, channels), normal(4, channels)

    def apply(x, scale, bias):
        return NORMS[name]().apply({"params": {"scale": scale, "bias": bias}}, x)

    value, *ours = pull(apply, x, scale, bias)
    options = {"eps": 1e-5, "dtype": torch.float64}
    if name == "group":
        norm = torch.nn.GroupNorm(groups, channels, **options)
    else:
        norm = torch.nn.InstanceNorm2d(channels, affine=True, **options)
    norm.load_state_dict({"weight": torch.tensor(np.asarray(scale)), "bias": torch.tensor(np.asarray(bias))})
    target = torch.tensor(np.asarray(x, np.float64).transpose(0, 3, 1, 2), requires_grad=True)
    expected = norm(target)
    expected.backward(torch.tensor(np.asarray(normal(9, *value.shape), np.float64).transpose(0, 3, 1, 2)))
    assert furthest(value, expected.detach().numpy().transpose(0, 2, 3, 1)) < 2e-5
    gradient = target.grad.numpy().transpose(0, 2, 3, 1)
    for image in range(2):  # the gradient of the small one is larger by far
        assert furthest(ours[0][image], gradient[image]) < 2e-5
    assert furthest(ours[1], norm.weight.grad.numpy()) < 2e-5
    assert furthest(ours[2], norm.bias.grad.numpy()) < 2e-5


@pytest.mark.parametrize("norm", NORMS)
def test_a_whole_cnn_is_the_same_both_ways(norm):
    settings = encoders.SmallCNN(stem_width=4, stem_stride=2, widths=(8, 16), blocks=(1, 0), norm=norm)
    image = normal(1, 2, 19, 14, 3)
    products, direct = (SmallCNN(settings, jnp.dtype("float32"), method) for method in ("products", "direct"))
    shapes = jax.eval_shape(products.init, jax.random.key(0), image)
    assert jax.eval_shape(direct.init, jax.random.key(0), image) == shapes
    leaves, structure = jax.tree.flatten(shapes)
    weights = [0.3 * normal(seed, *leaf.shape) for seed, leaf in enumerate(leaves)]

    def run(model):
        return pull(lambda image, *weights: model.apply(structure.unflatten(weights), image), image, *weights)

    ours, target = run(products), run(direct)
    assert ours[0].shape == (2, 3, 2, 16)
    assert max(map(furthest, ours, target)) < 2e-5
