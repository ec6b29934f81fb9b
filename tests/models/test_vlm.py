"""The model's own calls: the document's reference shapes, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.reference_base import get_config
from vlm_jax.config import ImageEncoder, Model, TextEncoder
from vlm_jax.errors import InputError
from vlm_jax.models.feature_fusion import FeatureFusion
from vlm_jax.models.vlm import VisualLanguageModel


def test_reference_from_features():
    """Image features [B, G, 2048] and text features [B, T, 768] to logits [B, G + T, 30522]."""
    settings = get_config().model
    features = dataclasses.replace(settings, image=dataclasses.replace(settings.image, cnn="features"))
    model = VisualLanguageModel(features, 30_522)
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
    assert settings.num_attention_heads == 12 and settings.text.vocab_size == 30_522


def test_reference_from_pixels():
    config = get_config()
    model = VisualLanguageModel(config.model, 30_522)
    image, ids = jnp.zeros((2, 224, 224, 3)), jnp.zeros((2, 1, 16), jnp.int32)
    mask = jnp.ones((2, 1, 16), bool)

    def forward(key):
        return model.apply(model.init(key, image, ids, mask), image, ids, mask)

    output = jax.eval_shape(forward, jax.random.key(0))
    assert output.logits.shape == (2, 1, 49 + 16, 30_522)
    assert output.text.shape == (2, 1, 16, 768)


def test_bfloat16_keeps_parameters_and_logits_float32():
    settings = Model(
        attention_pattern="bidirectional", head="cls", compute_dtype="bfloat16",
        image=ImageEncoder(cnn="features", feature_size=8), text=TextEncoder(vocab_size=20),
    )  # fmt: skip
    model = VisualLanguageModel(settings, 7)
    image, ids = jnp.ones((1, 4, 8)), jnp.zeros((1, 2, 3), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    output = model.apply(variables, image, ids, jnp.ones(ids.shape, bool))
    assert output.text.dtype == jnp.bfloat16 and output.logits.dtype == jnp.float32


def test_fresh_text_projection_is_the_identity():
    settings = Model(attention_pattern="bidirectional", head="cls", image=ImageEncoder(cnn="features", feature_size=8))
    model = VisualLanguageModel(settings, 7)
    image, ids = jnp.ones((1, 4, 8)), jnp.zeros((1, 1, 3), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))["params"]
    assert jnp.array_equal(params["embed"]["text_fc"]["kernel"], jnp.eye(128))


FEATURES = Model(
    attention_pattern="image_to_text", head="cls", hidden_size=16, num_attention_heads=2, num_layers=1,
    intermediate_size=16,
    image=ImageEncoder(cnn="features", feature_size=8, max_position_embeddings=4), text=TextEncoder(feature_size=16,
    vocab_size=20),
)  # fmt: skip


def initialise(settings, image):
    ids = jnp.zeros((len(image), 1, 3), jnp.int32)
    model = VisualLanguageModel(settings, 7)
    return model, model.init(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))


@pytest.mark.parametrize(
    ("positions", "shape", "message"),
    [
        ("sequence", (5, 8), r"5 grid positions.*max_position_embeddings is 4"),
        ("sequence", (2, 3, 8), r"6 grid positions.*max_position_embeddings is 4"),
        ("grid", (5, 2, 8), r"5 rows.*max_position_embeddings is 4"),
        ("grid", (2, 5, 8), r"5 columns.*max_position_embeddings is 4"),
        ("grid", (4, 8), r"'grid' needs grid features \[I, gh, gw, C\].*choose 'sequence'"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(positions, shape, message):
    settings = dataclasses.replace(FEATURES, image=dataclasses.replace(FEATURES.image, positions=positions))
    with pytest.raises(InputError, match=message):
        initialise(settings, jnp.ones((1, *shape)))


def test_grid_positions_are_a_row_and_a_column():
    """An image that is not square: cells differ by both, one vector a row and one a column, of the features' size."""
    settings = dataclasses.replace(FEATURES, image=dataclasses.replace(FEATURES.image, positions="grid"))
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
    image = dataclasses.replace(FEATURES.image, projection="mlp", positions="shared")
    settings = dataclasses.replace(FEATURES, image=image)
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


def test_a_model_without_attention_pattern_is_refused():
    with pytest.raises(
        InputError, match=r"model.attention_pattern and model.head are open; config_checks.check chooses them"
    ):
        initialise(dataclasses.replace(FEATURES, attention_pattern=None), jnp.ones((1, 4, 8)))
