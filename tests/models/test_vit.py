"""The pre-norm layer is PyTorch's, positions are interpolated as there, and every fusion reads every output."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.architectures import PAIRINGS
from tests.parameters import random_parameters
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.captioning import Captioning
from vlm_jax.config.encoders import VisionTransformer as Settings
from vlm_jax.config.layers import LayerStack
from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.models.bert import BertLayer, CrossLayer
from vlm_jax.models.vit import VisionTransformer, interpolate_positions
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes

FLOAT32 = jnp.dtype("float32")
TINY = {"hidden_size": 24, "num_attention_heads": 3, "num_layers": 3, "intermediate_size": 40, "patch_size": 4}


def noise_of(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


IMAGE = noise_of(0, 2, 12, 20, 3)


def tiny(**settings):
    return Settings(**TINY | {"image_size": (12, 20)} | settings)


def parameters(settings):
    """Random ones; each depends on its path alone, so that what two models have in common is the same."""
    shapes = jax.eval_shape(lambda: VisionTransformer(settings, FLOAT32).init(jax.random.key(0), IMAGE))

    def noise(path, leaf):
        name = jax.tree_util.keystr(path)
        values = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.2, leaf.shape)
        return (values + name.endswith("['scale']")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(noise, shapes)


def run(settings, image=IMAGE, *, dtype=FLOAT32, method="features", **options):
    """The model's outputs of an image, with the parameters of `parameters`."""
    variables = parameters(settings)
    model = VisionTransformer(settings, dtype, **options)
    return jax.jit(model.apply, static_argnames="method")(variables, image, method=method)


# The layer


