"""Published models of random weights: tiny ones of transformers' classes, and CNNs that transformers does not have."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from vlm_jax.types import Json
from vlm_jax.weights.converted_model import shapes
from vlm_jax.weights.family import ConvertedArchitecture, Family
from vlm_jax.weights.settings_files import PREPROCESSOR
from vlm_jax.weights.source import CONFIG, WEIGHTS

TINY: dict[str, Json] = {
    "vocab_size": 97, "hidden_size": 32, "embedding_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 40, "image_size": 16, "patch_size": 4,
    "pooler_output_size": 32, "projection_dim": 12, "visual_embedding_dim": 20,
}  # fmt: skip
"""Sizes of a tiny model, under the names that configs of transformers have for them; everything else stays."""
STAGES: dict[str, Json] = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 2, 1, 1]}
FAMILY: dict[str, dict[str, Json]] = {
    "distilbert": {"hidden_dim": 48},
    "resnet": STAGES,
    "convnext": STAGES | {"num_stages": 4, "image_size": 32},
    "efficientnet": {
        "width_coefficient": 0.1, "depth_coefficient": 0.5, "hidden_dim": 128, "image_size": 32, "depthwise_padding": []
    },
    "mobilenet_v2": {"depth_multiplier": 0.2, "image_size": 32},
}  # fmt: skip
"""Further sizes of a family, by its `model_type`."""
SIDES = ("vision_config", "text_config")
BACKBONE = ("out_features", "out_indices", "stage_names")  # the class makes them from the depth
CNN_IMAGE = 32
STD = 0.2
NORMS = (torch.nn.LayerNorm, torch.nn.BatchNorm2d)


def write_tiny(class_name: str, config: Mapping[str, Json], folder: Path) -> None:
    """A model of a class of transformers, tiny and of random weights, with everything else that its config.json says.

    No bias is 0, no scale 1 and no two leaves are equal, so that nothing hides. The images are as large as its table
    of positions.
    """
    kind = getattr(transformers, class_name)
    settings = kind.config_class.from_dict(dict(config))
    for side in (settings, *(getattr(settings, name) for name in SIDES if hasattr(settings, name))):
        _make_tiny(side)
    content = {key: value for key, value in settings.to_dict().items() if key not in BACKBONE}
    random = torch.Generator().manual_seed(0)
    model = kind(kind.config_class.from_dict(content))
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                # Convolutions by He et al. 2015: through 50 of them any other variance grows or vanishes.
                std = math.sqrt(2 / parameter[0].numel()) if parameter.ndim == 4 else STD
                parameter.copy_(torch.randn(parameter.shape, generator=random) * std)
            if isinstance(module, NORMS):
                module.weight.add_(1)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=random) * STD)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=random) + 0.5)
    model.save_pretrained(folder)
    if model.main_input_name == "pixel_values":
        _write_preprocessor(getattr(getattr(settings, SIDES[0], settings), "image_size", CNN_IMAGE), folder)


def _make_tiny(settings: transformers.PretrainedConfig) -> None:
    for name, value in (TINY | FAMILY.get(settings.model_type, {})).items():
        if hasattr(settings, name):
            setattr(settings, name, value)
    if hasattr(settings, "num_hidden_groups"):  # ALBERT's
        settings.num_hidden_groups = min(settings.num_hidden_groups, settings.num_hidden_layers)


def write_cnn(family: Family, architecture: ConvertedArchitecture, folder: Path) -> None:
    """A CNN of a family that transformers does not have, of its own size and of random weights."""
    random, leaves, tensors = np.random.default_rng(0), shapes(architecture), {}
    for row in family.rows(architecture):
        arrays = [random.standard_normal(leaves[path].shape, np.float32) for path in row.target]
        if row.transform.exact:
            fan_in = np.prod(arrays[0].shape[:-1])
            named = zip(row.source, row.transform.backward(*(x / np.sqrt(fan_in) for x in arrays)), strict=True)
        else:  # a batch norm: weight, bias, mean and variance
            width = len(arrays[0])
            shift, scale = (
                np.float32(STD) * random.standard_normal((2, width), np.float32),
                random.uniform(0.5, 1.5, (2, width)),
            )
            named = zip(row.source, (scale[0], *shift, scale[1]), strict=True)
        tensors |= {name: np.ascontiguousarray(x, np.float32) for name, x in named}
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(family.config(architecture)))
    _write_preprocessor(2 * CNN_IMAGE, folder)


def _write_preprocessor(size: int, folder: Path) -> None:
    recipe = {"image_processor_type": "ViTImageProcessor", "size": {"height": size, "width": size}, "resample": 3}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / PREPROCESSOR).write_text(json.dumps(recipe | half))
