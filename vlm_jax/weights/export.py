"""Our parameters as a folder that the matching transformers class loads."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from vlm_jax.config import Model
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import Part
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights.bert import BERT
from vlm_jax.weights.family import Architecture, Family
from vlm_jax.weights.ported import Origin, Ported
from vlm_jax.weights.source import CONFIG, WEIGHTS
from vlm_jax.weights.tables import to_theirs

DTYPES = {"F16": np.dtype("float16"), "BF16": np.dtype(ml_dtypes.bfloat16)}


def export(ported: Ported, folder: Path) -> str | None:
    """Write config.json, model.safetensors and the tokenizer; the transformers class that loads them, if there is one.

    An import that nobody trained goes back bit for bit, in the types that it came in.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; give another --output")
    family, architecture = ported.family, ported.architecture
    tensors = to_theirs(flatten(ported.params), ported.kept, family.rows(architecture))
    tensors |= {name: x for name, x in ported.kept.items() if name not in tensors}
    if "decoder" in architecture.parts:  # where the decoder is not tied, transformers wants its bias under both names
        tensors |= {second: tensors[name] for second, name in family.aliases.items()}
    kind = family.transformers_class(architecture)
    named = {_full_name(name, family, architecture): _typed(name, x, ported) for name, x in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # Not `ascontiguousarray`, which gives a scalar, as counters are, an axis.
    save_file(
        {name: np.asarray(x, order="C") for name, x in named.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    types = set(ported.dtypes.values())
    config = ported.config | family.config(architecture) | {"model_type": family.name}
    if kind:
        config["architectures"] = [kind]
    config["dtype"] = {frozenset({"F16"}): "float16", frozenset({"BF16"}): "bfloat16"}.get(frozenset(types), "float32")
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in ported.tokenizer:
        shutil.copyfile(file, folder / file.name)
    return kind


def _full_name(name: str, family: Family, architecture: Architecture) -> str:
    """With the prefix that models with heads give their encoder."""
    kind = family.transformers_class(architecture) or ""
    if not family.prefix or "For" not in kind or name.startswith(family.outside):
        return name
    return f"{family.prefix}.{name}"


def _typed(name: str, array: np.ndarray, ported: Ported) -> np.ndarray:
    """In the type that it came in, where that holds every value."""
    dtype = DTYPES.get(ported.dtypes.get(ported.family.aliases.get(name, name), ""))
    if dtype is None:
        return array
    short = array.astype(dtype)
    return short if np.array_equal(short.astype(np.float32), array) else array


def text_side(
    settings: Model,
    params: Mapping[str, Any],
    *,
    source: str,
    sha256: str,
    tokenizer: tuple[Path, ...],
    special: Mapping[str, int],
) -> Ported:
    """The text side of a trained vision-language model as a BERT: embeddings, `text_fc` folded in, layers, pooler.

    `special` are settings of config.json such as `pad_token_id`.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    places = text_layers(settings)
    wanted = {path: leaf for path, leaf in leaves.items() if path.startswith("text/")}
    wanted |= {path: leaves[path] for path in ("embed/norm/scale", "embed/norm/bias")}
    for index, place in enumerate(places):
        inside = {path.removeprefix(f"{place}/"): leaf for path, leaf in leaves.items() if path.startswith(f"{place}/")}
        wanted |= {f"trunk/layer_{index}/{path}": leaf for path, leaf in inside.items() if "cross" not in path}
    parts: tuple[Part, ...] = ()
    if "head/pooler/kernel" in leaves:
        parts = ("pooler",)
        wanted |= {path: leaves[path] for path in ("head/pooler/kernel", "head/pooler/bias")}
    kernel, bias = leaves["embed/text_fc/kernel"], leaves["embed/text_fc/bias"]
    text = dataclasses.replace(settings.text, width=settings.width, segments=max(settings.text.segments, 1))
    wanted |= folded_text(wanted, kernel, bias, segments=text.segments)
    wanted["embed/text_fc/kernel"] = np.eye(settings.width, dtype=np.float32)
    wanted["embed/text_fc/bias"] = np.zeros_like(bias)
    if settings.text.first_position:
        raise InputError(
            f"model.text.first_position is {settings.text.first_position}: BERT's positions begin at 0, so this text "
            "side cannot be exported as a BERT"
        )
    model = dataclasses.replace(settings, text=text, pattern="bidirectional")
    origin = Origin(source, None, sha256)
    return Ported(BERT, Architecture(model, parts), unflatten(wanted), {}, {}, dict(special), tokenizer, origin)


def text_layers(settings: Model) -> list[str]:
    """The path of each of the trunk's layers that the text goes through, first to last."""
    name = {"concat": "layer_{}", "cross": "text_layer_{}", "late": "text_layer_{}", "co_attention": "layer_{}/text"}
    return [f"trunk/{name[settings.fusion].format(index)}" for index in range(settings.layers)]


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
