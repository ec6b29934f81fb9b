"""CNNs of transformers at tiny widths and depths: verified, exported bit-equal, with their labels; mistakes show."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.weights import own
from tests.weights.transformers_cnns import LABELS, TINY, publish
from vlm_jax.config.optimizers import Optimizer
from vlm_jax.errors import InputError
from vlm_jax.models import cnn, convnext, mobile_networks
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.initialization import start
from vlm_jax.trees import flatten
from vlm_jax.weights import proof_subject, tables
from vlm_jax.weights import verify as verify_module
from vlm_jax.weights.checks import verdict
from vlm_jax.weights.converted_model import shapes
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.preprocessor import read_preprocessor
from vlm_jax.weights.source import CONFIG, WEIGHTS
from vlm_jax.weights.verify import verify

torch = pytest.importorskip("torch", reason="torch is the oracle")
pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity
BOUND = 2e-5


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of a tiny model, written once."""
    folders = {}

    def of(name):
        if name not in folders:
            folders[name] = publish(TINY[name], tmp_path_factory.mktemp("published") / name)
        return folders[name]

    return of


def worst(folder):
    """The largest difference that `verify` finds in a folder."""
    checks = list(verify(str(folder)))
    values = [check.value for check in checks if check.name in ("features", "logits")]
    assert values and all("e" in value for value in values), checks
    return max(map(float, values))


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_cnn_is_verified_and_comes_back(name, published, tmp_path):
    """By the folder of its import, too; with its labels; bit for bit; and transformers loads the export whole."""
    import transformers

    folder, kind = published(name), TINY[name].name
    checks = list(verify(str(folder)))
    assert verdict(checks) == ("PASS", 0), checks
    outputs = {check.name: float(check.value) for check in checks if check.name in ("features", "logits")}
    assert len(outputs) == (1 if kind.endswith("Model") else 2) and max(outputs.values()) < BOUND
    write_import(read(str(folder)), tmp_path / "imported")
    converted = read(str(tmp_path / "imported"))
    assert converted.architecture == read(str(folder)).architecture
    assert converted.labels == (() if kind.endswith("Model") else tuple(LABELS.values()))
    assert export(converted, tmp_path / "exported") == kind
    first, second = load_file(folder / WEIGHTS), load_file(tmp_path / "exported" / WEIGHTS)
    assert first.keys() == second.keys()
    assert all(array.tobytes() == second[key].tobytes() for key, array in first.items())
    _, info = getattr(transformers, kind).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert {key: names for key, names in info.items() if names} == {}
    settings = TINY[name].settings
    exported = json.loads((tmp_path / "exported" / CONFIG).read_text())
    assert {key: exported[key] for key in settings} == settings


@pytest.mark.parametrize("name", [name for name in TINY if "convnext" not in name])
def test_another_epsilon_of_batch_norm_shows(name, published, monkeypatch):
    fold, other = tables.folded_norm, {1e-5: 1e-3, 1e-3: 1e-5}
    monkeypatch.setattr(tables, "folded_norm", lambda epsilon: fold(other[epsilon]))
    assert worst(published(name)) > BOUND


def with_another_model(converted, **changes):
    model = with_changes(converted.architecture.model, changes)
    return dataclasses.replace(converted, architecture=converted.architecture._replace(model=model))


def plant(monkeypatch, **changes):
    """The module of another architecture behind the same parameters."""
    convert = proof_subject.convert
    monkeypatch.setattr(
        proof_subject, "convert", lambda *x, **named: with_another_model(convert(*x, **named), **changes)
    )


@pytest.mark.parametrize(("name", "version_1"), [("resnet_v1", False), ("resnet_bottleneck", True)])
def test_a_stride_on_the_wrong_convolution_shows(name, version_1, published, monkeypatch):
    plant(monkeypatch, downsample_in_bottleneck=version_1)
    assert worst(published(name)) > BOUND


@pytest.fixture
def planted_layout(monkeypatch):
    """Another layout of the network behind the same table; programs that were compiled before would hide it."""

    def plant_layout(change):
        verify_module.run_cnn.clear_cache()
        right = mobile_networks.layout_of
        monkeypatch.setattr(cnn, "layout_of", lambda settings: change(right(settings)))

    yield plant_layout
    verify_module.run_cnn.clear_cache()


def with_blocks(layout, change):
    return layout._replace(blocks=tuple(change(block) for block in layout.blocks))


@pytest.mark.parametrize(
    ("name", "padding"),
    [("efficientnet", "same"), ("efficientnet", "symmetric"), ("mobilenet_v2", "symmetric"), ("mobilenet_v2", "even"),
     ("mobilenet_v2_model", "same")],
)  # fmt: skip
def test_another_padding_shows(name, padding, published, planted_layout):
    """Of an image with an odd side TensorFlow's SAME is none that transformers' EfficientNet computes."""
    planted_layout(lambda layout: with_blocks(layout._replace(padding=padding), lambda b: b._replace(padding=padding)))
    assert worst(published(name)) > BOUND


def test_a_block_that_pads_all_sides_alike_shows(published, monkeypatch):
    plant(monkeypatch, depthwise_padding=())
    assert worst(published("efficientnet")) > BOUND


def test_a_block_of_the_stem_that_adds_its_input_shows(published, planted_layout):
    """Its widths are equal in a narrow MobileNetV2."""
    first = mobile_networks.layout_of(read(str(published("mobilenet_v2"))).architecture.model).blocks[0]
    assert first.inner_width == first.width and not first.adds_input
    planted_layout(lambda layout: layout._replace(blocks=(first._replace(adds_input=True), *layout.blocks[1:])))
    assert worst(published("mobilenet_v2")) > BOUND


