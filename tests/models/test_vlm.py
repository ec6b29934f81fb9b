"""The model's own calls: the document's reference shapes, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from configs.reference_base import get_config
from vlm_jax.config import ImageEncoder, Model, TextEncoder
from vlm_jax.errors import InputError
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
    assert settings.heads == 12 and settings.text.vocabulary_size == 30_522


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


def test_answer_logits_equal_the_logits_at_cls():
    settings = Model(
        width=32, heads=4, mlp_width=32, head="every_position",
        image=ImageEncoder(cnn="features", features=8), text=TextEncoder(width=32, vocabulary_size=20),
    )  # fmt: skip
    model = VisualLanguageModel(settings, 7)
    image, ids = jax.random.normal(jax.random.key(1), (2, 4, 8)), jnp.arange(12).reshape(2, 2, 3)
    arguments = (image, ids, jnp.ones(ids.shape, bool))
    variables = jax.jit(model.init)(jax.random.key(0), *arguments)
    whole = model.apply(variables, *arguments)
    first = model.apply(variables, *arguments, method="answer_logits")
    assert whole.logits.shape == (2, 2, 4 + 3, 7)
    assert jnp.allclose(whole.logits[:, :, 4], first, atol=1e-6)


def test_bfloat16_keeps_parameters_and_logits_float32():
    settings = Model(
        compute_dtype="bfloat16", image=ImageEncoder(cnn="features", features=8), text=TextEncoder(vocabulary_size=20)
    )
    model = VisualLanguageModel(settings, 7)
    image, ids = jnp.ones((1, 4, 8)), jnp.zeros((1, 2, 3), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    output = model.apply(variables, image, ids, jnp.ones(ids.shape, bool))
    assert output.text.dtype == jnp.bfloat16 and output.logits.dtype == jnp.float32


def test_fresh_text_projection_is_the_identity():
    settings = Model(image=ImageEncoder(cnn="features", features=8))
    model = VisualLanguageModel(settings, 7)
    image, ids = jnp.ones((1, 4, 8)), jnp.zeros((1, 1, 3), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), image, ids, jnp.ones(ids.shape, bool))["params"]
    assert jnp.array_equal(params["embed"]["text_fc"]["kernel"], jnp.eye(128))


def test_too_many_grid_cells_are_refused():
    settings = Model(image=ImageEncoder(cnn="features", features=8, max_positions=3))
    ids = jnp.zeros((1, 1, 3), jnp.int32)
    with pytest.raises(InputError, match=r"4 cells.*max_positions is 3"):
        VisualLanguageModel(settings, 7).init(jax.random.key(0), jnp.ones((1, 4, 8)), ids, jnp.ones(ids.shape, bool))