def state_of(params, cross):
    """The parameters of our layer as a state of torch's."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    state = {}

    def put(name, *modules):
        for leaf, ours in (("weight", "kernel"), ("bias", "bias")):
            turned = [np.asarray(module[ours]).T for module in modules]
            state[f"{name}{leaf}"] = torch.tensor(np.concatenate(turned)).double()

    attentions = {"self_attn": "attention"} | ({"multihead_attn": "cross_attention"} if cross else {})
    norms = ["attention_norm", *(["cross_attention_norm"] if cross else []), "output_norm"]
    for theirs, ours in attentions.items():
        put(f"{theirs}.in_proj_", *(params[ours][part] for part in ("query", "key", "value")))
        put(f"{theirs}.out_proj.", params[ours]["output"])
    put("linear1.", params["intermediate"])
    put("linear2.", params["output"])
    for index, norm in enumerate(norms, start=1):
        state[f"norm{index}.weight"] = torch.tensor(np.asarray(params[norm]["scale"])).double()
        state[f"norm{index}.bias"] = torch.tensor(np.asarray(params[norm]["bias"])).double()
    return state


@pytest.mark.parity
@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("cross", [False, True])
def test_the_layer_is_torch_s(cross, pre_norm):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    settings = LayerStack(hidden_size=24, num_attention_heads=3, intermediate_size=40, pre_norm=pre_norm)
    x, other = noise_of(1, 2, 1, 5, 24), noise_of(2, 2, 1, 7, 24)
    mask = jnp.ones((2, 1, 5, 5), bool)
    layer = (CrossLayer if cross else BertLayer)(settings)
    if cross:
        seen = jnp.ones((2, 1, 7), bool)

        def call(module, x):
            return module(x, mask, module.keys_and_values(other), seen)[0]
    else:

        def call(module, x):
            return module(x, mask)[0]

    variables = random_parameters(lambda key: layer.init(key, x, method=call))
    with jax.default_matmul_precision("highest"):
        output = np.asarray(layer.apply(variables, x, method=call))[:, 0]
    kind = torch.nn.TransformerDecoderLayer if cross else torch.nn.TransformerEncoderLayer
    options = {"activation": "gelu", "dropout": 0.0, "batch_first": True, "layer_norm_eps": 1e-12}
    oracle = kind(24, 3, 40, norm_first=pre_norm, dtype=torch.float64, **options).eval()
    oracle.load_state_dict(state_of(variables["params"], cross))
    inputs = [torch.tensor(np.asarray(array[:, 0])).double() for array in ((x, other) if cross else (x,))]
    with torch.no_grad():
        reference = oracle(*inputs).numpy()
    assert np.abs(output - reference).max() < 2e-5 * max(1, np.abs(reference).max())


# Positions


@pytest.mark.parity
@pytest.mark.parametrize("target", [(3, 5), (2, 3), (7, 4), (9, 15), (1, 1)])
def test_positions_are_interpolated_as_torch_does_it(target):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    table = noise_of(2, 2 + 15, 6)
    output = interpolate_positions(table, before=2, source=(3, 5), target=target)
    grid = torch.tensor(np.asarray(table[2:])).double().reshape(1, 3, 5, 6).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=target, mode="bicubic", align_corners=False)
    reference = np.concatenate([table[:2], grid.permute(0, 2, 3, 1).reshape(-1, 6).numpy()])
    assert np.abs(output - reference).max() < 1e-5
    assert np.array_equal(output, table) == (target == (3, 5))


# The encoder


@pytest.mark.parametrize("before", [0, 1, 2])
def test_outputs_are_the_grid_the_class_token_and_the_mean(before):
    settings = tiny(class_token=before > 0, distillation_token=before > 1)
    features = run(settings)
    assert features.tokens.shape == (2, before + 15, 24)
    assert features.grid.shape == (2, 3, 5, 24)
    np.testing.assert_array_equal(features.grid.reshape(2, 15, 24), features.tokens[:, before:])
    np.testing.assert_allclose(features.mean, features.grid.mean((1, 2)), atol=1e-6)
    assert (features.class_token is None) == (before == 0)
    outputs = {"grid": features.grid, "mean": features.mean[:, None, None]}
    if before:
        np.testing.assert_array_equal(features.class_token, features.tokens[:, 0])
        outputs["class_token"] = features.class_token[:, None, None]
    for output, wanted in outputs.items():
        chosen = with_changes(settings, {"output": output})
        np.testing.assert_allclose(run(chosen, method="__call__"), wanted, atol=1e-6)


def test_the_last_norm_may_be_of_the_class_token_alone():
    every, alone = run(tiny()), run(tiny(final_norm="class_token"))
    np.testing.assert_allclose(every.class_token, alone.class_token, atol=1e-6)
    assert np.abs(every.grid - alone.grid).max() > 0.1
    assert np.abs(alone.class_token - alone.tokens[:, 0]).max() > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_scale": True}, {"embedding_norm": True}, {"hidden_act": "quick_gelu"}, {"hidden_act": "gelu_new"},
        {"patch_bias": False}, {"layer_norm_eps": 1e-2},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_what_is_computed(changes):
    assert np.abs(run(tiny()).grid - run(tiny(**changes)).grid).max() > 1e-4


@pytest.mark.parametrize("options", [{"remat": True}, {"scan_layers": True}, {"remat": True, "scan_layers": True}])
def test_remat_and_scan_change_nothing(options):
    np.testing.assert_allclose(run(tiny(), **options).tokens, run(tiny()).tokens, atol=1e-5)


def test_images_of_another_size_are_taken_by_the_same_parameters():
    assert run(tiny(), noise_of(3, 2, 20, 8, 3)).grid.shape == (2, 5, 2, 24)


def test_activations_are_of_the_type_that_is_asked_for():
    features = run(tiny(embedding_norm=True, layer_scale=True), dtype=jnp.dtype("bfloat16"))
    assert {leaf.dtype for leaf in features} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(features.mean, run(tiny(embedding_norm=True, layer_scale=True)).mean, atol=0.2)


# In the model


@pytest.mark.parametrize("output", ["grid", "class_token", "mean"])
@pytest.mark.parametrize(
    ("task", "fusion"), [(task, fusion) for task in ("vqa", "captioning") for fusion in PAIRINGS[task]]
)
def test_every_task_and_fusion_reads_it(task, fusion, output):
    config = {"vqa": VQA, "captioning": Captioning}[task]()
    changes = {f"model.image.{name}": value for name, value in (TINY | {"output": output, "kind": "vit"}).items()}
    sizes = {"image.size": (12, 20), "model.fusion.kind": fusion, "model.hidden_size": 16, "model.num_layers": 1}
    settings = with_changes(config, changes | sizes).architecture
    assert settings.image.image_size == (12, 20)
    model, ids = VisualLanguageModel(settings, 4), jnp.ones((2, 1, 5), jnp.int32)
    mask = jnp.ones(ids.shape, bool)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGE, ids, mask))
    logits = jax.eval_shape(lambda v: model.apply(v, IMAGE, ids, mask, method="task_logits"), shapes)
    assert logits.shape[0] == 2
    assert model.settings.image.name == "vit"


def test_the_model_looks_at_every_corner():
    settings = Architecture(hidden_size=16, num_layers=1, intermediate_size=16, image=tiny(), text_feature_size=16)
    model, ids = VisualLanguageModel(settings, 4), jnp.ones((2, 1, 4), jnp.int32)
    mask = jnp.ones(ids.shape, bool)
    variables = random_parameters(model.init, IMAGE, ids, mask)
    logits = jax.jit(lambda image: model.apply(variables, image, ids, mask).logits)
    for row, column in ((0, 0), (-1, 0), (0, -1), (-1, -1)):
        changed = logits(IMAGE.at[:, row, column].add(3.0))
        assert np.abs(changed - logits(IMAGE)).max() > 1e-6


# Refusals


def test_an_image_that_patches_do_not_divide_is_refused():
    changes = {"model.image.kind": "vit", "model.image.patch_size": 14, "image.size": (64, 70)}
    for config in (VQA(), Captioning()):
        with pytest.raises(InputError, match=r"64 x 70 pixels.*14 x 14 pixels.*70 x 70.*image\.size") as refusal:
            with_changes(config, changes)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match=r"13 x 20 pixels"):
        jax.eval_shape(lambda: run(tiny(), jnp.zeros((1, 13, 20, 3))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"output": "class_token"}, {"final_norm": "class_token"}, {"distillation_token": True},
    ],
)  # fmt: skip
def test_a_class_token_that_is_not_there_is_refused(wrong):
    with pytest.raises(ValueError, match="class_token is false"):
        tiny(class_token=False, **wrong)


def test_a_position_table_that_patches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="10 x 8 pixels"):
        tiny(image_size=(10, 8))
