"""Our parameters as a folder that the matching transformers class loads."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from vlm_jax.config.architecture import Architecture
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import Part
from vlm_jax.settings.changes import with_changes
from vlm_jax.trees import flatten, shortened, unflatten
from vlm_jax.types import Json
from vlm_jax.weights.bert import BERT
from vlm_jax.weights.converted_model import ConvertedModel, Origin
from vlm_jax.weights.family import ConvertedArchitecture, Family
from vlm_jax.weights.settings_files import write_settings_files
from vlm_jax.weights.source import CONFIG, FLOATS, WEIGHTS, new_folder
from vlm_jax.weights.tables import export_tensors

# Of a vision-language model's parameters: BERT's own, the layers of the text without their attention to the image.
TEXT_SIDE = re.compile(r"text/|embed/(norm|text_fc)/|trunk/layer_\d+/(?!cross)|head/pooler/")


def export(converted: ConvertedModel, folder: Path) -> str | None:
    """Write weights, config.json, tokenizer and settings; the transformers class that loads them, if there is one.

    An import that nobody trained goes back bit for bit, in the types that it came in. `InputError` names parameters
    that are NaN or infinite.
    """
    if broken := [path for path, leaf in flatten(converted.params).items() if not np.isfinite(leaf).all()]:
        raise InputError(f"not exported: NaN or infinity in {shortened(broken)}")
    return write_export(converted, folder)


def write_export(converted: ConvertedModel, folder: Path) -> str | None:
    """What `export` writes, whatever the parameters hold: `verify` reports those that are not finite itself."""
    family, architecture = converted.family, converted.architecture
    tensors = export_tensors(flatten(converted.params), converted.source_tensors, family.rows(architecture))
    tensors |= {name: x for name, x in converted.source_tensors.items() if name not in tensors}
    if "decoder" in architecture.parts:  # where the decoder is not tied, transformers wants its bias under both names
        for second, name in family.aliases.items():
            tensors[second] = tensors[name]
            tensors[name] = converted.source_tensors.get(name, tensors[name])  # no output depends on the first
    kind = family.transformers_class(architecture)
    named = {_full_name(name, family, architecture): _typed(name, x, converted) for name, x in tensors.items()}
    new_folder(folder)
    # Not `ascontiguousarray`, which gives a scalar, as counters are, an axis.
    save_file(
        {name: np.asarray(x, order="C") for name, x in named.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    config = _config(converted)
    if converted.labels:  # the family's are made up
        config["id2label"] = converted.config["id2label"]
    if kind:
        config["architectures"] = [kind]
    # transformers 5 loads everything in this type: a short one would round trained tensors that went out as float32.
    types = {x.dtype.name for x in named.values() if x.dtype in FLOATS.values()}
    config["dtype"] = types.pop() if len(types) == 1 else "float32"
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in converted.tokenizer:
        shutil.copyfile(file, folder / file.name)
    write_settings_files(converted.settings_files, folder)
    return kind


def _config(converted: ConvertedModel) -> dict[str, Json]:
    """The source's config.json with what the family must say; of several encoders' settings, those of this one."""
    family = converted.family
    settings, nested = family.config(converted.architecture), family.nested_config
    # Old files have the settings a second time, which would come before what is written here.
    second = {f"{key}_dict" for key in (nested, *family.sides)}
    source = {key: value for key, value in converted.config.items() if key not in second}
    for side in family.sides:
        settings[side] = (source.get(side) or {}) | settings[side]
    own = source.get(nested)
    if isinstance(own, dict) and nested in settings:
        settings |= {nested: own | settings[nested]}
    elif isinstance(own, dict):
        source = own
    return source | {"model_type": family.name} | settings


def _full_name(name: str, family: Family, architecture: ConvertedArchitecture) -> str:
    """With the prefix that models with heads give their encoder."""
    kind = family.transformers_class(architecture)
    without = kind in (None, family.trunk) and not family.prefix_always
    if not family.prefix or without or name.startswith(family.outside):
        return name
    return f"{family.prefix}.{name}"


def _typed(name: str, array: np.ndarray, converted: ConvertedModel) -> np.ndarray:
    """In the type that it came in, where that holds every value."""
    kind = converted.dtypes.get(converted.family.aliases.get(name, name))
    if kind is None:
        return array
    short = array.astype(FLOATS[kind])
    return short if np.array_equal(short.astype(np.float32), array) else array


def text_side(
    settings: Architecture,
    leaves: Mapping[str, np.ndarray],
    origin: Origin,
    tokenizer: tuple[Path, ...],
    *,
    pad_id: int,
) -> ConvertedModel:
    """The text side of a trained vision-language model as a BERT: embeddings, `text_fc` folded in, layers, pooler.

    `leaves` are its parameters by path, the text's layers as `trunk/layer_0` and so on.
    """
    if settings.first_position:
        raise InputError(f"model.layout.first_position is {settings.first_position}; a BERT to be exported has 0")
    if settings.use_qk_norm:
        raise InputError("model.use_qk_norm is true; a BERT to be exported has no norm of queries and keys")
    wanted = {path: leaf for path, leaf in leaves.items() if TEXT_SIDE.match(path)}
    parts: tuple[Part, ...] = ("pooler",) if "head/pooler/kernel" in wanted else ()
    kernel, bias = wanted.pop("embed/text_fc/kernel"), wanted.pop("embed/text_fc/bias")
    segments = max(settings.type_vocab_size, 1)
    wanted |= folded_text(wanted, kernel, bias, segments=segments)
    changes = {"text_feature_size": settings.hidden_size, "type_vocab_size": segments}
    model = with_changes(settings, changes | {"attention_pattern": "bidirectional", "fusion": "concat"})
    architecture, config = ConvertedArchitecture(model, parts, pad_id=pad_id), {"pad_token_id": pad_id}
    return ConvertedModel(BERT, architecture, unflatten(wanted), {}, {}, config, tokenizer, origin)


def folded_text(
    leaves: Mapping[str, np.ndarray], kernel: np.ndarray, bias: np.ndarray, *, segments: int
) -> dict[str, np.ndarray]:
    """The text tables behind `text_fc`: x W + b of a sum is the sum of table rows times W, with b on the segments.

    A `text_fc` that is the identity leaves every bit as it is.
    """
    names = [name for name in ("word", "position", "segment") if f"text/{name}/embedding" in leaves]
    tables = {f"text/{name}/embedding": leaves[f"text/{name}/embedding"] for name in names}
    if np.array_equal(kernel, np.eye(*kernel.shape, dtype=np.float32)) and not bias.any():
        folded = tables
    else:
        wide = kernel.astype(np.float64)
        folded = {path: (table.astype(np.float64) @ wide).astype(np.float32) for path, table in tables.items()}
    if "segment" not in names:
        folded = folded | {"text/segment/embedding": np.zeros((segments, kernel.shape[1]), np.float32)}
    if bias.any():
        folded["text/segment/embedding"] = folded["text/segment/embedding"] + bias[None]
    return folded
