"""A published model in our parameters: read from a source, kept in a folder, run.

A folder of an import holds `port.json` (what it is and where it came from), `port_report.md`, `params/` (Orbax), the
tokenizer, the settings that lay beside the weights, `kept.safetensors` where an export needs tensors that no parameter
stands for, and `digests.json` over all.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from vlm_jax.config import ImageEncoder, ImageInput, Model
from vlm_jax.config_json import from_dict, to_dict
from vlm_jax.errors import InputError
from vlm_jax.integrity import matches_digests, write_digests
from vlm_jax.models.pretrained import ImageClassifier, PretrainedModel
from vlm_jax.trees import compare_trees, flatten, unflatten
from vlm_jax.weights.beside import Beside, read_beside, write_beside
from vlm_jax.weights.families import FAMILIES, family_of
from vlm_jax.weights.family import Architecture, Family, table_names
from vlm_jax.weights.labels import labels_of
from vlm_jax.weights.preprocessor import with_preprocessor
from vlm_jax.weights.report import port_report
from vlm_jax.weights.source import Source, as_path, new_folder, open_source
from vlm_jax.weights.tables import to_ours

ABOUT, PARAMS, KEPT, DIGESTS = "port.json", "params", "kept.safetensors", "digests.json"
REPORT = "port_report.md"


class Origin(NamedTuple):
    """Where weights came from."""

    source: str
    revision: str | None
    sha256: str


@dataclasses.dataclass(frozen=True)
class Ported:
    """A published model, its parameters where `VisualLanguageModel` has them."""

    family: Family
    architecture: Architecture
    params: dict[str, Any]
    kept: dict[str, np.ndarray]
    """Tensors of theirs, by their names, that an export gives back while ours are untouched."""
    dtypes: dict[str, str]
    """The type that each of their tensors had, where it was not float32."""
    config: dict[str, Any]
    """Their config.json."""
    tokenizer: tuple[Path, ...]
    """The tokenizer's files."""
    origin: Origin
    beside: Beside = dataclasses.field(default_factory=dict)
    """Other settings files of theirs: how texts are pooled, how pictures are prepared."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classes of its head mean; none where nobody says it."""
        return labels_of(self.config, self.architecture.classes)

    @property
    def parameter_count(self) -> int:
        """Numbers that came from the source."""
        leaves = flatten(self.params)
        return sum(leaves[path].size for row in self.family.rows(self.architecture) if row.theirs for path in row.ours)

    @property
    def module(self) -> ImageClassifier | PretrainedModel:
        """The Flax module that `params` belong to."""
        return make_module(self.architecture)


def make_module(architecture: Architecture) -> ImageClassifier | PretrainedModel:
    """The module of an architecture, unbound."""
    if isinstance(architecture.model, ImageEncoder):
        return ImageClassifier(architecture.model, architecture.classes)
    return PretrainedModel(architecture.model, architecture.classes, parts=architecture.parts)


def shapes(architecture: Architecture) -> dict[str, jax.ShapeDtypeStruct]:
    """Every parameter of an architecture by path, nothing computed."""
    module = make_module(architecture)
    if isinstance(architecture.model, ImageEncoder):
        inputs, given = (jnp.zeros((1, 64, 64, 3)),), {}
    else:
        inputs = (jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool))
        given = {"image": jnp.zeros((1, 1, architecture.model.image.features))} if architecture.sees else {}
    variables = jax.eval_shape(lambda key: module.init(key, *inputs, **given), jax.random.key(0))
    return flatten(variables["params"])


def read(name: str) -> Ported:
    """The model at a source, or in the folder of an import; `InputError` where anything is amiss."""
    folder = as_path(name)
    if (folder / ABOUT).is_file():
        return read_import(folder)
    return convert(open_source(name))


def convert(source: Source) -> Ported:
    """A source's tensors as our parameters, each used once."""
    family = family_of(source)
    names = table_names(source.tensors, family)
    architecture = family.settings(source.config, names, source.tensors)
    # PyTorch's batch norms count the batches that they saw; nothing is computed from it.
    counters = {name: names.pop(name) for name in list(names) if name.endswith(".num_batches_tracked")}
    params, kept = to_ours(source.tensors, names, family.rows(architecture), shapes(architecture), what=source.name)
    kept |= {name: source.tensors.read(there) for name, there in counters.items()}
    dtypes = {ours: source.tensors[name].dtype for ours, name in names.items() if source.tensors[name].dtype != "F32"}
    origin = Origin(source.name, source.revision, source.sha256)
    files = tuple(source.tokenizer_files())
    beside = read_beside(source.folder)
    labels_of(source.config, architecture.classes)  # refused where they do not fit
    if architecture.input is not None:
        architecture = architecture._replace(input=with_preprocessor(architecture.input, beside))
    return Ported(family, architecture, params, kept, dtypes, source.config, files, origin, beside=beside)


def write_import(ported: Ported, folder: Path) -> None:
    """Write the folder of an import; one that is there already and not empty is refused."""
    import orbax.checkpoint as ocp

    new_folder(folder)
    # Weights do not compress: trying takes twice the memory and three times as long.
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
        checkpointer.save(folder.absolute() / PARAMS, args=ocp.args.PyTreeSave(ported.params))
    family, architecture = ported.family, ported.architecture
    rows, origin = family.rows(architecture), ported.origin._asdict()
    report = port_report(family.name, architecture, rows, ported.params, origin, list(ported.kept))
    (folder / REPORT).write_text(report, encoding="utf-8")
    if ported.kept:
        save_file(ported.kept, folder / KEPT)
    for file in ported.tokenizer:
        shutil.copyfile(file, folder / file.name)
    write_beside(ported.beside, folder)
    about = {
        "family": family.name,
        "kind": "cnn" if isinstance(architecture.model, ImageEncoder) else "transformer",
        "model": to_dict(architecture.model),
        "parts": list(architecture.parts),
        "classes": architecture.classes,
        "input": to_dict(architecture.input) if architecture.input else None,
        "dtypes": ported.dtypes,
        "config": ported.config,
        "tokenizer": [file.name for file in ported.tokenizer],
        "origin": origin,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    write_digests(folder, folder / DIGESTS)


def read_import(folder: Path) -> Ported:
    """What `write_import` wrote; `InputError` where a file is not as it was written."""
    import orbax.checkpoint as ocp

    if not matches_digests(folder, folder / DIGESTS):
        raise InputError(f"{folder} is damaged: a file is not as it was written; import the source again")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        family = FAMILIES[about["family"]]
        kind = ImageEncoder if about["kind"] == "cnn" else Model
        architecture = Architecture(
            from_dict(about["model"], kind),
            tuple(about["parts"]),
            about["classes"],
            from_dict(about["input"], ImageInput) if about["input"] else None,
        )
        origin = Origin(**about["origin"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / ABOUT} cannot be used: {type(error).__name__} {error}") from None
    want = unflatten(shapes(architecture))
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder.absolute() / PARAMS).item_metadata.tree
        compare_trees(saved, want, what=f"parameters in {folder}")
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), want)
        params = checkpointer.restore(folder.absolute() / PARAMS, target)
    kept = load_file(folder / KEPT) if (folder / KEPT).is_file() else {}
    files = tuple(folder / name for name in about["tokenizer"])
    return Ported(
        family, architecture, params, kept, about["dtypes"], about["config"], files, origin, read_beside(folder)
    )
