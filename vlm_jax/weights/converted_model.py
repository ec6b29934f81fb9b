"""A published model in our parameters."""

import dataclasses
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vlm_jax.config.encoders import PublishedCNN, VisionTransformer
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import ImageClassifier, Module, PretrainedModel
from vlm_jax.models.vit_heads import PretrainedImageTransformer
from vlm_jax.settings.changes import with_changes
from vlm_jax.trees import flatten
from vlm_jax.types import Json, Parameters
from vlm_jax.weights.class_detection import OPTION, Published, class_of, contents_of, require_own_prefix
from vlm_jax.weights.families import KINDS
from vlm_jax.weights.family import (
    ConvertedArchitecture,
    Family,
    PublishedFile,
    is_untied,
    labels_of,
    table_names,
    unused_biases,
)
from vlm_jax.weights.preprocessor import read_preprocessor
from vlm_jax.weights.settings_files import SettingsFiles, read_settings_files
from vlm_jax.weights.source import FLOATS, NO_CHANGES, Changes, Source
from vlm_jax.weights.tables import convert_tensors, trunk_names
from vlm_jax.weights.tensor_names import drop_warnings, refuse_adapters


class Origin(NamedTuple):
    """Where weights came from."""

    source: str
    revision: str | None
    sha256: str


@dataclasses.dataclass(frozen=True)
class ConvertedModel:
    """A published model, its parameters where `VisualLanguageModel` has them."""

    family: Family
    architecture: ConvertedArchitecture
    params: Parameters
    source_tensors: dict[str, np.ndarray]
    """Tensors of theirs, by their names, that an export gives back while ours are untouched."""
    dtypes: dict[str, str]
    """The type that each of their tensors had, where it was not float32."""
    config: dict[str, Json]
    """Their config.json."""
    tokenizer: tuple[Path, ...]
    """The tokenizer's files."""
    origin: Origin
    published: Published | None = None
    """None for what no file was, as the text side of a run."""
    changes: Changes = NO_CHANGES
    """What was done to the names of the source's tensors."""
    settings_files: SettingsFiles = dataclasses.field(default_factory=dict)
    """Other settings files of theirs: how texts are pooled, how images are prepared."""
    dtype: str | None = None
    """The type that `module` computes in; None for float32."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classes of its head mean; none where nobody says it."""
        return labels_of(self.config, self.architecture.classes)

    @property
    def class_lines(self) -> list[str]:
        """What `import`, `verify` and the report say of the class; nothing of the text side of a run."""
        if (published := self.published) is None:
            return []
        lines = [f"class: {published.name} ({published.evidence})"]
        if published.missing:
            lines.append(f"missing tensors of {published.name}: {', '.join(published.missing)}")
        if published.left_behind:
            lines.append(f"left behind: {published.left_names}")
        if published.larger:
            lines.append(f"to take them as well: {OPTION} {' or '.join(published.larger)}")
        exported = self.family.class_of(self.architecture)
        return lines if exported == published.name else [*lines, f"ported as: {exported}"]

    @property
    def parameter_count(self) -> int:
        """Numbers that came from the source."""
        leaves = flatten(self.params)
        return sum(leaves[path].size for row in self.family.rows(self.architecture) for path in row.target)

    @property
    def module(self) -> Module:
        """The Flax module that `params` belong to."""
        return make_module(self.architecture, self.dtype)

    @property
    def image_side(self) -> "ConvertedModel":
        """The image side of a model of images and texts, as an image encoder; any other model is itself."""
        if self.family.kind is None:
            return self
        architecture, params = self.family.kind.image_side(self.architecture, self.params)
        return dataclasses.replace(self, architecture=architecture, params=params)


def make_module(architecture: ConvertedArchitecture, dtype: str | None = None) -> Module:
    """The module of an architecture, unbound; it computes in `dtype`, where one is given."""
    if architecture.is_image_text:
        return KINDS[type(architecture.model)].module(architecture, dtype or "float32")
    if isinstance(architecture.model, PublishedCNN):
        return ImageClassifier(architecture.model, architecture.classes, dtype or "float32", architecture.pooling)
    if isinstance(architecture.model, VisionTransformer):
        settings = architecture._asdict()
        heads = {name: settings[name] for name in ("parts", "pooling", "classes", "projection_size")}
        return PretrainedImageTransformer(architecture.model, **heads, dtype=dtype or "float32")
    settings = with_changes(architecture.model, {"dtype": dtype}) if dtype else architecture.model
    shared = {name: getattr(architecture, name) for name in ("parts", "pad_id", "sequence_act", "head_dropout")}
    return PretrainedModel(settings, architecture.classes, **shared)


