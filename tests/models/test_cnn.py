"""Patches are a strided convolution taken apart, and every way into the grid takes images of any shape."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.architectures import encoder
from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.models.cnn import make_image_encoder
from vlm_jax.models.vlm import VisualLanguageModel

FLOAT32 = jnp.dtype("float32")


def patches(image, size, dtype=FLOAT32):
    model = make_image_encoder(encoder("patches", patch_size=size), dtype)
    grid, variables = model.init_with_output(jax.random.key(0), image)
    assert not jax.tree.leaves(variables)
    return grid


def test_a_patch_is_its_pixels_row_by_row():
    image = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    grid = patches(image, 2)
    assert grid.shape == (2, 2, 3, 2 * 2 * 3)
    for row in range(2):
        for column in range(3):
            square = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(grid[:, row, column], square.reshape(2, -1))


def test_odd_sides_are_filled_with_zeros_at_the_bottom_and_right():
    image = jnp.ones((1, 5, 7, 3))
    filled = np.zeros((1, 8, 8, 3), np.float32)
    filled[:, :5, :7] = 1.0
    np.testing.assert_array_equal(patches(image, 4), patches(jnp.asarray(filled), 4))


def test_patches_have_the_type_of_activations():
    assert patches(jnp.ones((1, 4, 4, 3)), 2, jnp.dtype("bfloat16")).dtype == jnp.bfloat16


@pytest.mark.parity
@pytest.mark.parametrize("size", [(16, 16), (16, 24), (13, 18)])
def test_projected_patches_are_a_convolution_of_torch(size):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    side, width = 8, 5
    random = np.random.default_rng(0)
    image = random.normal(size=(2, *size, 3)).astype(np.float32)
    kernel, bias = 0.1 * random.normal(size=(width, 3, side, side)), random.normal(size=width)
    conv = torch.nn.Conv2d(3, width, side, side, dtype=torch.float64)
    conv.load_state_dict({"weight": torch.tensor(kernel), "bias": torch.tensor(bias)})
    fill = (0, -size[1] % side, 0, -size[0] % side)  # left, right, top, bottom
    pixels = torch.nn.functional.pad(torch.tensor(image.astype(np.float64).transpose(0, 3, 1, 2)), fill)
    target = conv(pixels).detach().numpy().transpose(0, 2, 3, 1)
    ours = np.asarray(patches(jnp.asarray(image), side)) @ kernel.transpose(2, 3, 1, 0).reshape(-1, width) + bias
    assert ours.shape == target.shape
    assert np.abs(ours - target).max() < 2e-5 * np.abs(target).max()


SMALL = {"stem_width": 4, "widths": (8, 16), "blocks": (0, 1), "patch_size": 8}


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("small", (24, 17), (6, 5, 16)),
        ("small", (9, 40), (3, 10, 16)),
        ("patches", (24, 17), (3, 3, 192)),
        ("patches", (9, 40), (2, 5, 192)),
        ("resnet18", (40, 17), (2, 1, 512)),
        ("resnet18", (9, 65), (1, 3, 512)),
    ],
)
def test_images_need_not_be_square(name, size, grid):
    cnn = make_image_encoder(encoder(name, **SMALL), FLOAT32)
    output, _ = jax.eval_shape(lambda: cnn.init_with_output(jax.random.key(0), jnp.zeros((2, *size, 3))))
    assert output.shape == (2, *grid)


def test_instance_norm_needs_more_than_one_grid_position():
    for name in ("resnet18", "mobilenet_v2"):
        cnn = make_image_encoder(encoder(name, norm="instance"), FLOAT32)
        for side, refusal in ((64, nullcontext()), (32, pytest.raises(InputError, match="1 x 1"))):
            with refusal:
                jax.eval_shape(cnn.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))


@pytest.mark.parametrize(("name", "num_positions"), [("small", 3 * 5), ("patches", 2 * 3), ("resnet18", 1 * 1)])
def test_a_model_reads_all_of_an_image_that_is_not_square(name, num_positions):
    settings = Architecture(
        hidden_size=32, num_attention_heads=2, num_layers=1, intermediate_size=32, fusion="concat",
        attention_pattern="image_to_text", head="cls", image=encoder(name, **SMALL),
        vocab_size=20, text_feature_size=32,
    )  # fmt: skip
    model = VisualLanguageModel(settings, 7)
    image, ids = jax.random.normal(jax.random.key(1), (2, 9, 17, 3)), jnp.ones((2, 1, 4), jnp.int32)
    mask, random = jnp.ones(ids.shape, bool), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, ids, mask))
    variables = jax.tree.map(lambda leaf: jnp.asarray(0.2 * random.normal(size=leaf.shape), jnp.float32), shapes)
    run = jax.jit(lambda image: model.apply(variables, image, ids, mask))
    output = run(image)
    assert output.image.shape == (2, 1, num_positions, 32)
    for row, column in ((0, 0), (-1, 0), (0, -1), (-1, -1)):
        apart = jnp.abs(run(image.at[:, row, column].add(3.0)).logits - output.logits).max()
        assert 1e-6 < apart < jnp.inf
