"""ResNets have the published sizes, and compute what the same networks in plain PyTorch do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.architectures import encoder
from vlm_jax.config.encoders import CustomResNet
from vlm_jax.models.cnn import make_image_encoder
from vlm_jax.models.resnet import ResNet

FLOAT32 = jnp.dtype("float32")
# Parameters with the classifier over 1000 classes, as torchvision's documentation gives them, and the features below.
PUBLISHED = {
    "resnet18": (11_689_512, 512),
    "resnet34": (21_797_672, 512),
    "resnet50": (25_557_032, 2048),
    "resnet101": (44_549_160, 2048),
    "resnet152": (60_192_808, 2048),
    "wide_resnet50_2": (68_883_240, 2048),
    "wide_resnet101_2": (126_886_696, 2048),
    "resnext50_32x4d": (25_028_904, 2048),
    "resnext101_32x8d": (88_791_336, 2048),
    "resnext101_64x4d": (83_455_272, 2048),
}


def abstract(name, size, **settings):
    """Shapes of the grid and of the parameters, by path."""
    model = make_image_encoder(encoder(name, **settings), FLOAT32)
    image = jnp.zeros((2, *size, 3))
    grid, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), image))
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return grid.shape, {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_the_published_ones(name):
    total, features = PUBLISHED[name]
    _, parameters = abstract(name, (32, 32), norm="frozen" if name == "resnet50" else "group")
    assert sum(map(np.prod, parameters.values())) + (features + 1) * 1000 == total


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("resnet18", (64, 64), (2, 2, 512)),
        ("resnet18", (96, 33), (3, 2, 512)),
        ("resnet34", (31, 100), (1, 4, 512)),
        ("resnet50", (224, 224), (7, 7, 2048)),
        ("resnet101", (224, 160), (7, 5, 2048)),
    ],
)
def test_the_grid_is_a_32nd_of_the_image_rounded_up(name, size, grid):
    assert abstract(name, size)[0] == (2, *grid)


def test_parameters_keep_their_paths():
    """Checkpoints and ports name them."""
    _, parameters = abstract("resnet50", (32, 32))
    assert parameters["stem_conv/kernel"] == (7, 7, 3, 64) and parameters["stem_norm/scale"] == (64,)
    for path, shape in {
        "conv_shortcut/kernel": (1, 1, 256, 512),
        "norm_shortcut/bias": (512,),
        "conv_1/kernel": (1, 1, 256, 128),
        "conv_2/kernel": (3, 3, 128, 128),
        "norm_2/scale": (128,),
        "conv_3/kernel": (1, 1, 128, 512),
    }.items():
        assert parameters[f"stage_2_block_0/{path}"] == shape
    assert {path.split("/")[0] for path in parameters} == {"stem_conv", "stem_norm"} | {
        f"stage_{stage}_block_{block}" for stage, depth in enumerate((3, 4, 6, 3), 1) for block in range(depth)
    }
    _, parameters = abstract("resnet18", (32, 32))
    assert {path: shape for path, shape in parameters.items() if path.startswith("stage_2_block_1")} == {
        f"stage_2_block_1/{path}": shape
        for n in "12"
        for path, shape in (
            (f"conv_{n}/kernel", (3, 3, 128, 128)),
            (f"norm_{n}/scale", (128,)),
            (f"norm_{n}/bias", (128,)),
        )
    }


def random_weights(model, image):
    """He-sized kernels, and scales and biases far from 1 and 0: fresh ones would hide a mix-up."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    random = np.random.default_rng(0)

    def random_leaf(path, leaf):
        noise = random.normal(size=leaf.shape).astype(np.float32)
        if leaf.ndim == 4:
            return noise * np.float32(np.sqrt(2 / np.prod(leaf.shape[:3])))
        return 0.3 * noise + np.float32("scale" in jax.tree_util.keystr(path))

    return jax.tree_util.tree_map_with_path(random_leaf, shapes)


def reference(params, image, *, sizes, depths, norm):
    """The grid by torch in float64. `sizes` are those of a block's kernels; the stride stands on its first 3x3."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    f = torch.nn.functional

    def conv_norm(x, conv, normed, stride=1):
        kernel = torch.tensor(np.asarray(conv["kernel"], np.float64).transpose(3, 2, 0, 1))
        x = f.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        scale, bias = (torch.tensor(np.asarray(normed[name], np.float64)) for name in ("scale", "bias"))
        if norm == "group":
            return f.group_norm(x, min(32, len(scale) // 4), scale, bias, eps=1e-5)
        return x * scale[:, None, None] + bias[:, None, None]

    def block_of(x, weights, stride):
        y = x
        for place, size in enumerate(sizes, 1):
            here = stride if place == sizes.index(3) + 1 else 1
            assert weights[f"conv_{place}"]["kernel"].shape[:2] == (size, size)
            y = conv_norm(y, weights[f"conv_{place}"], weights[f"norm_{place}"], here)
            y = f.relu(y) if place < len(sizes) else y
        if "conv_shortcut" in weights:
            x = conv_norm(x, weights["conv_shortcut"], weights["norm_shortcut"], stride)
        return f.relu(x + y)

    x = torch.tensor(np.asarray(image, np.float64).transpose(0, 3, 1, 2))
    x = f.max_pool2d(f.relu(conv_norm(x, params["stem_conv"], params["stem_norm"], 2)), 3, 2, 1)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            x = block_of(x, params[f"stage_{stage + 1}_block_{block}"], stride)
    return x.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parity
@pytest.mark.parametrize("norm", ["group", "frozen"])
@pytest.mark.parametrize(("layer_type", "sizes", "channels"), [("basic", (3, 3), 128), ("bottleneck", (1, 3, 1), 512)])
def test_a_shallow_resnet_is_that_of_torch(layer_type, sizes, channels, norm):
    depths = (1, 2)
    settings = CustomResNet(layer_type=layer_type, depths=depths, hidden_sizes=(channels // 2, channels), norm=norm)
    model = ResNet(settings, FLOAT32)
    image = jax.random.normal(jax.random.key(1), (2, 37, 22, 3))
    variables = random_weights(model, image)
    ours = np.asarray(jax.jit(model.apply)(variables, image))
    target = reference(variables["params"], image, sizes=sizes, depths=depths, norm=norm)
    assert ours.shape == target.shape == (2, 5, 3, channels)
    assert np.abs(ours - target).max() < 2e-5 * np.abs(target).max()
