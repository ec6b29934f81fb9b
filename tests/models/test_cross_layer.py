"""A layer that asks another stream is transformers' `BertLayer` with cross-attention."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import random_parameters
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.models.attention import CrossAttention, SelfAttention
from vlm_jax.models.bert import CrossLayer
from vlm_jax.settings.changes import with_changes

SETTINGS = Architecture(hidden_size=32, num_attention_heads=4, intermediate_size=48, image=Features())
NUM_IMAGES, SLOTS, WORDS, NUM_POSITIONS = 2, 3, 5, 7

# Their names, as regular expressions, and our paths.
TABLE = [
    (r"attention\.self\.(query|key|value)\.(weight|bias)", r"attention/\1/\2"),
    (r"crossattention\.self\.(query|key|value)\.(weight|bias)", r"cross_attention/\1/\2"),
    (r"attention\.output\.dense\.(weight|bias)", r"attention/output/\1"),
    (r"crossattention\.output\.dense\.(weight|bias)", r"cross_attention/output/\1"),
    (r"attention\.output\.LayerNorm\.(weight|bias)", r"attention_norm/\1"),
    (r"crossattention\.output\.LayerNorm\.(weight|bias)", r"cross_attention_norm/\1"),
    (r"intermediate\.dense\.(weight|bias)", r"intermediate/\1"),
    (r"output\.dense\.(weight|bias)", r"output/\1"),
    (r"output\.LayerNorm\.(weight|bias)", r"output_norm/\1"),
]


def converted(state):
    """Our parameters, with every tensor of theirs used once."""
    params = {}
    for name, tensor in state.items():
        (path,) = {re.sub(pattern, path, name) for pattern, path in TABLE if re.fullmatch(pattern, name)}
        *modules, leaf = path.split("/")
        array = tensor.numpy()
        if leaf == "weight":
            leaf, array = ("scale", array) if modules[-1].endswith("_norm") else ("kernel", array.T)
        place = params
        for module in modules:
            place = place.setdefault(module, {})
        place[leaf] = jnp.asarray(array, jnp.float32)
    return params


@pytest.mark.parity
@pytest.mark.parametrize("shared", [True, False], ids=["one source for all slots", "a source a slot"])
def test_cross_layer_is_that_of_transformers(shared):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    config = BertConfig(
        hidden_size=32, num_attention_heads=4, intermediate_size=48, is_decoder=True, add_cross_attention=True,
        attn_implementation="eager",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    target = BertLayer(config, layer_idx=0).double().eval()
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    params = converted(target.state_dict())
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (NUM_IMAGES, SLOTS, WORDS, 32))
    source = jax.random.normal(keys[1], (NUM_IMAGES, 1 if shared else SLOTS, NUM_POSITIONS, 32))
    words = jnp.arange(WORDS)[None, None] < jax.random.randint(keys[2], (NUM_IMAGES, SLOTS, 1), 1, WORDS + 1)
    num_positions = jnp.arange(NUM_POSITIONS)[None, None] < jax.random.randint(
        keys[3], (*source.shape[:2], 1), 1, NUM_POSITIONS + 1
    )
    mask = jnp.broadcast_to(words[:, :, None], (NUM_IMAGES, SLOTS, WORDS, WORDS))
    model = CrossLayer(SETTINGS)

    def run(layer):
        return layer(x, mask, layer.keys_and_values(source), num_positions)[0]

    shapes = jax.eval_shape(lambda key: model.init(key, method=run), jax.random.key(0))["params"]
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
    ours = model.apply({"params": params}, method=run)

    def flat(array):
        array = np.broadcast_to(np.asarray(array), (NUM_IMAGES, SLOTS, *array.shape[2:]))
        return torch.tensor(array.reshape(NUM_IMAGES * SLOTS, *array.shape[2:]))

    def additive_mask(seen):
        return (~seen).double() * torch.finfo(torch.float64).min

    with torch.no_grad():
        expected = target(
            flat(x).double(),
            attention_mask=additive_mask(flat(mask))[:, None],
            encoder_hidden_states=flat(source).double(),
            encoder_attention_mask=additive_mask(flat(num_positions))[:, None, None],
        )
    expected = expected[0] if isinstance(expected, tuple) else expected
    expected = expected.numpy().reshape(ours.shape)
    assert np.abs(np.asarray(ours) - expected).max() / max(1, np.abs(expected).max()) < 2e-5


@pytest.mark.parity
@pytest.mark.parametrize("kind", [SelfAttention, CrossAttention])
def test_the_norm_of_queries_and_keys_is_that_of_torch(kind):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    module = kind(with_changes(SETTINGS, {"use_qk_norm": True}))
    x, source = (jax.random.normal(jax.random.key(n), (2, 1, 5, 32)) for n in range(2))
    visible = jnp.ones((2, 1, 5), bool)
    if kind is SelfAttention:
        source, inputs = x, (x, jnp.ones((2, 1, 5, 5), bool))
        params = random_parameters(module.init, *inputs)["params"]
        ours, _ = module.apply({"params": params}, *inputs)
    else:

        def cross(module, x, source):
            return module(x, module.keys_and_values(source), visible)

        params = random_parameters(module.init, x, source, method=cross)["params"]
        ours = module.apply({"params": params}, x, source, method=cross)

    def project(name, stream):
        leaves = {leaf: torch.tensor(np.asarray(value, np.float64)) for leaf, value in params[name].items()}
        return torch.tensor(np.asarray(stream, np.float64)) @ leaves["kernel"] + leaves["bias"]

    def heads(name, stream):
        return project(name, stream).unflatten(-1, (4, 8)).transpose(-2, -3)

    def norm(name, stream):
        rms = torch.nn.RMSNorm(8, eps=1e-6, dtype=torch.float64)
        rms.load_state_dict({"weight": torch.tensor(np.asarray(params[f"{name}_norm"]["scale"]))})
        return rms(heads(name, stream))

    mixed = torch.nn.functional.scaled_dot_product_attention(
        norm("query", x), norm("key", source), heads("value", source)
    )
    expected = project("output", mixed.transpose(-2, -3).flatten(-2).detach()).numpy()
    assert np.abs(ours - expected).max() < 2e-5 * np.abs(expected).max()
