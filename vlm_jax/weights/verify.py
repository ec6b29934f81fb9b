"""The proof of a port: our model and the published one on the same input, layer by layer.

The reference is transformers' own model in float64, or for CNNs that transformers does not have, the published network
in plain PyTorch functions (`torch_cnns`). Without torch the files are still compared, and the report says what was not.
"""

import importlib.util
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vlm_jax.config import ImageEncoder
from vlm_jax.data.text import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.weights.export import export, write_export
from vlm_jax.weights.family import table_names
from vlm_jax.weights.ported import ABOUT, Ported, convert, read
from vlm_jax.weights.source import CONFIG, WEIGHTS, Source, Tensors, as_path, open_source
from vlm_jax.weights.tensor_names import renamed, written

BOUND, CNN_BOUND, KL_BOUND = 2e-5, 1e-4, 1e-6
TEXTS = (
    "hello world", "The quick brown fox jumps over the lazy dog.", "What colour is the car, and who's driving it?",
    "it's 4:21 and $1,000.50", "naïve café — déjà vu", "antidisestablishmentarianism", "日本語のテキスト", "שלום עולם",
    "emoji 🙂 and tabs\tand\nlines", "UPPER lower MiXeD", "", "a", "C1=CC=CC=C1", "under_score-hyphen/slash",
    "1234567890" * 5,
)  # fmt: skip


class Check(NamedTuple):
    """One line of a report."""

    name: str
    value: str
    passed: bool