@cache
def shapes(architecture: ConvertedArchitecture) -> dict[str, jax.ShapeDtypeStruct]:
    """Every parameter of an architecture by path, nothing computed.

    Of layers that are alike two are traced, which takes most of the time of a port; the others are as the second one.
    """
    model = architecture.model
    count = 0 if getattr(model, "num_hidden_groups", 0) else getattr(model, "num_layers", 0)
    if count <= 2:
        return _traced_shapes(architecture)
    leaves = _traced_shapes(architecture._replace(model=with_changes(model, {"num_layers": 2})))
    alike = {path: leaf for path, leaf in leaves.items() if "/layer_1/" in path}
    numbers = range(2, count)
    return leaves | {path.replace("/layer_1/", f"/layer_{n}/"): leaf for n in numbers for path, leaf in alike.items()}


def _traced_shapes(architecture: ConvertedArchitecture) -> dict[str, jax.ShapeDtypeStruct]:
    module = make_module(architecture)
    if architecture.is_image_text:
        inputs, keywords = (), jax.tree.map(jnp.asarray, KINDS[type(architecture.model)].inputs(architecture))
    elif architecture.is_image_encoder:
        size = getattr(architecture.model, "image_size", (64, 64))
        inputs, keywords = (jnp.zeros((1, *size, 3)),), {}
    else:
        inputs = (jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool))
        keywords = {"image": jnp.zeros((1, 1, size))} if (size := architecture.image_size) else {}
    variables = jax.eval_shape(lambda key: module.init(key, *inputs, **keywords), jax.random.key(0))
    return flatten(variables["params"])


def _input(family: Family, published: ImageInput, settings: SettingsFiles) -> ImageInput:
    """How images are prepared: as the files say, else as it was published.

    transformers' processors floor the corner of a cut. A network that transformers lacks keeps its publisher's corner.
    """
    prepared = read_preprocessor(settings)
    if prepared is None:
        return published
    corner = getattr(published.resize, "corner", None)
    if family.in_transformers or corner is None or not hasattr(prepared.resize, "corner"):
        return prepared
    return with_changes(prepared, {"resize.corner": corner})


def _check_size(architecture: ConvertedArchitecture, source: Source) -> None:
    """`InputError` where patches do not divide the images that the model wants."""
    try:
        architecture.model.grid_size(architecture.input.size)
    except ValueError as error:
        raise InputError(f"{source.name}: {error}") from None


def convert(source: Source, *, class_name: str | None = None) -> ConvertedModel:
    """A source's tensors as our parameters, each used once."""
    refuse_adapters(source)
    named = class_of(source, class_name)
    require_own_prefix(source)
    family, untied = named.family, is_untied(source.config)
    names = table_names(source.tensors, family, untied=untied)
    parts, published = contents_of(named, names, untied=untied)
    names = {table_name: name for table_name, name in names.items() if table_name not in published.left_behind}
    unused = unused_biases(source.tensors, family, names)
    architecture = family.settings(PublishedFile(source.config, names, source.tensors, named.name, parts))
    dtypes = {table_name: source.tensors[name].dtype for table_name, name in names.items()}
    dtypes = {table_name: dtype for table_name, dtype in dtypes.items() if dtype != "F32" and dtype in FLOATS}
    unread = {name: names.pop(name) for name in list(names) if name.endswith(family.unread)}
    rows = family.rows(architecture)
    params, source_tensors = convert_tensors(source.tensors, names, rows, shapes(architecture), what=source.name)
    source_tensors |= {name: source.tensors.read(file_name) for name, file_name in (unread | unused).items()}
    origin = Origin(source.name, source.revision, source.sha256)
    files = tuple(source.tokenizer_files())
    warnings = drop_warnings(source.changes.dropped, trunk_names(rows), family.prefix)
    changes = source.changes._replace(warnings=warnings)
    settings = read_settings_files(source.folder)
    labels_of(source.config, architecture.classes)  # refused where they do not fit
    if architecture.input is not None:
        architecture = architecture._replace(input=_input(family, architecture.input, settings))
        if isinstance(architecture.model, VisionTransformer):
            _check_size(architecture, source)
    return ConvertedModel(
        family, architecture, params, source_tensors, dtypes, source.config, files, origin, published, changes, settings
    )
