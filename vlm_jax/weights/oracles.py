"""What `verify` compares with: the class that a file names, in float64. Needs torch, and mostly transformers."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vlm_jax.text_lines import first_line
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.source import CONFIG, WEIGHTS, Source
from vlm_jax.weights.torch_cnns import run_published

HEAD_OUTPUTS = {
    "words": ("masked words", "prediction_logits", "logits"),
    "pairs": ("sentence pairs", "seq_relationship_logits", "sop_logits", "logits"),
    "answers": ("answers", "logits"),
    "sequence": ("text classes", "logits"),
    "tokens": ("token classes", "logits"),
    "replaced": ("replaced tokens", "logits"),
    "spans": ("spans", "start_logits"),
}
"""What `converted_outputs` calls the output of a head, and the attributes that transformers' outputs have for it."""


def load_oracle(
    converted: ConvertedModel, source: Source, name: str, folder: Path
) -> tuple[torch.nn.Module | None, str]:
    """transformers' class `name` from the published files, and what in them does not fit the port, if anything.

    transformers draws tensors at random that a file lacks, or has in another shape. So each of these must be of a head
    that is not ported, and each that it does not know must be left behind.
    """
    import transformers

    family = converted.family
    folder.mkdir()
    files = {tensor.file for tensor in source.tensors.values()}
    for file in files:
        (folder / (WEIGHTS if len(files) == 1 else file.name)).symlink_to(file.absolute())
    for file in source.folder.glob("*.json"):
        if file.name == CONFIG or file.name.endswith("index.json"):
            shutil.copyfile(file, folder / file.name)
    if not (folder / CONFIG).exists():  # an ONNX file has none beside it
        (folder / CONFIG).write_text(json.dumps(source.config), encoding="utf-8")
    options = {"dtype": torch.float64, "attn_implementation": "eager", "local_files_only": True}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    options |= family.load_options(converted.architecture) if name == family.trunk else {}
    try:
        model, info = getattr(transformers, name).from_pretrained(folder, **options)
    except Exception as error:  # settings that the class refuses end in a dozen kinds of errors
        return None, f"cannot load the file: {first_line(error)}"
    missing = {name for name in info["missing_keys"] if not name.endswith(family.unread)}
    for pair in family.aliases.items():  # transformers 5 wants both names of an untied bias, 4 took either
        for missing_name, loaded_name in (pair, pair[::-1]):
            if missing_name in missing and loaded_name not in missing:
                model.get_parameter(missing_name).data.copy_(model.get_parameter(loaded_name).data)
                missing.remove(missing_name)
    shaped = {key for key, *_ in info["mismatched_keys"]}
    return model.eval(), _unlike(converted, name, missing - shaped, shaped, set(info["unexpected_keys"]))


def _unlike(converted: ConvertedModel, name: str, missing: set[str], shaped: set[str], unexpected: set[str]) -> str:
    """Tensors that the class misses, has in another shape, or does not know, though the port computes with them."""
    family, left = converted.family, converted.family.classes[name].left
    converted_heads = {tensor for part in converted.architecture.parts for tensor in family.heads[part]}
    if converted.architecture.classes and "classifier" in family.heads:
        converted_heads |= set(family.heads["classifier"])
    heads = {tensor for tensors in family.heads.values() for tensor in tensors} - converted_heads
    behind = set(converted.published.left_behind)
    kinds = {"finds missing": (missing, heads), "has in another shape": (shaped, heads)}
    problems = []
    for what, (keys, allowed) in (kinds | {"does not know": (unexpected, behind)}).items():
        names = [family.aliases.get(key.removeprefix(f"{family.prefix}."), key) for key in sorted(keys)]
        names = [key.removeprefix(f"{family.prefix}.") for key in names if not key.endswith("position_ids")]
        if wrong := [key for key in names if key not in allowed and not (left and key.startswith(left))]:
            problems.append(f"{what} {', '.join(wrong)}")
    return "; ".join(problems)


def encoder_outputs(
    converted: ConvertedModel, model: torch.nn.Module, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The layers, the pooler and the converted heads of the class, under the names of `converted_outputs`."""
    parts = converted.architecture.parts
    ids, mask = (torch.tensor(inputs[name]).long() for name in ("input_ids", "text_mask"))
    arguments = {"input_ids": ids, "attention_mask": mask}
    if "segments" in inputs:
        arguments["token_type_ids"] = torch.tensor(inputs["segments"]).long()
    if "image" in inputs:
        states, shown = "visual_embeds", "visual_attention_mask"
        if converted.architecture.is_decoder:
            states, shown = "encoder_hidden_states", "encoder_attention_mask"
        arguments[states] = torch.tensor(inputs["image"]).to(model.dtype)
        arguments[shown] = torch.tensor(inputs["image_mask"]).long()
    with torch.no_grad():
        trunk = getattr(model, converted.family.prefix, model)(**arguments, output_hidden_states=True, return_dict=True)
        head_outputs = model(**arguments, return_dict=True) if set(HEAD_OUTPUTS) & set(parts) else None
    names = ["embeddings", *(f"layer {index + 1}" for index in range(converted.architecture.model.num_layers))]
    outputs = dict(zip(names, trunk.hidden_states, strict=True))
    outputs["pooled"] = getattr(trunk, "pooler_output", None) if "pooler" in parts else None
    outputs |= _head_outputs(head_outputs, parts) if head_outputs is not None else {}
    return {name: x.double().numpy() for name, x in outputs.items() if x is not None}


def _head_outputs(outputs: Mapping[str, torch.Tensor], parts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The outputs of the converted heads that a class has, logits of a number a token with an axis for it."""
    named = {}
    for part in set(HEAD_OUTPUTS) & set(parts):
        name, *attributes = HEAD_OUTPUTS[part]
        if logits := [outputs[attribute] for attribute in attributes if attribute in outputs]:
            named[name] = logits[0]
    if "spans" in named:
        named["spans"] = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=-1)
    if "replaced tokens" in named:
        named["replaced tokens"] = named["replaced tokens"][:, :, None]
    return named


def rounded_to_bfloat16(model: torch.nn.Module) -> torch.nn.Module:
    """The model, which computes in bfloat16 from here on."""
    return model.to(torch.bfloat16)


def cnn_outputs(
    converted: ConvertedModel, source: Source, name: str, folder: Path, pixels: np.ndarray
) -> tuple[tuple[np.ndarray | None, np.ndarray | None], str]:
    """Pooled features [B, C] and logits (None without a classifier) of pixels [B, h, w, 3], and what does not fit.

    Both are None where something does not.
    """
    image = torch.tensor(pixels).permute(0, 3, 1, 2).double()
    unlike = ""
    if converted.family.in_transformers:
        model, unlike = load_oracle(converted, source, name, folder)
        if unlike:
            return (None, None), unlike
        with torch.no_grad():
            features = getattr(model, converted.family.prefix, model)(image).pooler_output.flatten(1)
            logits = model(image).logits if converted.architecture.classes else None
    else:
        tensors = {key: torch.tensor(source.tensors.read(key)).double() for key in source.tensors}
        with torch.no_grad():
            features, logits = run_published(converted.family.name, tensors, image)
    return (features.numpy(), None if logits is None else logits.numpy()), unlike
