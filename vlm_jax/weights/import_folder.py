"""The folder of an import: a published model in our parameters, with everything that an export needs.

It holds `port.json` (metadata and origin), `port_report.md`, `params/` (Orbax), the tokenizer and the settings beside
the weights. `source_tensors.safetensors` has tensors that an export needs and no parameter stands for. `digests.json`
covers all files.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import PixelEncoder
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.errors import InputError
from vlm_jax.integrity import changes_below, read_manifest, write_digests
from vlm_jax.models.pretrained import HeadDropout
from vlm_jax.settings.changes import group_from_json
from vlm_jax.settings.groups import members
from vlm_jax.trees import compare_trees, unflatten
from vlm_jax.types import Json, Parameters
from vlm_jax.weights.class_detection import Published
from vlm_jax.weights.converted_model import ConvertedModel, Origin, convert, shapes
from vlm_jax.weights.families import FAMILIES
from vlm_jax.weights.family import ConvertedArchitecture
from vlm_jax.weights.report import port_report
from vlm_jax.weights.settings_files import read_settings_files, write_settings_files
from vlm_jax.weights.source import Changes, as_path, new_folder, open_source
from vlm_jax.weights.tensor_names import renamed

ABOUT, PARAMS, SOURCE_TENSORS, DIGESTS = "port.json", "params", "source_tensors.safetensors", "digests.json"
REPORT = "port_report.md"


def read(name: str, *, strip_prefix: str = "", drop_tensors: str = "", class_name: str | None = None) -> ConvertedModel:
    """The model at a source, or in the folder of an import; `InputError` where anything is amiss.

    `strip_prefix` and `drop_tensors` are those of `tensor_names.renamed`; `class_name` is for a source that does not
    say what it is.
    """
    folder = as_path(name)
    if (folder / ABOUT).is_file():
        if strip_prefix or drop_tensors or class_name:
            options = "--architecture, --strip-prefix and --drop-tensors"
            raise InputError(f"{name} is the folder of an import; give {options} with its source")
        return read_import(folder)
    source = renamed(open_source(name), strip_prefix=strip_prefix, drop_tensors=drop_tensors)
    return convert(source, class_name=class_name)


def write_import(converted: ConvertedModel, folder: Path) -> None:
    """Write the folder of an import; one that is there already and not empty is refused."""
    import orbax.checkpoint as ocp

    new_folder(folder)
    # Weights do not compress: trying takes twice the memory and three times as long.
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
        checkpointer.save(folder.absolute() / PARAMS, args=ocp.args.PyTreeSave(converted.params))
    family, architecture = converted.family, converted.architecture
    (folder / REPORT).write_text(port_report(converted), encoding="utf-8")
    if converted.source_tensors:
        save_file(converted.source_tensors, folder / SOURCE_TENSORS)
    for file in converted.tokenizer:
        shutil.copyfile(file, folder / file.name)
    write_settings_files(converted.settings_files, folder)
    about = {
        "family": family.name,
        "network": architecture.model.name if architecture.is_image_encoder else None,
        "model": architecture.model.model_dump(mode="json"),
        "parts": list(architecture.parts),
        "classes": architecture.classes,
        "input": architecture.input.model_dump(mode="json") if architecture.input else None,
        "pad_id": architecture.pad_id,
        "pooling": architecture.pooling,
        "projection_size": architecture.projection_size,
        "sequence_act": architecture.sequence_act,
        "batch_norm_eps": architecture.batch_norm_eps,
        "head_dropout": architecture.head_dropout._asdict(),
        "dtypes": converted.dtypes,
        "config": converted.config,
        "tokenizer": [file.name for file in converted.tokenizer],
        "origin": converted.origin._asdict(),
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
        if family.kind:
            kind = family.kind.settings
        else:
            kinds = {encoder.model_fields["kind"].default: encoder for encoder in members(PixelEncoder)}
            kind = kinds[about["model"]["kind"]] if about["network"] else Architecture
        architecture = ConvertedArchitecture(
            group_from_json(json.dumps(about["model"]), kind),
            tuple(about["parts"]),
            about["classes"],
            group_from_json(json.dumps(about["input"]), ImageInput) if about["input"] else None,
            about["pad_id"],
            about["pooling"],
            about["projection_size"],
            about["sequence_act"],
            about["batch_norm_eps"],
            HeadDropout(**about["head_dropout"]),
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
    dtypes, config, settings = about["dtypes"], about["config"], read_settings_files(folder)
    return ConvertedModel(
        family, architecture, params, source_tensors, dtypes, config, files, origin, published, changes, settings
    )


def _tuples(record: dict[str, Json]) -> dict[str, Json | tuple]:
    """A record of JSON with its lists as they were before."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}


def _restore(folder: Path, want: dict[str, jax.ShapeDtypeStruct]) -> Parameters:
    """The parameters of an import."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder.absolute() / PARAMS).item_metadata.tree
        compare_trees(saved, unflatten(want), what=f"parameters in {folder}")
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), unflatten(want))
        return checkpointer.restore(folder.absolute() / PARAMS, target)
