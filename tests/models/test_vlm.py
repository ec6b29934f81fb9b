"""The model's own calls: the document's reference shapes, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.reference_base import get_config
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.errors import InputError
from vlm_jax.models.feature_fusion import FeatureFusion
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes


def test_reference_from_features():
    """Image features [B, G, 2048] and text features [B, T, 768] to logits [B, G + T, 30522]."""
    settings = get_config().architecture
    model = VisualLanguageModel(with_changes(settings, {"image": Features(feature_size=2048)}), 30_522)
    image, text = jnp.zeros((2, 49, 2048)), jnp.zeros((2, 16, 768))

    def forward(key):
        variables = model.init(key, image, text, jnp.ones((2, 16), bool))
        return variables, model.apply(variables, image, text, jnp.ones((2, 16), bool))

    variables, output = jax.eval_shape(forward, jax.random.key(0))
    assert output.logits.shape == (2, 49 + 16, 30_522)
    params = variables["params"]
    assert sorted(params["trunk"]) == sorted(f"layer_{i}" for i in range(12))
    assert params["embed"]["image_fc"]["kernel"].shape == (2048, 768)
    assert params["embed"]["text_fc"]["kernel"].shape == (768, 768)
    assert params["head"]["classifier"]["kernel"].shape == (768, 30_522)
    assert settings.num_attention_heads == 12 and settings.vocab_size == 30_522


def test_reference_from_pixels():
    config = get_config()
    model = VisualLanguageModel(config.architecture, 30_522)
    image, ids = jnp.zeros((2, 224, 224, 3)), jnp.zeros((2, 1, 16), jnp.int32)
    mask = jnp.ones((2, 1, 16), bool)

    def forward(key):
        return model.apply(model.init(key, image, ids, mask), image, ids, mask)

    output = jax.eval_shape(forward, jax.random.key(0))
    assert output.logits.shape == (2, 1, 49 + 16, 30_522)
    assert output.text.shape == (2, 1, 16, 768)


def test_bfloat16_keeps_parameters_and_logits_float32():
    settings = Architecture(dtype="bfloat16", image=Features(feature_size=8), vocab_size=20)
    model = VisualLanguageModel(settings, 7)
    image, ids = jnp.ones((1, 4, 8)), jnp.zeros((1, 2, 3), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    output = model.apply(variables, image, ids, jnp.ones(ids.shape, bool))
    assert output.text.dtype == jnp.bfloat16 and output.logits.dtype == jnp.float32


def test_fresh_text_projection_is_the_identity():
    settings = Architecture(image=Features(feature_size=8))
    model = VisualLanguageModel(settings, 7)
    image, ids = jnp.ones((1, 4, 8)), jnp.zeros((1, 1, 3), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))["params"]
    assert jnp.array_equal(params["embed"]["text_fc"]["kernel"], jnp.eye(128))


FEATURES = Architecture(
    attention_pattern="image_to_text", head="cls", hidden_size=16, num_attention_heads=2, num_layers=1,
    intermediate_size=16, image=Features(feature_size=8), max_image_positions=4, text_feature_size=16, vocab_size=20,
)  # fmt: skip


def initialise(settings, image):
    ids = jnp.zeros((len(image), 1, 3), jnp.int32)
    model = VisualLanguageModel(settings, 7)
    return model, model.init(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))


@pytest.mark.parametrize(
    ("positions", "shape", "message"),
    [
        ("sequence", (5, 8), r"5 grid positions.*max_image_positions is 4"),
        ("sequence", (2, 3, 8), r"6 grid positions.*max_image_positions is 4"),
        ("grid", (5, 2, 8), r"5 rows.*max_image_positions is 4"),
        ("grid", (2, 5, 8), r"5 columns.*max_image_positions is 4"),
        ("grid", (4, 8), r"'grid' needs grid features \[I, gh, gw, C\].*choose 'sequence'"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(positions, shape, message):
    settings = with_changes(FEATURES, {"image.positions": positions})
    with pytest.raises(InputError, match=message):
        initialise(settings, jnp.ones((1, *shape)))


def test_grid_positions_are_a_row_and_a_column():
    """An image that is not square: cells differ by both, one vector a row and one a column, of the features' size."""
    settings = with_changes(FEATURES, {"image.positions": "grid"})
    _, variables = initialise(settings, jnp.ones((1, 2, 3, 8)))
    tables = [variables["params"]["embed"][name]["embedding"] for name in ("image_row", "image_column")]
    assert [table.shape for table in tables] == [(4, 16), (4, 16)]
    by_row, by_column = tables
    assert not by_row[:, 8:].any() and not by_column[:, :8].any()
    assert jnp.allclose((by_row**2).sum(1), 4) and jnp.allclose((by_column**2).sum(1), 4)  # sine and cosine, four pairs
    embed = variables["params"]["embed"] | {"image_segment": jnp.zeros((1, 16))}
    num_positions, _ = FeatureFusion(settings).apply(
        {"params": embed}, jnp.zeros((1, 2, 3, 8)), jnp.zeros((1, 1, 1, 16))
    )
    wanted = (by_row[:2, None] + by_column[None, :3]).reshape(6, 16)
    wanted = (wanted - wanted.mean(1, keepdims=True)) / wanted.std(1, keepdims=True)
    assert jnp.allclose(num_positions[0, 0], wanted, atol=1e-5)


@pytest.mark.parity
def test_a_projection_of_two_matrices_is_that_of_llava():
    """Linear, GELU in its exact form, linear, as torch computes them."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    settings = with_changes(FEATURES, {"image.projection": "mlp", "image.positions": "shared"})
    grid = jax.random.normal(jax.random.key(1), (1, 4, 8))
    _, variables = initialise(settings, grid)
    embed = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"]["embed"])  # biases are nothing else at first
    num_positions, _ = FeatureFusion(settings).apply({"params": embed}, grid, jnp.zeros((1, 1, 1, 16)))
    place = embed["image_position"]["embedding"][0] + embed["image_segment"][-1]
    norm, (first, second) = embed["norm"], (embed[name] for name in ("image_fc", "image_out"))
    tensor = lambda leaf: torch.tensor(np.asarray(leaf))  # noqa: E731
    hidden = torch.nn.functional.gelu(tensor(grid) @ tensor(first["kernel"]) + tensor(first["bias"]))
    wanted = hidden @ tensor(second["kernel"]) + tensor(second["bias"]) + tensor(place)
    wanted = torch.nn.functional.layer_norm(
        wanted, (16,), tensor(norm["scale"]), tensor(norm["bias"]), settings.layer_norm_eps
    )
    np.testing.assert_allclose(num_positions[0, 0], wanted[0], atol=2e-5)
