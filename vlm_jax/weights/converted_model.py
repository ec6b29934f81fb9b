"""A published model in our parameters: read from a source, kept in a folder, run.

A folder of an import holds `port.json` (metadata and origin), `port_report.md`, `params/` (Orbax), the tokenizer and
the
settings beside the weights. `source_tensors.safetensors` has tensors that an export needs and no parameter stands
for. `digests.json` covers all files.
"""

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import PublishedCNN
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.errors import InputError
from vlm_jax.integrity import changes_below, read_manifest, write_digests
from vlm_jax.models.pretrained import ImageClassifier, PretrainedModel
from vlm_jax.settings.changes import group_from_json
from vlm_jax.trees import compare_trees, flatten, unflatten
from vlm_jax.weights.class_detection import Published, class_of, contents_of, require_own_prefix
from vlm_jax.weights.cnn import PUBLISHED
from vlm_jax.weights.families import FAMILIES
from vlm_jax.weights.family import ConvertedArchitecture, Family, is_untied, table_names, unused_biases
from vlm_jax.weights.labels import labels_of
from vlm_jax.weights.preprocessor import with_preprocessor
from vlm_jax.weights.report import class_lines, port_report
from vlm_jax.weights.settings_files import SettingsFiles, read_settings_files, write_settings_files
from vlm_jax.weights.source import NO_CHANGES, Changes, Source, as_path, new_folder, open_source
from vlm_jax.weights.tables import convert_tensors, trunk_names
from vlm_jax.weights.tensor_names import drop_warnings, refuse_adapters, renamed

