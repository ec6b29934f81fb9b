"""CNNs of transformers at tiny widths and depths: verified, exported bit-equal, with their labels; mistakes show."""

import dataclasses
import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.weights import own
from tests.weights.transformers_cnns import LABELS, TINY, publish
from vlm_jax.config.encoders import RESNET_BLOCKS, ResNet
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
from vlm_jax.weights.families import CLASSES
from vlm_jax.weights.family import PublishedFile
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


# Published sizes


def count(model):
    """The parameters of a model of transformers on the meta device, and of ours by the settings of its config."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    kind = type(model).__name__
    family = CLASSES[kind]
    tensors = {name: SimpleNamespace(shape=tuple(x.shape)) for name, x in model.state_dict().items()}
    names = {name.removeprefix(f"{family.prefix}."): name for name in tensors}
    parts = ("classifier",) if kind.endswith("Classification") else ()
    architecture = family.settings(PublishedFile(config, names, tensors, kind, parts))
    ours = sum(math.prod(leaf.shape) for leaf in shapes(architecture).values())
    return sum(x.numel() for x in model.parameters()), ours, architecture


def on_meta(kind, **settings):
    import transformers

    model = getattr(transformers, kind)
    with torch.device("meta"):
        return model(model.config_class(**settings))


# Width, depth, image size, width of the last convolution, blocks that pad all sides alike; in millions, Tan and Le's.
EFFICIENTNETS = {
    "b0": (1.0, 1.0, 224, 1280, [], 5.3),
    "b1": (1.0, 1.1, 240, 1280, [16], 7.8),
    "b2": (1.1, 1.2, 260, 1408, [5, 8, 16], 9.1),
    "b3": (1.2, 1.4, 300, 1536, [5, 18], 12.2),
    "b4": (1.4, 1.8, 380, 1792, [6], 19.3),
    "b5": (1.6, 2.2, 456, 2048, [13, 27], 30.4),
    "b6": (1.8, 2.6, 528, 2304, [31], 43.0),
    "b7": (2.0, 3.1, 600, 2560, [18], 66.3),
}


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_an_efficientnet_has_the_published_size(name):
    width, depth, size, hidden_dim, padded, millions = EFFICIENTNETS[name]
    settings = {"width_coefficient": width, "depth_coefficient": depth, "image_size": size, "hidden_dim": hidden_dim}
    model = on_meta("EfficientNetForImageClassification", **settings, depthwise_padding=padded, num_labels=1000)
    expected, ours, architecture = count(model)
    assert ours == expected and round(ours / 1e6, 1) == pytest.approx(millions, abs=0.11)
    assert architecture.input.size == (size, size) and architecture.model.depthwise_padding == tuple(padded)


@pytest.mark.parametrize("multiplier", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_a_mobilenet_has_the_published_size(multiplier):
    """With the class of the background: 1001 classes."""
    expected, ours, architecture = count(
        on_meta("MobileNetV2ForImageClassification", depth_multiplier=multiplier, num_labels=1001)
    )
    assert ours == expected and architecture.classes == 1001 and architecture.model.tf_padding


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_a_resnet_has_the_published_size(depth):
    layer_type, depths = RESNET_BLOCKS[depth]
    widths = [(64 if layer_type == "basic" else 256) * 2**stage for stage in range(4)]
    settings = {"depths": list(depths), "layer_type": layer_type, "hidden_sizes": widths}
    expected, ours, architecture = count(on_meta("ResNetForImageClassification", **settings, num_labels=1000))
    assert ours == expected and architecture.model == ResNet(depth=depth, norm="frozen")


# Of Liu et al. 2022, tables 1 and 12: tiny, small, base, large and extra large.
CONVNEXTS = {
    28.6: ([3, 3, 9, 3], 96), 50.2: ([3, 3, 27, 3], 96), 88.6: ([3, 3, 27, 3], 128), 197.8: ([3, 3, 27, 3], 192),
    350.2: ([3, 3, 27, 3], 256),
}  # fmt: skip


@pytest.mark.parametrize("millions", CONVNEXTS)
def test_a_convnext_has_the_published_size(millions):
    depths, width = CONVNEXTS[millions]
    settings = {"depths": depths, "hidden_sizes": [width * 2**stage for stage in range(4)], "num_labels": 1000}
    expected, ours, _ = count(on_meta("ConvNextForImageClassification", **settings))
    assert ours == expected and ours / 1e6 == pytest.approx(millions, abs=0.1)


# Settings that cannot be ported


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("EfficientNetModel", "hidden_dim", 1280), ("EfficientNetModel", "squeeze_expansion_ratio", 0.5),
        ("EfficientNetModel", "pooling_type", "max"), ("EfficientNetModel", "hidden_act", "relu"),
        ("EfficientNetModel", "kernel_sizes", [3] * 7), ("EfficientNetModel", "depth_divisor", 4),
        ("EfficientNetModel", "num_channels", 1), ("EfficientNetModel", "depthwise_padding", [-1]),
        ("EfficientNetModel", "width_coefficient", 0), ("EfficientNetModel", "batch_norm_eps", 0),
        ("ConvNextModel", "hidden_act", "relu"), ("ConvNextModel", "num_stages", 3),
        ("ConvNextModel", "depths", [3, 0]),
        ("MobileNetV2Model", "output_stride", 8), ("MobileNetV2Model", "first_layer_is_expansion", False),
        ("MobileNetV2Model", "expand_ratio", 4.0), ("MobileNetV2Model", "hidden_act", "relu"),
        ("MobileNetV2Model", "tf_padding", "yes"), ("MobileNetV2Model", "depth_multiplier", -1),
    ],
)  # fmt: skip
def test_another_network_is_refused_by_its_setting(kind, key, value):
    with pytest.raises(InputError, match=key):
        CLASSES[kind].settings(PublishedFile({key: value}, {}, {}, kind))


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