def test_relu6_for_swish_shows(published, planted_layout):
    planted_layout(lambda layout: layout._replace(activation="relu6"))
    assert worst(published("efficientnet")) > BOUND


def test_a_squeeze_width_of_the_inner_channels_is_refused(published, planted_layout):
    """It is a quarter of the channels that come in; the tensors of another one do not fit."""
    shapes.cache_clear()
    planted_layout(lambda layout: with_blocks(layout, lambda b: b._replace(squeeze_width=b.inner_width // 4)))
    with pytest.raises(InputError, match=r"squeeze_excite.*reduce"):
        read(str(published("efficientnet")))
    shapes.cache_clear()


def test_another_epsilon_of_layer_norm_shows(published, monkeypatch):
    """Of the norm over the mean of the grid, and of those inside the network."""
    with monkeypatch.context() as patch:
        plant(patch, layer_norm_eps=1e-12)
        assert worst(published("convnext")) > BOUND
    verify_module.run_cnn.clear_cache()
    monkeypatch.setattr(convnext, "EPSILON", 1e-3)
    assert worst(published("convnext_model")) > BOUND
    verify_module.run_cnn.clear_cache()


# In a run


@pytest.mark.parametrize("name", ["efficientnet", "mobilenet_v2", "resnet_v1", "convnext"])
def test_a_model_starts_from_it(name, published):
    """`init.image` takes every leaf of it, and refuses other settings of the network and other colours."""
    folder = published(name)
    converted = read(str(folder))
    settings = own.config(changes={"init.kind": "parts", "init.image": str(folder)})
    with pytest.raises(InputError, match=f"--model.image.kind {converted.architecture.model.kind}"):
        start(settings, jax.eval_shape(lambda: own.fresh(settings)), ())
    fitting = with_changes(
        settings, {"model.image": converted.architecture.model, "image": converted.architecture.input}
    )
    params = flatten(start(fitting, jax.eval_shape(lambda: own.fresh(fitting)), ()).params)
    leaves = {path: leaf for path, leaf in flatten(converted.params).items() if path.startswith("image/")}
    assert leaves and all(np.array_equal(params[path], leaf) for path, leaf in leaves.items())


@pytest.mark.parametrize(
    "recipe", [{}, {"include_top": False}, {"rescale_offset": True, "rescale_factor": 1 / 127.5}, {"resample": 3}]
)
def test_the_colours_are_those_of_transformers_efficientnet_processor(recipe):
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    colours = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.47853944, 0.4732864, 0.47434163]}
    config = {"resample": 0, "size": {"height": 9, "width": 11}, **colours, **recipe}
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    expected = EfficientNetImageProcessorPil(**config)(image, return_tensors="np")["pixel_values"][0]
    name = {"image_processor_type": "EfficientNetImageProcessor"}
    image_input = read_preprocessor({"preprocessor_config.json": config | name})
    output = (image / 255 - image_input.mean) / image_input.std
    assert np.abs(output - expected.transpose(1, 2, 0)).max() < 1e-5
    assert image_input.resize.resample == ("bicubic" if recipe.get("resample") else "nearest")
    assert image_input.size == (9, 11)


@pytest.mark.parametrize("name", ["efficientnet", "mobilenet_v2", "resnet_v1", "convnext"])
def test_a_bias_of_the_file_is_spared_from_decay(name, published):
    """As every bias by the default of `no_decay`, which reads the ends of paths."""
    converted = read(str(published(name)))
    rows = converted.family.rows(converted.architecture)
    paths = [row.target[0] for row in rows if row.transform.exact and row.source[0].endswith("bias")]
    assert paths and [path for path in paths if not re.search(Optimizer().no_decay[0], path)] == []


@pytest.mark.parametrize("name", ["efficientnet", "mobilenet_v2", "resnet_v1", "convnext"])
def test_gradients_are_the_published_ones(name, published):
    """Of every tensor but the batch norms, which train as their scale and bias, in float32 against float64."""
    import transformers

    folder, converted = published(name), read(str(published(name)))
    model = getattr(transformers, TINY[name].name).from_pretrained(folder, dtype=torch.float64).eval()
    random = np.random.default_rng(0)
    pixels = jnp.asarray(random.standard_normal((2, *converted.architecture.input.size, 3)), jnp.float32)
    features = model.base_model(torch.tensor(np.asarray(pixels)).permute(0, 3, 1, 2).double()).pooler_output.flatten(1)
    cotangent = random.standard_normal(features.shape)
    (features * torch.tensor(cotangent)).sum().backward()
    references = {key: x.grad.numpy() for key, x in model.named_parameters() if x.grad is not None}

    def loss(params):
        return (converted.module.apply({"params": params}, pixels)[0] * cotangent.astype(np.float32)).sum()

    with jax.default_matmul_precision("highest"):
        gradients = flatten(jax.device_get(jax.jit(jax.grad(loss))(converted.params)))
    rows = [row for row in converted.family.rows(converted.architecture) if row.transform.exact]
    rows = [row for row in rows if not row.target[0].startswith("head/")]
    ours = {
        f"{converted.family.prefix}.{key}": x
        for row in rows
        for key, x in zip(row.source, row.transform.backward(*(gradients[p] for p in row.target)), strict=True)
    }
    least = 1e-2 * max(np.abs(x).max() for x in references.values())
    off = {
        key: np.abs(x - references[key]).max() / max(np.abs(references[key]).max(), least) for key, x in ours.items()
    }
    assert len(off) > 10 and max(off.values()) < BOUND, max(off, key=off.get)
