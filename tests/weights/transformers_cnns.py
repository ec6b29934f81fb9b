"""Tiny CNNs of transformers' own classes as folders, shaken so that a mix-up shows."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm_jax.weights.source import CONFIG

IMAGE = (45, 38)  # one side odd, and both odd further down
LABELS = {0: "background", 1: "cat", 2: "dog"}
COLOURS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


class Tiny(NamedTuple):
    """A class of transformers and the settings of a tiny model."""

    name: str
    settings: dict
    processor: str = "ViTImageProcessor"


TINY = {
    "resnet_v1": Tiny(
        "ResNetForImageClassification",
        {
            "depths": [2, 1, 2], "hidden_sizes": [16, 24, 32], "embedding_size": 16, "layer_type": "bottleneck",
            "downsample_in_bottleneck": True, "downsample_in_first_stage": True,
        },
    ),
    "resnet_basic": Tiny(
        "ResNetModel", {"depths": [1, 2], "hidden_sizes": [8, 16], "embedding_size": 8, "layer_type": "basic"}
    ),
    "resnet_bottleneck": Tiny(
        "ResNetForImageClassification", {"depths": [2, 2], "hidden_sizes": [16, 24], "embedding_size": 16}
    ),
    "efficientnet": Tiny(
        "EfficientNetForImageClassification",
        {"width_coefficient": 0.1, "depth_coefficient": 0.5, "hidden_dim": 128, "depthwise_padding": [2]},
        "EfficientNetImageProcessor",
    ),
    "efficientnet_model": Tiny(
        "EfficientNetModel",
        {"width_coefficient": 0.15, "depth_coefficient": 0.3, "hidden_dim": 192, "batch_norm_eps": 1e-5},
        "EfficientNetImageProcessor",
    ),
    "mobilenet_v2": Tiny(
        "MobileNetV2ForImageClassification",
        {"depth_multiplier": 0.2, "finegrained_output": False, "tf_padding": True, "layer_norm_eps": 1e-3},
        "MobileNetV2ImageProcessor",
    ),
    "convnext": Tiny(
        "ConvNextForImageClassification",
        {"depths": [1, 2, 1], "hidden_sizes": [8, 16, 12], "num_stages": 3, "layer_norm_eps": 1e-3},
    ),
    "convnext_model": Tiny(
        "ConvNextModel", {"depths": [2, 1], "hidden_sizes": [8, 16], "num_stages": 2, "layer_scale_init_value": 0.0}
    ),
    "mobilenet_v2_model": Tiny(
        "MobileNetV2Model",
        {"depth_multiplier": 0.3, "finegrained_output": True, "tf_padding": False, "layer_norm_eps": 1e-5},
        "MobileNetV2ImageProcessor",
    ),
}  # fmt: skip


def model_of(tiny: Tiny):
    """The model of transformers, its weights, norms and statistics drawn anew."""
    import torch
    import transformers

    kind = getattr(transformers, tiny.name)
    labels = {} if tiny.name.endswith("Model") else {"id2label": LABELS}
    model = kind(kind.config_class(**tiny.settings, **labels)).eval()
    random = np.random.default_rng(0)
    for name, tensor in sorted(model.state_dict().items()):
        noise = random.standard_normal(tuple(tensor.shape))
        if name.endswith("num_batches_tracked"):
            value = np.asarray(random.integers(1, 1000))
        elif name.endswith("running_var"):
            value = np.exp(noise - 1)  # from below 0.1, where an epsilon shows
        elif noise.ndim == 1 and name.endswith("weight"):
            value = 1 + 0.2 * noise
        elif noise.ndim == 1:
            value = 0.2 * noise
        else:
            # Less than unit gain: many layers that are cut off at 6 are chaotic in float32.
            value = 0.6 * noise / math.sqrt(math.prod(noise.shape[1:]))
        tensor.copy_(torch.tensor(value).to(tensor.dtype))
    return model


def publish(tiny: Tiny, folder: Path, **changes) -> Path:
    """A folder as transformers writes it, with a preprocessor_config.json; `changes` are of config.json."""
    model_of(tiny).save_pretrained(folder)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    size = {"height": IMAGE[0], "width": IMAGE[1]}
    recipe = {"image_processor_type": tiny.processor, "size": size, "resample": 3, "do_center_crop": False}
    recipe |= COLOURS
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
    return folder
