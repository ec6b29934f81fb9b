"""EfficientNet-B0 to B7 with their classifiers, and the image side of ALIGN: the names of transformers' files.

Widths and depths of a config.json are coefficients of B0's; other rows of blocks are refused.
"""

from collections.abc import Mapping

from vlm_jax.config.encoders import EfficientNet
from vlm_jax.data.image_settings import ImageInput, Stretch
from vlm_jax.errors import InputError
from vlm_jax.models.mobile_networks import EFFICIENTNET, SQUEEZE_RATIO, layout_of
from vlm_jax.types import Json
from vlm_jax.weights.cnn import (
    CLASSIFIER,
    IMAGENET_COLOURS,
    Unit,
    classifier_heads,
    classifier_rows,
    frozen_cnn,
    inverted_residual_rows,
    require,
)
from vlm_jax.weights.family import (
    ConvertedArchitecture,
    Family,
    PublishedClass,
    PublishedFile,
    choice,
    label_names,
    number,
    real,
)
from vlm_jax.weights.tables import POINTWISE, SAME, Row

MOST_COEFFICIENT = 100.0
# preprocessor_config.json of google/efficientnet-b0 to -b7: `include_top` divides by the deviation once more.
STD = tuple(std**2 for std in (0.47853944, 0.4732864, 0.47434163))
ROWS = {
    "kernel_sizes": [row.kernel_size for row in EFFICIENTNET],
    "in_channels": [32, *(row.width for row in EFFICIENTNET[:-1])],
    "out_channels": [row.width for row in EFFICIENTNET],
    "strides": [row.stride for row in EFFICIENTNET],
    "num_block_repeats": [row.depth for row in EFFICIENTNET],
    "expand_ratios": [row.expansion for row in EFFICIENTNET],
}
FIXED: dict[str, Json] = {
    **ROWS, "num_channels": 3, "depth_divisor": 8, "squeeze_expansion_ratio": SQUEEZE_RATIO,
}  # fmt: skip
DEFAULT_EPSILON = 1e-3
POOLING: dict[str, Json] = {"pooling_type": "mean"}


def efficientnet_settings(config: Mapping[str, Json], *, top_convolution: bool = True) -> EfficientNet:
    """The network that a config.json describes, its norms frozen; `InputError` for another one than EfficientNet."""
    require(config, FIXED)
    choice(config, "hidden_act", "swish", ("swish", "silu"))
    return EfficientNet(
        width_coefficient=real(config, "width_coefficient", 2.0, below=MOST_COEFFICIENT),
        depth_coefficient=real(config, "depth_coefficient", 3.1, below=MOST_COEFFICIENT),
        depthwise_padding=_block_numbers(config, "depthwise_padding"),
        top_convolution=top_convolution,
        norm="frozen",
    )


def efficientnet_config(cnn: EfficientNet, *, batch_norm_eps: float) -> dict[str, Json]:
    """The inverse of `efficientnet_settings`."""
    coefficients = {name: getattr(cnn, name) for name in ("width_coefficient", "depth_coefficient")}
    coefficients |= {"depthwise_padding": list(cnn.depthwise_padding), "batch_norm_eps": batch_norm_eps}
    return FIXED | coefficients | {"hidden_act": "swish"}


def batch_norm_epsilon(config: Mapping[str, Json]) -> float:
    """The epsilon of its batch norms."""
    return real(config, "batch_norm_eps", DEFAULT_EPSILON)


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    require(config, POOLING)
    cnn = efficientnet_settings(config)
    head_width = layout_of(cnn).head_width
    if number(config, "hidden_dim", 2560) != head_width:
        raise InputError(
            f"config.json says hidden_dim = {config.get('hidden_dim', 2560)}; width_coefficient "
            f"{cnn.width_coefficient:g} makes it {head_width}"
        )
    size = number(config, "image_size", 600)
    image = ImageInput(size=(size, size), resize=Stretch(resample="nearest"), mean=IMAGENET_COLOURS["mean"], std=STD)
    return frozen_cnn(file, cnn, "classifier", image, batch_norm_eps=batch_norm_epsilon(config))


def _block_numbers(config: Mapping[str, Json], name: str) -> tuple[int, ...]:
    blocks = config.get(name, [])
    if not isinstance(blocks, list) or not all(type(block) is int and block >= 0 for block in blocks):
        raise InputError(f"config.json says {name} = {blocks!r}; expected a list of numbers of blocks")
    return tuple(blocks)


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    return efficientnet_rows(architecture) + classifier_rows(architecture, "classifier")


def efficientnet_rows(architecture: ConvertedArchitecture) -> list[Row]:
    """Stem, blocks and, where it has one, the last convolution."""
    cnn = architecture.model
    blocks: list[list[Unit]] = []
    squeezes: list[Row] = []
    for index, block in enumerate(layout_of(cnn).blocks):
        name = f"encoder.blocks.{index}"
        units = [("expansion.expand_conv", "expansion.expand_bn")] * block.expands
        units += [("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm")]
        units += [("projection.project_conv", "projection.project_bn")]
        blocks.append([(f"{name}.{conv}", f"{name}.{norm}") for conv, norm in units])
        for layer in ("reduce", "expand"):
            source, target = f"{name}.squeeze_excite.{layer}", f"image/block_{index}/squeeze_excite/{layer}"
            squeezes.append(Row((f"{source}.weight",), (f"{target}/kernel",), POINTWISE))
            squeezes.append(Row((f"{source}.bias",), (f"{target}/bias",), SAME))
    stem = ("embeddings.convolution", "embeddings.batchnorm")
    top = ("encoder.top_conv", "encoder.top_bn") if cnn.top_convolution else None
    return inverted_residual_rows(architecture, stem, blocks, top) + squeezes


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    cnn = architecture.model
    settings = POOLING | efficientnet_config(cnn, batch_norm_eps=architecture.batch_norm_eps)
    return settings | {"hidden_dim": layout_of(cnn).head_width} | label_names(architecture.classes)


EFFICIENTNET_FAMILY = Family(
    name="efficientnet",
    prefix="efficientnet",
    recognise=("embeddings.convolution.weight", "encoder.top_conv.weight"),
    trunk_names=("embeddings.", "encoder."),
    classes={"EfficientNetModel": PublishedClass(), "EfficientNetForImageClassification": PublishedClass(CLASSIFIER)},
    heads=classifier_heads("classifier"),
    settings=_settings,
    rows=_rows,
    config=_config,
    outside=("classifier.",),
)