def score(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest entry of the reference where that is above 1."""
    return float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max())))


def verify(name: str, *, strip_prefix: str = "", drop_tensors: str = "") -> Iterator[Check]:
    """The checks of a source or of an import's folder, one after the other.

    `strip_prefix` and `drop_tensors` are those of `tensor_names.renamed`; what they leave is the reference.
    """
    options = {"strip_prefix": strip_prefix, "drop_tensors": drop_tensors}
    with tempfile.TemporaryDirectory() as temporary:
        folder = as_path(name)
        if (folder / ABOUT).is_file():  # its reference is what it exports
            ported, source_folder = read(name, **options), Path(temporary) / "source"
            export(ported, source_folder)
            source = open_source(str(source_folder))
        else:
            source = renamed(open_source(name), **options)
            ported = convert(source)
            if source.changes.lines():
                source = written(source, Path(temporary) / "renamed")
        for line in ported.changes.lines():
            yield Check("tensor names", line, True)
        yield _round_trip(ported, source, Path(temporary) / "again")
        if importlib.util.find_spec("torch") is None:
            yield Check("outputs", "not compared: torch is not installed", True)
            return
        if isinstance(ported.architecture.model, ImageEncoder):
            yield from _compare_cnn(ported, source, Path(temporary) / "model")
        else:
            yield from _compare_encoder(ported, source, Path(temporary) / "model")
            yield _compare_tokenizers(ported, source)


def _round_trip(ported: Ported, source: Source, folder: Path) -> Check:
    """Whether an export holds the tensors that the source holds, bit for bit."""
    write_export(ported, folder)
    back = Tensors([folder / WEIGHTS])
    there, here = table_names(source.tensors, ported.family), table_names(back, ported.family)
    different = sorted(set(there) ^ set(here))
    for name in set(there) & set(here):
        kinds = [(tensor.dtype, tensor.shape) for tensor in (source.tensors[there[name]], back[here[name]])]
        if kinds[0] != kinds[1] or source.tensors.read(there[name]).tobytes() != back.read(here[name]).tobytes():
            different.append(name)
    value = f"{len(there)} tensors bit-equal" if not different else f"differ: {', '.join(different[:5])}"
    return Check("exported again", value, not different)


def _reference(ported: Ported, source: Source, folder: Path) -> Any:
    """transformers' model in float64, from the published files."""
    import torch
    import transformers

    kind = ported.family.transformers_class(ported.architecture)
    folder.mkdir()
    files = {tensor.file for tensor in source.tensors.values()}
    for file in files:
        (folder / (WEIGHTS if len(files) == 1 else file.name)).symlink_to(file.absolute())
    for file in source.folder.glob("*.json"):
        if file.name == CONFIG or file.name.endswith("index.json"):
            shutil.copyfile(file, folder / file.name)
    model, info = getattr(transformers, kind).from_pretrained(
        folder,
        dtype=torch.float64,
        attn_implementation="eager",
        output_loading_info=True,
        local_files_only=True,
        **ported.family.load_options(ported.architecture),
    )
    missing = set(info["missing_keys"])
    for pair in ported.family.aliases.items():  # transformers 5 wants both names of an untied bias, 4 took either
        for here, there in (pair, pair[::-1]):
            if here in missing and there not in missing:
                model.get_parameter(here).data.copy_(model.get_parameter(there).data)
                missing.remove(here)
    if missing := sorted(missing):
        raise InputError(f"transformers' {kind} finds {len(missing)} tensors missing in {source.name}: {missing[:3]}")
    return model.eval()


def _inputs(ported: Ported) -> dict[str, np.ndarray]:
    """Random texts of several lengths, token types and, for VisualBERT, grid features with hidden cells."""
    model, random = ported.architecture.model, np.random.default_rng(0)
    length = min(24, model.text.max_positions - model.text.first_position)
    lengths = np.array([length, max(3, length // 2), 3])
    mask = np.arange(length)[None] < lengths[:, None]
    lowest = model.text.first_position  # RoBERTa's padding id stands below, and its model looks for it
    ids = random.integers(min(lowest, model.text.vocabulary_size - 1), model.text.vocabulary_size, mask.shape)
    ids = np.where(mask, ids, max(model.text.first_position - 1, 0))
    inputs = {"input_ids": ids.astype(np.int32), "text_mask": mask}
    if model.text.segments > 1:
        inputs["segments"] = random.integers(0, model.text.segments, mask.shape).astype(np.int32)
    if ported.architecture.sees:
        inputs["image"] = random.normal(size=(3, 7, model.image.features)).astype(np.float32)
        inputs["image_mask"] = np.arange(7)[None] < np.array([7, 4, 6])[:, None]
    return inputs


def our_outputs(ported: Ported, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every layer and head by name, the words before the image's cells as VisualBERT has them; NaN where padded."""
    module, model = ported.module, ported.architecture.model

    def run(params, inputs):
        wanted = {"norm", *(f"layer_{index}" for index in range(model.layers))}
        return module.apply(
            {"params": params}, **inputs, capture_intermediates=lambda m, _: m.name in wanted, mutable=["intermediates"]
        )

    with jax.default_matmul_precision("highest"):
        output, captured = jax.device_get(jax.jit(run)(ported.params, inputs))
    captured = captured["intermediates"]
    cells = inputs["image"].shape[1] if "image" in inputs else 0
    norms = captured["embed"]["norm"]["__call__"]  # the text's, then the image's
    states = {"embeddings": np.concatenate([x[:, 0] for x in norms], axis=1)}
    for index in range(model.layers):
        whole = captured["trunk"][f"layer_{index}"]["__call__"][0][0][:, 0]
        states[f"layer {index + 1}"] = np.concatenate([whole[:, cells:], whole[:, :cells]], axis=1)
    seen = _seen(inputs)
    if output.words is not None:
        states["masked words"] = np.concatenate([output.words, output.image_words], axis=1)
    states = {name: np.where(seen[:, :, None], x, np.nan) for name, x in states.items()}
    heads = {"pooled": output.pooled, "sentence pairs": output.pairs, "answers": output.answers}
    return states | {name: x for name, x in heads.items() if x is not None}


def _seen(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Words and cells that are no padding, [3, T + G]."""
    return np.concatenate([inputs["text_mask"], inputs.get("image_mask", np.ones((3, 0), bool))], axis=1)


def _their_outputs(
    ported: Ported, source: Source, inputs: dict[str, np.ndarray], folder: Path
) -> dict[str, np.ndarray]:
    import torch

    model = _reference(ported, source, folder)
    given: dict[str, Any] = {
        "input_ids": torch.tensor(inputs["input_ids"]).long(),
        "attention_mask": torch.tensor(inputs["text_mask"]).long(),
    }
    if "segments" in inputs:
        given["token_type_ids"] = torch.tensor(inputs["segments"]).long()
    if "image" in inputs:
        given["visual_embeds"] = torch.tensor(inputs["image"]).double()
        given["visual_attention_mask"] = torch.tensor(inputs["image_mask"]).long()
    with torch.no_grad():
        output = model(**given, output_hidden_states=True, return_dict=True)
    names = ["embeddings", *(f"layer {index + 1}" for index in range(ported.architecture.model.layers))]
    states = dict(zip(names, output.hidden_states, strict=True))
    heads = {
        "pooled": "pooler_output",
        "masked words": "prediction_logits" if "pairs" in ported.architecture.parts else "logits",
        "sentence pairs": "seq_relationship_logits",
        "answers": "logits",
    }
    parts = {"pooled": "pooler", "masked words": "words", "sentence pairs": "pairs", "answers": "answers"}
    for name, attribute in heads.items():
        if parts[name] in ported.architecture.parts and getattr(output, attribute, None) is not None:
            states[name] = getattr(output, attribute)
    return {name: value.numpy() for name, value in states.items()}


def _compare_encoder(ported: Ported, source: Source, folder: Path) -> Iterator[Check]:
    inputs = _inputs(ported)
    ours, theirs = our_outputs(ported, inputs), _their_outputs(ported, source, inputs, folder)
    for name, reference in theirs.items():
        mine = ours[name].reshape(reference.shape)
        shown = _seen(inputs) if reference.ndim == 3 else ...  # NaN anywhere else is a mistake, and fails
        worst = score(mine[shown], reference[shown])
        yield Check(name, f"{worst:.1e}", worst <= BOUND)
    if "masked words" in theirs:
        shown = _seen(inputs)
        divergence = _divergence(theirs["masked words"][shown], ours["masked words"][shown].astype(np.float64))
        yield Check("KL of masked words", f"{divergence:.1e} nats", divergence <= KL_BOUND)


def _divergence(logits: np.ndarray, other: np.ndarray) -> float:
    """The largest Kullback-Leibler divergence KL(p, q) over rows, in nats."""
    log_p, log_q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (logits, other))
    return max(float((np.exp(log_p) * (log_p - log_q)).sum(-1).max()), 0.0)  # in this order NaN stays


def _compare_tokenizers(ported: Ported, source: Source) -> Check:
    if not ported.tokenizer:
        return Check("tokenizer", "none lies beside the weights", True)
    from transformers import AutoTokenizer

    ours = Tokenizer.load(ported.tokenizer[0].parent)
    try:
        theirs = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (ValueError, OSError) as error:  # it needs a model_type that old files do not have
        if not (source.folder / "vocab.txt").is_file():
            return Check("tokenizer", f"transformers cannot read it: {str(error).splitlines()[0]}", False)
        from transformers import BertTokenizer

        theirs = BertTokenizer.from_pretrained(source.folder, local_files_only=True)  # with its settings
    different = [text for text in TEXTS if ours.tokens([text])[0] != theirs.encode(text, add_special_tokens=False)]
    value = f"{len(TEXTS)} texts equal" if not different else f"differs on {different[0]!r}"
    return Check("tokenizer", value, not different)


def _compare_cnn(ported: Ported, source: Source, folder: Path) -> Iterator[Check]:
    import torch

    from vlm_jax.weights.torch_cnns import run_published

    height, width = ported.architecture.input.size
    pixels = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    module = ported.module
    with jax.default_matmul_precision("highest"):
        ours = jax.device_get(jax.jit(lambda params, x: module.apply({"params": params}, x))(ported.params, pixels))
    image = torch.tensor(pixels).permute(0, 3, 1, 2).double()
    if ported.family.transformers_class(ported.architecture):
        model = _reference(ported, source, folder)
        with torch.no_grad():
            encoder = getattr(model, "resnet", model)
            features = encoder(image).pooler_output.flatten(1)
            theirs = (features, model(image).logits if ported.architecture.classes else None)
    else:
        tensors = {name: torch.tensor(source.tensors.read(name)).double() for name in source.tensors}
        with torch.no_grad():
            theirs = run_published(ported.family.name, tensors, image)
    for name, mine, reference in zip(("features", "logits"), ours, theirs, strict=True):
        if mine is not None:
            worst = score(mine, reference.numpy())
            yield Check(name, f"{worst:.1e}", worst <= CNN_BOUND and math.isfinite(worst))
