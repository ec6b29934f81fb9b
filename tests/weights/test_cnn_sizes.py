"""Published sizes of transformers' CNNs have as many parameters as their class; other networks are refused by name."""

import json
import math
from types import SimpleNamespace

import pytest

from vlm_jax.config.encoders import RESNET_BLOCKS, ResNet
from vlm_jax.errors import InputError
from vlm_jax.weights.converted_model import shapes
from vlm_jax.weights.families import CLASSES
from vlm_jax.weights.family import PublishedFile

torch = pytest.importorskip("torch", reason="torch is the oracle")
pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity


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