ABOUT, PARAMS, SOURCE_TENSORS, DIGESTS = "port.json", "params", "source_tensors.safetensors", "digests.json"
REPORT = "port_report.md"


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
    params: dict[str, Any]
    source_tensors: dict[str, np.ndarray]
    """Tensors of theirs, by their names, that an export gives back while ours are untouched."""
    dtypes: dict[str, str]
    """The type that each of their tensors had, where it was not float32."""
    config: dict[str, Any]
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

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classes of its head mean; none where nobody says it."""
        return labels_of(self.config, self.architecture.classes)

    @property
    def class_lines(self) -> list[str]:
        """What `import`, `verify` and the report say of the class; nothing of the text side of a run."""
        return class_lines(self.published, self.family.class_of(self.architecture)) if self.published else []

    @property
    def parameter_count(self) -> int:
        """Numbers that came from the source."""
        leaves = flatten(self.params)
        return sum(leaves[path].size for row in self.family.rows(self.architecture) for path in row.target)

    @property
    def module(self) -> ImageClassifier | PretrainedModel:
        """The Flax module that `params` belong to."""
        return make_module(self.architecture)


def make_module(architecture: ConvertedArchitecture) -> ImageClassifier | PretrainedModel:
    """The module of an architecture, unbound."""
    if isinstance(architecture.model, PublishedCNN):
        return ImageClassifier(architecture.model, architecture.classes)
    return PretrainedModel(
        architecture.model, architecture.classes, parts=architecture.parts, pad_id=architecture.pad_id
    )


@cache
def shapes(architecture: ConvertedArchitecture) -> dict[str, jax.ShapeDtypeStruct]:
    """Every parameter of an architecture by path, nothing computed."""
    module = make_module(architecture)
    if isinstance(architecture.model, PublishedCNN):
        inputs, keywords = (jnp.zeros((1, 64, 64, 3)),), {}
    else:
        inputs = (jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool))
        keywords = {"image": jnp.zeros((1, 1, architecture.model.image.feature_size))} if architecture.sees else {}
    variables = jax.eval_shape(lambda key: module.init(key, *inputs, **keywords), jax.random.key(0))
    return flatten(variables["params"])


def read(name: str, *, strip_prefix: str = "", drop_tensors: str = "", class_name: str | None = None) -> ConvertedModel:
    """The model at a source, or in the folder of an import; `InputError` where anything is amiss.

    `strip_prefix` and `drop_tensors` are those of `tensor_names.renamed`; `class_name` is for a source that does not
    say what it is.
    """
    folder = as_path(name)
    if (folder / ABOUT).is_file():
        if strip_prefix or drop_tensors or class_name:
            raise InputError(
                f"{name} is the folder of an import, whose class and names are settled; give --architecture, "
                "--strip-prefix and --drop-tensors with its source"
            )
        return read_import(folder)
    source = renamed(open_source(name), strip_prefix=strip_prefix, drop_tensors=drop_tensors)
    return convert(source, class_name=class_name)


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
    architecture = family.settings(source.config, names, source.tensors, named.name, parts)
    # PyTorch's batch norms count the batches that they saw; nothing is computed from it.
    counters = {name: names.pop(name) for name in list(names) if name.endswith(".num_batches_tracked")}
    rows = family.rows(architecture)
    params, source_tensors = convert_tensors(source.tensors, names, rows, shapes(architecture), what=source.name)
    source_tensors |= {name: source.tensors.read(file_name) for name, file_name in (counters | unused).items()}
    dtypes = {
        table_name: source.tensors[name].dtype
        for table_name, name in names.items()
        if source.tensors[name].dtype != "F32"
    }
    origin = Origin(source.name, source.revision, source.sha256)
    files = tuple(source.tokenizer_files())
    warnings = drop_warnings(source.changes.dropped, trunk_names(rows), family.prefix)
    changes = source.changes._replace(warnings=warnings)
    settings_files = read_settings_files(source.folder)
    labels_of(source.config, architecture.classes)  # refused where they do not fit
    if architecture.input is not None:
        architecture = architecture._replace(input=with_preprocessor(architecture.input, settings_files))
    return ConvertedModel(
        family,
        architecture,
        params,
        source_tensors,
        dtypes,
        source.config,
        files,
        origin,
        published,
        changes,
        settings_files,
    )


def write_import(converted: ConvertedModel, folder: Path) -> None:
    """Write the folder of an import; one that is there already and not empty is refused."""
    import orbax.checkpoint as ocp

    new_folder(folder)
    # Weights do not compress: trying takes twice the memory and three times as long.
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
        checkpointer.save(folder.absolute() / PARAMS, args=ocp.args.PyTreeSave(converted.params))
    family, architecture = converted.family, converted.architecture
    rows, origin = family.rows(architecture), converted.origin._asdict()
    report = port_report(
        family.name,
        architecture,
        rows,
        converted.params,
        origin,
        list(converted.source_tensors),
        converted.class_lines,
        converted.changes,
    )
    (folder / REPORT).write_text(report, encoding="utf-8")
    if converted.source_tensors:
        save_file(converted.source_tensors, folder / SOURCE_TENSORS)
    for file in converted.tokenizer:
        shutil.copyfile(file, folder / file.name)
    write_settings_files(converted.settings_files, folder)
    about = {
        "family": family.name,
        "network": architecture.model.name if isinstance(architecture.model, PublishedCNN) else None,
        "model": architecture.model.model_dump(mode="json"),
        "parts": list(architecture.parts),
        "classes": architecture.classes,
        "input": architecture.input.model_dump(mode="json") if architecture.input else None,
        "pad_id": architecture.pad_id,
        "dtypes": converted.dtypes,
        "config": converted.config,
        "tokenizer": [file.name for file in converted.tokenizer],
        "origin": origin,
        "published": converted.published._asdict() if converted.published else None,
        "changes": converted.changes._asdict(),
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    write_digests(folder, folder / DIGESTS)


def read_import(folder: Path) -> ConvertedModel:
    """What `write_import` wrote; `InputError` where a file is not as it was written."""
    again = "import again"
    try:
        listed = read_manifest(folder / DIGESTS)["files"]
    except InputError as error:
        raise InputError(f"{folder} is damaged: {error}; {again}") from None
    if (changed := next(changes_below(folder, listed), None)) is not None:
        raise InputError(f"{folder} is damaged: {changed}; {again}")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        family = FAMILIES[about["family"]]
        kind = type(PUBLISHED[about["network"]]) if about["network"] else Architecture
        architecture = ConvertedArchitecture(
            group_from_json(json.dumps(about["model"]), kind),
            tuple(about["parts"]),
            about["classes"],
            group_from_json(json.dumps(about["input"]), ImageInput) if about["input"] else None,
            about["pad_id"],
        )
        origin = Origin(**about["origin"])
        published, changes = Published(**_tuples(about["published"])), Changes(**_tuples(about["changes"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / ABOUT} cannot be used: {type(error).__name__} {error}; {again}") from None
    try:
        params = _restore(folder, shapes(architecture))
    except InputError as error:
        raise InputError(f"{error}; {again}") from None
    source_tensors = load_file(folder / SOURCE_TENSORS) if SOURCE_TENSORS in listed else {}
    files = tuple(folder / name for name in about["tokenizer"])
    return ConvertedModel(
        family,
        architecture,
        params,
        source_tensors,
        about["dtypes"],
        about["config"],
        files,
        origin,
        published,
        changes,
        read_settings_files(folder),
    )


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    """A record of JSON with its lists as they were before."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}


def _restore(folder: Path, want: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Any]:
    """The parameters of an import."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder.absolute() / PARAMS).item_metadata.tree
        compare_trees(saved, unflatten(want), what=f"parameters in {folder}")
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), unflatten(want))
        return checkpointer.restore(folder.absolute() / PARAMS, target)
