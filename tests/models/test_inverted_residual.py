"""MobileNetV2 and EfficientNet-Lite0 have the published sizes, and compute what they do in plain PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.architectures import encoder
from vlm_jax.errors import InputError
from vlm_jax.models.cnn import make_image_encoder
from vlm_jax.models.inverted_residual import Block, InvertedResidual, InvertedResiduals, Layout

FLOAT32 = jnp.dtype("float32")
# Parameters with the classifier over 1000 classes: torchvision's documentation; the published weights of Lite0.
PUBLISHED = {"mobilenet_v2": 3_504_872, "efficientnet_lite0": 4_652_008}
PADDINGS = {"mobilenet_v2": "symmetric", "efficientnet_lite0": "same"}
# Block by block, as the published weights run: strides, sizes of the depthwise kernels, channels that come out.
STRIDES = {"mobilenet_v2": "1 21 211 2111 111 211 1", "efficientnet_lite0": "1 21 21 211 111 2111 1"}
KERNELS = {"mobilenet_v2": "3 33 333 3333 333 333 3", "efficientnet_lite0": "3 33 55 333 555 5555 3"}
WIDTHS = {
    "mobilenet_v2": [16] + [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320],
    "efficientnet_lite0": [16] + [24] * 2 + [40] * 2 + [80] * 3 + [112] * 3 + [192] * 4 + [320],
}


def digits(text):
    return [int(digit) for digit in text.replace(" ", "")]


def abstract(name, size, **settings):
    """Shapes of the grid and of the parameters, by path."""
    model = make_image_encoder(encoder(name, **settings), FLOAT32)
    image = jnp.zeros((2, *size, 3))
    grid, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), image))
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return grid.shape, {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_the_published_ones(name, norm):
    _, parameters = abstract(name, (32, 32), norm=norm)
    assert sum(map(np.prod, parameters.values())) + (1280 + 1) * 1000 == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(
    ("size", "grid"), [((224, 224), (7, 7)), ((224, 160), (7, 5)), ((31, 100), (1, 4)), ((96, 33), (3, 2))]
)
def test_the_grid_is_a_32nd_of_the_image_rounded_up(name, size, grid):
    assert abstract(name, size)[0] == (2, *grid, 1280)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_keep_their_paths(name):
    """Checkpoints and ports name them."""
    _, parameters = abstract(name, (32, 32))

    def layer(path, kernel):
        norm = {f"{path}_norm/{leaf}": (kernel[-1],) for leaf in ("scale", "bias")}
        return {f"{path}_conv/kernel": kernel} | norm

    expected, width = layer("stem", (3, 3, 3, 32)), 32
    for number, (size, out) in enumerate(zip(digits(KERNELS[name]), WIDTHS[name], strict=True)):
        inner = 6 * width if number else width
        if number:
            expected |= layer(f"block_{number}/expand", (1, 1, width, inner))
        expected |= layer(f"block_{number}/depthwise", (size, size, 1, inner))
        expected |= layer(f"block_{number}/project", (1, 1, inner, out))
        width = out
    assert parameters == expected | layer("head", (1, 1, 320, 1280))


def random_weights(model, x):
    """Scales and biases far from 1 and 0: fresh ones would hide a mix-up, and never reach 6.

    Kernels half as large in variance as He's: with his, 50 layers that are cut off at 6 are chaotic. There float64
    agrees with torch to 1e-10, float32 to 0.1.
    """
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    random = np.random.default_rng(0)

    def random_leaf(path, leaf):
        noise = random.normal(size=leaf.shape).astype(np.float32)
        if leaf.ndim == 4:
            return noise * np.float32(np.sqrt(1 / np.prod(leaf.shape[:3])))
        return 1 + noise / 2 if "scale" in jax.tree_util.keystr(path) else 2 * noise

    return jax.tree_util.tree_map_with_path(random_leaf, shapes)


class Mirror:
    """The same layers by torch in float64, images [B, C, h, w]."""

    def __init__(self, padding):
        self.torch = pytest.importorskip("torch", reason="torch is the oracle")
        self.padding = padding

    def tensor(self, array):
        return self.torch.tensor(np.asarray(array, np.float64))

    def layer(self, x, weights, name, stride=1, *, active=True):
        """A convolution, its norm, and ReLU6 where it is active."""
        kernel = self.tensor(np.asarray(weights[f"{name}_conv"]["kernel"]).transpose(3, 2, 0, 1))
        size, groups = kernel.shape[-1], x.shape[1] if name == "depthwise" else 1
        around = [size - 1] * 2
        if self.padding == "same":  # as TensorFlow's documentation of tf.nn has it, columns first for torch
            around = [max(size - (n % stride or stride), 0) for n in (x.shape[3], x.shape[2])]
        fill = [part for n in around for part in (n // 2, n - n // 2)]
        x = self.torch.nn.functional.pad(x, fill)
        x = self.torch.nn.functional.conv2d(x, kernel, stride=stride, groups=groups)
        scale, bias = (self.tensor(weights[f"{name}_norm"][leaf])[:, None, None] for leaf in ("scale", "bias"))
        x = x * scale + bias
        if not active:
            return x
        assert x.min() < 0 and x.max() > 6  # else ReLU6 could be missing unseen
        return self.torch.clamp(x, 0, 6)

    def block(self, x, weights, stride):
        y = self.layer(x, weights, "expand") if "expand_conv" in weights else x
        y = self.layer(y, weights, "depthwise", stride)
        y = self.layer(y, weights, "project", active=False)
        return x + y if stride == 1 and x.shape[1] == y.shape[1] else y

    def network(self, x, weights, strides):
        x = self.layer(x, weights, "stem", 2)
        for number, stride in enumerate(strides):
            x = self.block(x, weights[f"block_{number}"], stride)
        return self.layer(x, weights, "head")


def apart(ours, target):
    ours, target = np.asarray(ours), target.numpy().transpose(0, 2, 3, 1)
    assert ours.shape == target.shape
    return np.abs(ours - target).max() / max(1.0, np.abs(target).max())


@pytest.mark.parity
@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize(
    ("expansion", "width", "stride", "kernel_size"),
    [(1, 4, 1, 3), (1, 8, 1, 5), (6, 8, 1, 3), (6, 12, 1, 5), (6, 8, 2, 3), (6, 12, 2, 5)],
)
def test_a_block_is_that_of_torch(expansion, width, stride, kernel_size, padding):
    """The first with and without its residual, later ones with and without, and those with a stride."""
    adds_input = stride == 1 and width == 8
    settings = Block(8 * expansion, width, stride, kernel_size, padding, expansion > 1, adds_input)
    block = InvertedResidual(settings, "relu6", "frozen", FLOAT32)
    x = 3.0 * jax.random.normal(jax.random.key(1), (2, 8, 13, 8))
    variables, mirror = random_weights(block, x), Mirror(padding)
    target = mirror.block(mirror.tensor(x).permute(0, 3, 1, 2), variables["params"], stride)
    assert apart(jax.jit(block.apply)(variables, x), target) < 2e-5


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_is_that_of_torch(name):
    model = make_image_encoder(encoder(name, norm="frozen"), FLOAT32)
    image = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    variables, mirror = random_weights(model, image), Mirror(PADDINGS[name])
    target = mirror.network(mirror.tensor(image).permute(0, 3, 1, 2), variables["params"], digits(STRIDES[name]))
    assert target.shape == (2, 1280, 2, 2)
    assert apart(jax.jit(model.apply)(variables, image), target) < 2e-5


@pytest.mark.parametrize(("padding", "norm"), [("symmetric", "group"), ("same", "frozen"), ("even", "group")])
def test_both_formulations_are_equal(padding, norm):
    """Values and gradients."""
    blocks = (Block(32, 8, 1, 3, padding, False, False), Block(48, 8, 2, 5, padding, True, False))
    last = Block(48, 8, 1, 5, padding, True, True, squeeze_width=2 if padding == "even" else 0)
    layout = Layout(32, (*blocks, last), 1280, padding, "swish" if padding == "even" else "relu6")
    image, cotangent = (
        jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate([(2, 18, 13, 3), (1280,)])
    )
    results = []
    for method in ("products", "direct"):
        model = InvertedResiduals(layout, norm, FLOAT32, method)
        variables = random_weights(model, image)

        @jax.jit
        def run(variables, image, model=model):
            grid, back = jax.vjp(model.apply, variables, image)
            return grid, back(jnp.broadcast_to(cotangent, grid.shape))

        program = str(jax.make_jaxpr(run)(variables, image))
        assert ("feature_group_count=48" in program) == (method == "direct")
        results.append(run(variables, image))
    products, direct = map(jax.tree.leaves, results)
    assert products[0].shape == ((2, 4, 3, 1280) if padding == "even" else (2, 5, 4, 1280))
    for ours, target in zip(products, direct, strict=True):
        assert np.abs(ours - target).max() < 2e-5 * max(1.0, np.abs(target).max())


@pytest.mark.parametrize(("name", "smallest"), [("efficientnet", 32), ("convnext", 32)])
def test_images_that_leave_no_position_are_refused(name, smallest):
    """These networks round sides down."""
    assert abstract(name, (smallest, smallest + 31))[0][1:3] == (1, 1)
    with pytest.raises(InputError, match=rf"image.size is {smallest} {smallest - 1}.*{smallest} pixels"):
        abstract(name, (smallest, smallest - 1))
