"""ConvNeXt of any depth and width with its classifier: the names of transformers' files."""

from collections.abc import Mapping

from vlm_jax.config.encoders import ConvNeXt
from vlm_jax.data.image_settings import CenterCrop, ImageInput, Stretch
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import checked
from vlm_jax.types import Json
from vlm_jax.weights.cnn import CLASSIFIER, IMAGENET_COLOURS, classifier_heads, classifier_rows, require
from vlm_jax.weights.family import (
    TRAINED,
    ConvertedArchitecture,
    Family,
    PublishedClass,
    PublishedFile,
    label_names,
    number,
    real,
)
from vlm_jax.weights.preprocessor import CONVNEXT_SHARE, CONVNEXT_WHOLE
from vlm_jax.weights.tables import CONVOLUTION, SAME, Row, linear, norm, patch_projection

FIXED: dict[str, Json] = {"num_channels": 3, "hidden_act": "gelu"}


def _settings(file: PublishedFile) -> ConvertedArchitecture:
    config = file.config
    require(config, FIXED)
    cnn = checked(
        ConvNeXt,
        {
            "depths": _numbers(config, "depths", [3, 3, 9, 3]),
            "hidden_sizes": _numbers(config, "hidden_sizes", [96, 192, 384, 768]),
            "patch_size": number(config, "patch_size", 4),
            "layer_scale": config.get("layer_scale_init_value") != 0,
            "layer_norm_eps": real(config, "layer_norm_eps", 1e-12),
        },
    )
    require(config, {"num_stages": len(cnn.depths)})
    side = number(config, "image_size", 224)
    resize = CenterCrop(short_side=int(side / CONVNEXT_SHARE), corner="floored") if side < CONVNEXT_WHOLE else Stretch()
    image = ImageInput(size=(side, side), resize=resize, **IMAGENET_COLOURS)
    return ConvertedArchitecture(cnn, (), file.rows_of("classifier.weight") if file.parts else 0, image)


def _numbers(config: Mapping[str, Json], name: str, default: list[int]) -> tuple[int, ...]:
    values = config.get(name, default)
    if not isinstance(values, list):
        raise InputError(f"config.json says {name} = {values!r}; expected a list of numbers")
    return tuple(values)


def _patches(source: str, target: str, side: int) -> list[Row]:
    weight = Row((f"{source}.weight",), (f"{target}/kernel",), patch_projection(side))
    return [weight, Row((f"{source}.bias",), (f"{target}/bias",), SAME)]


def _rows(architecture: ConvertedArchitecture) -> list[Row]:
    cnn = architecture.model
    rows = _patches("embeddings.patch_embeddings", "image/stem", cnn.patch_size)
    rows += norm("embeddings.layernorm", "image/stem_norm")
    for stage, depth in enumerate(cnn.depths):
        source, target = f"encoder.stages.{stage}", f"image/stage_{stage + 1}"
        if stage:
            rows += norm(f"{source}.downsampling_layer.0", f"{target}_norm")
            rows += _patches(f"{source}.downsampling_layer.1", f"{target}_down", 2)
        for block in range(depth):
            rows += _block_rows(f"{source}.layers.{block}", f"{target}_block_{block}", cnn.layer_scale)
    return rows + norm("layernorm", "final_norm") + classifier_rows(architecture, "classifier")


def _block_rows(source: str, target: str, layer_scale: bool) -> list[Row]:
    rows = [
        Row((f"{source}.dwconv.weight",), (f"{target}/depthwise_conv/kernel",), CONVOLUTION),
        Row((f"{source}.dwconv.bias",), (f"{target}/depthwise_conv/bias",), SAME),
        *norm(f"{source}.layernorm", f"{target}/norm"),
        *linear(f"{source}.pwconv1", f"{target}/intermediate"),
        *linear(f"{source}.pwconv2", f"{target}/output"),
    ]
    scale = Row((f"{source}.layer_scale_parameter",), (f"{target}/scale",), SAME)
    return [*rows, scale] if layer_scale else rows


def _config(architecture: ConvertedArchitecture) -> dict[str, Json]:
    cnn = architecture.model
    sizes = {"depths": list(cnn.depths), "hidden_sizes": list(cnn.hidden_sizes), "num_stages": len(cnn.depths)}
    sizes |= {"patch_size": cnn.patch_size, "layer_norm_eps": cnn.layer_norm_eps}
    scale = {} if cnn.layer_scale else {"layer_scale_init_value": 0.0}
    return FIXED | sizes | scale | label_names(architecture.classes)


CONVNEXT = Family(
    name="convnext",
    prefix="convnext",
    recognise=("embeddings.patch_embeddings.weight", "encoder.stages.0.layers.0.dwconv.weight"),
    trunk_names=("embeddings.", "encoder.", "layernorm."),
    classes={"ConvNextModel": PublishedClass(), "ConvNextForImageClassification": PublishedClass(CLASSIFIER)},
    heads=classifier_heads("classifier"),
    settings=_settings,
    rows=_rows,
    config=_config,
    outside=("classifier.",),
    proven=TRAINED,
)
