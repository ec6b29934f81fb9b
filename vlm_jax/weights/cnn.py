"""What the families of CNNs share: their classifiers, how they want their images, rows of convolutions and norms.

Batch norms are folded.
"""

from collections.abc import Iterable, Mapping

from vlm_jax.config.encoders import BatchNormCNN
from vlm_jax.data.image_settings import CenterCrop, ImageInput
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import Part
from vlm_jax.settings.changes import with_changes
from vlm_jax.types import Json
from vlm_jax.weights.family import ConvertedArchitecture, Family, PublishedFile
from vlm_jax.weights.tables import Row, convolution_norm, linear, source_names

TORCH_EPSILON = 1e-5  # torch.nn.BatchNorm2d
# torchvision's presets.ImageClassification: Resize(256), CenterCrop(224), bilinear.
IMAGENET_COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TORCHVISION = ImageInput(size=(224, 224), resize=CenterCrop(short_side=256, resample="bilinear"), **IMAGENET_COLOURS)
CLASSIFIER: tuple[Part, ...] = ("classifier",)
Unit = tuple[str, str]
"""The names of a convolution and of the batch norm after it."""


def frozen_cnn(
    file: PublishedFile,
    cnn: BatchNormCNN,
    classifier: str,
    image: ImageInput,
    *,
    batch_norm_eps: float = TORCH_EPSILON,
) -> ConvertedArchitecture:
    """`classifier` is the name of the layer whose rows are the classes; the norms of `cnn` are frozen."""
    classes = file.rows_of(f"{classifier}.weight") if file.parts else 0
    frozen = with_changes(cnn, {"norm": "frozen"})
    return ConvertedArchitecture(frozen, (), classes, image, batch_norm_eps=batch_norm_eps)


def classifier_rows(architecture: ConvertedArchitecture, source: str) -> list[Row]:
    """The linear classifier, where there is one."""
    return linear(source, "head/classifier") if architecture.classes else []


def classifier_heads(classifier: str) -> dict[Part, tuple[str, ...]]:
    """The tensors of the only head that a CNN has."""
    return {"classifier": source_names(linear(classifier, ""))}


def torch_family(name: str, *, classifier: str, **fields: object) -> Family:
    """A family whose network is in `torch_cnns`; its config.json is timm's."""

    def config(architecture: ConvertedArchitecture) -> dict[str, Json]:
        return {"architecture": architecture.model.name}

    heads = classifier_heads(classifier)
    return Family(name, prefix="", heads=heads, config=config, in_transformers=False, **fields)


def unit_rows(architecture: ConvertedArchitecture, source: Unit, target: Unit) -> list[Row]:
    """A convolution and its batch norm; `target` is without `image/`."""
    epsilon = architecture.batch_norm_eps
    return convolution_norm(source, (f"image/{target[0]}", f"image/{target[1]}"), epsilon=epsilon)


def inverted_residual_rows(
    architecture: ConvertedArchitecture, stem: Unit, blocks: Iterable[list[Unit]], head: Unit | None
) -> list[Row]:
    """A block has two units or, where it expands, three; a network without a last convolution has no head."""
    units = {"stem": stem}
    for index, block in enumerate(blocks):
        targets = ("expand", "depthwise", "project")[-len(block) :]
        units |= {f"block_{index}/{target}": unit for target, unit in zip(targets, block, strict=True)}
    units |= {"head": head} if head else {}
    rows = []
    for target, unit in units.items():
        rows += unit_rows(architecture, unit, (f"{target}_conv", f"{target}_norm"))
    return rows


def require(config: Mapping[str, Json], expected: Mapping[str, Json]) -> None:
    """`InputError` where a config.json has another value than the only one that can be ported."""
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise InputError(f"config.json says {key} = {config[key]!r}, which is not supported; expected {value!r}")
