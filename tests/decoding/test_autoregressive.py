"""Image tokens one after the other: the cache against the whole computation, and prompts that are read once."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import random_parameters
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import ImageTokens
from vlm_jax.config.image_generation import Autoregressive
from vlm_jax.config.quantizers import FSQ
from vlm_jax.decoding import ImageTokenDecoder, shift_right
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes

GRID, CODEBOOK_SIZE = (2, 3), 12
NUM_TOKENS = math.prod(GRID)
SETTINGS = Architecture(
    hidden_size=16,
    num_attention_heads=2,
    num_layers=2,
    intermediate_size=16,
    head="image_tokens",
    image=ImageTokens(quantizer=FSQ(levels=(4, 3)), positions="grid"),
    max_image_positions=8,
    vocab_size=30,
    text_feature_size=16,
    max_position_embeddings=8,
)
NUM_IMAGES = jax.random.randint(jax.random.key(1), (2, *GRID), 0, CODEBOOK_SIZE)
IDS = jax.random.randint(jax.random.key(2), (2, 1, 5), 1, 30)
MASK = jnp.array([[[True] * 5], [[True] * 3 + [False] * 2]])


@pytest.fixture(
    scope="module", params=[(f, p) for f in ("concat", "cross") for p in ("autoregressive", "text_to_image")]
)
def model(request):
    fusion, attention_pattern = request.param
    changes = {"fusion": fusion, "attention_pattern": attention_pattern}
    module = VisualLanguageModel(with_changes(SETTINGS, changes), CODEBOOK_SIZE)
    params = random_parameters(module.init, NUM_IMAGES, IDS, MASK, std=0.3)
    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(module.apply, static_argnames=("method", "grid")), params, module


def test_each_token_is_predicted_from_the_token_before_it():
    found = shift_right(jnp.arange(12).reshape(2, 2, 3), mask_id=99)
    assert found.tolist() == [[[99, 0, 1], [2, 3, 4]], [[99, 6, 7], [8, 9, 10]]]


def test_a_prompt_that_was_read_changes_nothing(model):
    apply, params, _ = model
    whole = apply(params, NUM_IMAGES, IDS, MASK, method="task_logits")
    prompt = apply(params, IDS, MASK, method="prefill_prompt")
    again = apply(params, prompt, NUM_IMAGES, method="image_token_logits")
    np.testing.assert_allclose(jax.nn.log_softmax(again), jax.nn.log_softmax(whole), atol=1e-5)


@pytest.mark.parametrize("model", [("concat", "autoregressive"), ("cross", "autoregressive")], indirect=True)
def test_the_cache_changes_nothing_and_no_code_peeks(model):
    apply, params, module = model
    whole = jax.nn.log_softmax(
        apply(params, shift_right(NUM_IMAGES, mask_id=CODEBOOK_SIZE), IDS, MASK, method="task_logits")
    )
    prompt = apply(params, IDS, MASK, method="prefill_prompt")
    flat = shift_right(NUM_IMAGES, mask_id=CODEBOOK_SIZE).reshape(2, -1)
    for sizes in ((1,) * NUM_TOKENS, (2, 1, 3)):
        cache, found = module.empty_cache(2, 1, NUM_TOKENS), []
        for some in jnp.split(flat, np.cumsum(sizes)[:-1], axis=1):
            logits, cache = apply(params, prompt, cache, some, grid=GRID, method="next_image_token_logits")
            found.append(jax.nn.log_softmax(logits))
        assert int(cache[0].length) == NUM_TOKENS
        np.testing.assert_allclose(jnp.concatenate(found, axis=2), whole, atol=1e-5)
    for place in range(NUM_TOKENS - 1):
        other = NUM_IMAGES.at[:, place // 3, place % 3].set((NUM_IMAGES[:, place // 3, place % 3] + 1) % CODEBOOK_SIZE)
        moved = apply(params, shift_right(other, mask_id=CODEBOOK_SIZE), IDS, MASK, method="task_logits")
        moved = jax.nn.log_softmax(moved)
        assert jnp.array_equal(moved[:, :, : place + 1], whole[:, :, : place + 1])
        assert not jnp.array_equal(moved[:, :, place + 1 :], whole[:, :, place + 1 :])


@pytest.mark.parametrize("model", [("concat", "autoregressive")], indirect=True)
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_low_temperature_takes_the_likeliest_token_each_time(model, guidance_scale):
    apply, params, module = model
    empty = (jnp.array([2, 3, 0, 0, 0]), jnp.array([True, True, False, False, False]))
    settings = Autoregressive(guidance_scale=guidance_scale, temperature=1e-6)
    generate = ImageTokenDecoder(module, settings, grid=GRID, codebook_size=CODEBOOK_SIZE, empty=empty)
    sampled = generate(params, IDS[:, 0], MASK[:, 0], jax.random.split(jax.random.key(4), 2))
    shown = shift_right(sampled, mask_id=CODEBOOK_SIZE)
    given = apply(params, shown, IDS, MASK, method="task_logits")[:, 0]
    nothing = [jnp.broadcast_to(row, (2, 1, 5)) for row in empty]
    free = apply(params, shown, *nothing, method="task_logits")[:, 0]
    likeliest = jnp.argmax(free + guidance_scale * (given - free), axis=-1)
    np.testing.assert_array_equal(sampled.reshape(2, -1), likeliest)


@pytest.mark.parametrize("model", [("concat", "autoregressive")], indirect=True)
def test_images_depend_on_the_key_alone(model):
    _, params, module = model
    empty = (jnp.array([2, 3, 0, 0, 0]), jnp.array([True, True, False, False, False]))
    generate = ImageTokenDecoder(
        module, Autoregressive(guidance_scale=1.0), grid=GRID, codebook_size=CODEBOOK_SIZE, empty=empty
    )
    keys = jax.random.split(jax.random.key(4), 2)
    together = generate(params, IDS[:, 0], MASK[:, 0], keys)
    np.testing.assert_array_equal(together[1:], generate(params, IDS[1:, 0], MASK[1:, 0], keys[1:]))
    assert not jnp.array_equal(together, generate(params, IDS[:, 0], MASK[:, 0], keys[::-1]))


@pytest.mark.slow
def test_a_benchmark_has_a_row_for_each_way(pytestconfig, capsys):
    from experiments.benchmark_generate import _table, main, measure
    from vlm_jax.config.tasks import TASKS
    from vlm_jax.errors import InputError
    from vlm_jax.settings.presets import load_preset

    config = load_preset(pytestconfig.rootpath / "configs" / "shape_scenes_generation.py", TASKS)
    changes = {"model.hidden_size": 16, "model.num_attention_heads": 2, "model.num_layers": 1}
    changes |= {"generation.num_decoding_steps": 3, "generation.num_refinement_rounds": 1}
    rows = measure(with_changes(config, changes), 2, (1, 2), (1.0,), 1)
    assert [
        (row["way"], row["steps"], row["guidance_scale"], row["num_refinement_rounds"], row["batch"]) for row in rows
    ] == [
        ("masked", 1, 1.0, 0, 2),
        ("masked", 2, 1.0, 0, 2),
        ("autoregressive", None, 1.0, 0, 2),
        ("config", 3, 2.0, 1, 2),
    ]
    assert all(0 < row["least"] <= row["seconds"] <= row["most"] for row in rows)
    assert len(_table(rows).splitlines()) == 1 + 4 + 1
    for options, message in (
        (["configs/tiny.py"], "of the task 'vqa'"),
        (["configs/tiny.py", "--steps", "0"], "at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            main([str(pytestconfig.rootpath / options[0]), *options[1:]])


@pytest.mark.parametrize("model", [("concat", "autoregressive"), ("cross", "autoregressive")], indirect=True)
def test_the_likeliest_candidate_is_kept_by_the_probability_of_its_codes_one_after_the_other(model):
    apply, params, module = model
    empty = (np.array([1, 2, 0, 0, 0]), np.array([True, True, False, False, False]))
    keys = jax.random.split(jax.random.key(4), 2)

    def sampled(count, keys):
        options = {"grid": GRID, "codebook_size": CODEBOOK_SIZE, "empty": empty, "num_candidates": count}
        generate = ImageTokenDecoder(module, Autoregressive(guidance_scale=1.0), **options)
        return np.asarray(generate(params, IDS[:, 0], MASK[:, 0], keys))

    def log_p(tokens):
        logits = apply(params, shift_right(tokens, mask_id=CODEBOOK_SIZE), IDS, MASK, method="task_logits")[:, 0]
        steps = np.asarray(jax.nn.log_softmax(logits))
        return [
            sum(row[g, code] for g, code in enumerate(some.ravel())) for row, some in zip(steps, tokens, strict=True)
        ]

    each = [sampled(1, jax.vmap(lambda key: jax.random.split(key, 5))(keys)[:, place]) for place in range(5)]
    likely = np.array([log_p(tokens) for tokens in each])
    expected = [each[place][row] for row, place in enumerate(likely.argmax(0))]
    np.testing.assert_array_equal(sampled(5, keys), expected)
