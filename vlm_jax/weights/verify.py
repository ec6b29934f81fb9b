"""The proof of a port: our model and the published one on the same input, layer by layer.

The reference is the class of transformers that the file names, in float64; for CNNs that transformers does not have, it
is the published network in plain PyTorch functions (`torch_cnns`). What could not be compared is named, and is no PASS.
"""

import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from vlm_jax.config.encoders import PublishedCNN, VisionTransformer
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained import ImageClassifier, PretrainedModel
from vlm_jax.models.text_trunk import group_of
from vlm_jax.text_lines import first_line
from vlm_jax.weights.checks import BOUND, KL_BOUND, Check, comparison, not_installed, score
from vlm_jax.weights.converted_model import ConvertedModel, make_module
from vlm_jax.weights.export import write_export
from vlm_jax.weights.family import Names, is_untied, table_names, unused_biases
from vlm_jax.weights.image_proof import compare_image_transformer
from vlm_jax.weights.image_text_proof import compare_image_text
from vlm_jax.weights.proof_subject import ProofSubject, proof_subject
from vlm_jax.weights.source import WEIGHTS, Source, Tensors, open_source

if TYPE_CHECKING:
    import transformers

TEXTS = (
    "hello world", "The quick brown fox jumps over the lazy dog.", "What colour is the car, and who's driving it?",
    "it's 4:21 and $1,000.50", "naïve café — déjà vu", "antidisestablishmentarianism", "日本語のテキスト",
    "שלום עולם",
    "emoji 🙂 and tabs\tand\nlines", "UPPER lower MiXeD", "", "a", "C1=CC=CC=C1", "under_score-hyphen/slash",
    "1234567890" * 5,
)  # fmt: skip


OUTPUTS = {
    "pooler": "pooled", "words": "masked words", "pairs": "sentence pairs", "answers": "answers",
    "classifier": "logits", "attention_pooler": "pooled", "projection": "projected", "distilled_classifiers": "logits",
    "sequence": "text classes", "tokens": "token classes", "spans": "spans", "replaced": "replaced tokens",
}  # fmt: skip


def verify(
    name: str, *, strip_prefix: str = "", drop_tensors: str = "", class_name: str | None = None
) -> Iterator[Check]:
    """The checks of a source or of an import's folder, one after the other.

    The options are those of `read`; what they leave is the reference.
    """
    options = {"strip_prefix": strip_prefix, "drop_tensors": drop_tensors, "class_name": class_name}
    with proof_subject(name, **options) as subject:
        yield from described(subject)
        yield _round_trip(subject.converted, subject.source, subject.folder / "again")
        yield from _compare_outputs(subject.converted, subject.source, subject.oracle, subject.folder / "model")
        yield from _absent(subject.converted)


def verify_export(converted: ConvertedModel, folder: Path) -> Iterator[Check]:
    """The checks of an export: the parameters in memory beside the class that loads the folder, and the tokenizers."""
    with tempfile.TemporaryDirectory() as temporary:
        oracle = converted.family.class_of(converted.architecture)
        yield from _compare_outputs(converted, open_source(str(folder)), oracle, Path(temporary) / "model")


def described(subject: ProofSubject) -> Iterator[Check]:
    """The class, what was done to names, and what the port is compared with."""
    converted = subject.converted
    for line in converted.class_lines:
        key, _, value = line.partition(": ")
        yield Check(key, value, "note")
    for line in converted.changes.lines():
        yield Check("tensor names", line, "not compared" if line.startswith("warning: ") else "note")
    where = "transformers'" if converted.family.in_transformers else "torch_cnns', in plain PyTorch functions:"
    yield Check("compared with", f"{where} {subject.oracle}", "note")


def _round_trip(converted: ConvertedModel, source: Source, folder: Path) -> Check:
    """Whether an export holds the tensors that the source holds, bit for bit, but for what was left behind."""
    write_export(converted, folder)
    back = Tensors([folder / WEIGHTS])
    left = converted.published.left_behind
    source_names, export_names = _all_names(source.tensors, converted, left), _all_names(back, converted)
    different = sorted(set(source_names) ^ set(export_names))
    for name in set(source_names) & set(export_names):
        if _content(source.tensors, source_names[name]) != _content(back, export_names[name]):
            different.append(name)
    value = f"{len(source_names)} tensors bit-equal" if not different else f"differ: {', '.join(different[:5])}"
    return comparison("exported again", value, not different)


def _content(tensors: Tensors, name: str) -> tuple[str, tuple[int, ...], bytes]:
    return tensors[name].dtype, tensors[name].shape, tensors.read(name).tobytes()


def _all_names(tensors: Tensors, converted: ConvertedModel, left: tuple[str, ...] = ()) -> Names:
    """The table's names of a file's tensors and the file's, biases that nothing depends on included."""
    untied = is_untied(converted.config)
    names = table_names(tensors, converted.family, untied=untied)
    names = {table_name: name for table_name, name in names.items() if table_name not in left}
    unused = unused_biases(tensors, converted.family, names)
    return names | {f"{table_name}, unused": name for table_name, name in unused.items()}


def _absent(converted: ConvertedModel) -> Iterator[Check]:
    """Outputs of the class that the port does not have: its file lacks tensors of theirs, or they were left behind."""
    published, family = converted.published, converted.family
    known = family.classes[published.name]
    present = {*converted.architecture.parts, *(("classifier",) if converted.architecture.classes else ())}
    for part in known.parts:
        lacks = [name for name in family.tensors_of(part, untied=True) if name in published.missing]
        if lacks:
            yield Check(OUTPUTS[part], f"the file lacks {', '.join(lacks)}", "not compared")
        elif part not in present:
            yield Check(OUTPUTS[part], "left behind", "not compared")
    if known.left:
        yield Check("its head", f"left behind: {published.left_names}", "not compared")


def _compare_outputs(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    """Every output of the port with the oracle's, and its tokenizer with transformers'."""
    needed = ("torch", "transformers") if converted.family.in_transformers else ("torch",)
    if why := not_installed(*needed):
        yield Check("outputs", why, "not compared")
    elif converted.family.kind:
        yield from compare_image_text(converted, source, oracle, folder)
    elif isinstance(converted.architecture.model, VisionTransformer):
        yield from compare_image_transformer(converted, source, oracle, folder)
    elif isinstance(converted.architecture.model, PublishedCNN):
        yield from _compare_cnn(converted, source, oracle, folder)
    else:
        yield from _compare_encoder(converted, source, oracle, folder)
    if not converted.architecture.is_image_encoder:
        yield _compare_tokenizers(converted, source)


def _inputs(converted: ConvertedModel) -> dict[str, np.ndarray]:
    """Random texts of several lengths, token types and, where it takes them, grid features or an encoder's states."""
    model, random = converted.architecture.model, np.random.default_rng(0)
    length = 160 if model.relative_attention_num_buckets else 24  # beyond the last bucket of a relative bias
    length = min(length, model.max_position_embeddings - model.first_position)
    lengths = np.array([length, max(3, length // 2), 3])
    mask = np.arange(length)[None] < lengths[:, None]
    lowest = model.first_position  # RoBERTa's padding id stands below, and its model looks for it
    ids = random.integers(min(lowest, model.vocab_size - 1), model.vocab_size, mask.shape)
    ids = np.where(mask, ids, max(model.first_position - 1, 0))
    inputs = {"input_ids": ids.astype(np.int32), "text_mask": mask}
    if model.type_vocab_size > 1:
        inputs["segments"] = random.integers(0, model.type_vocab_size, mask.shape).astype(np.int32)
    if size := converted.architecture.image_size:
        inputs["image"] = random.normal(size=(3, 7, size)).astype(np.float32)
        inputs["image_mask"] = np.arange(7)[None] < np.array([7, 4, 6])[:, None]
    return inputs


@partial(jax.jit, static_argnums=0)
def run_encoder(
    module: PretrainedModel, params: dict, inputs: dict[str, jax.Array]
) -> tuple[object, dict[str, object]]:
    """The module's output, and what its layers and the last step of its embeddings return."""
    wanted = {"text_fc" if module.settings.project_embeddings else "norm"}
    wanted |= {f"layer_{index}" for index in range(module.settings.num_layers)}
    return module.apply(
        {"params": params}, **inputs, capture_intermediates=lambda m, _: m.name in wanted, mutable=["intermediates"]
    )


@partial(jax.jit, static_argnums=0)
def run_cnn(module: ImageClassifier, params: dict, pixels: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The module's pooled features and logits."""
    return module.apply({"params": params}, pixels)[:2]


def converted_outputs(
    converted: ConvertedModel, inputs: dict[str, np.ndarray], dtype: str | None = None
) -> dict[str, np.ndarray]:
    """Every layer and head by name, the words before the image's cells as VisualBERT has them; NaN where padded.

    The module computes in `dtype`, where one is given.
    """
    model = converted.architecture.model
    with jax.default_matmul_precision("highest"):
        run = run_encoder(make_module(converted.architecture, dtype), converted.params, inputs)
    output, captured = jax.tree.map(lambda x: np.asarray(x, np.promote_types(x.dtype, np.float32)), run)
    captured = captured["intermediates"]
    grid_length = inputs["image"].shape[1] if converted.architecture.sees else 0
    (embedded,) = (module["__call__"] for module in captured["embed"].values())  # the text's, then the image's
    states = {"embeddings": np.concatenate([x[:, 0] for x in embedded], axis=1)}
    calls = {name: iter(module["__call__"]) for name, module in captured["trunk"].items()}
    for index in range(model.num_layers):
        layer_states = next(calls[f"layer_{group_of(model, index)}"])[0][:, 0]
        states[f"layer {index + 1}"] = np.concatenate(
            [layer_states[:, grid_length:], layer_states[:, :grid_length]], axis=1
        )
    shown = visible(converted, inputs)
    if output.words is not None:
        states["masked words"] = np.concatenate([output.words, output.image_words], axis=1)
    replaced = None if output.replaced is None else output.replaced[:, :, None]
    by_token = {"token classes": output.tokens, "spans": output.spans, "replaced tokens": replaced}
    states |= {name: x for name, x in by_token.items() if x is not None}
    states = {name: np.where(shown[:, :, None], x, np.nan) for name, x in states.items()}
    heads = {"pooled": output.pooled, "sentence pairs": output.pairs, "answers": output.answers}
    heads |= {"text classes": output.sequence}
    return states | {name: x for name, x in heads.items() if x is not None}


def visible(converted: ConvertedModel, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Words and cells that are no padding, [B, T + G]."""
    cells = [inputs["image_mask"]] if converted.architecture.sees else []
    return np.concatenate([inputs["text_mask"], *cells], axis=1)


def _compare_encoder(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    from vlm_jax.weights.oracles import encoder_outputs, load_oracle

    inputs = _inputs(converted)
    model, unlike = load_oracle(converted, source, oracle, folder)
    if unlike:  # some of its tensors are random
        yield comparison("tensors", f"transformers' {oracle}: {unlike}", False)
        return
    outputs, references = converted_outputs(converted, inputs), encoder_outputs(converted, model, inputs)
    for name, x in outputs.items():
        if name not in references:
            yield Check(name, f"{oracle} does not compute it", "not compared")
            continue
        reference = references[name]
        output = x.reshape(reference.shape)
        shown = visible(converted, inputs) if reference.ndim == 3 else ...  # NaN anywhere else is a mistake, and fails
        worst = score(output[shown], reference[shown])
        yield comparison(name, f"{worst:.1e}", worst <= BOUND)
    if "masked words" in references:
        shown = visible(converted, inputs)
        divergence = _divergence(references["masked words"][shown], outputs["masked words"][shown].astype(np.float64))
        yield comparison("KL of masked words", f"{divergence:.1e} nats", divergence <= KL_BOUND)


def _divergence(logits: np.ndarray, other: np.ndarray) -> float:
    """The largest Kullback-Leibler divergence KL(p, q) over rows, in nats."""
    log_p, log_q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (logits, other))
    return max(float((np.exp(log_p) * (log_p - log_q)).sum(-1).max()), 0.0)  # in this order NaN stays


def _compare_tokenizers(converted: ConvertedModel, source: Source) -> Check:
    if not converted.tokenizer:
        return Check("tokenizer", "none lies beside the weights", "note")
    if why := not_installed("transformers"):
        return Check("tokenizer", why, "not compared")
    from transformers import AutoTokenizer

    try:
        tokenizer = Tokenizer.load(converted.tokenizer[0].parent)
    except InputError as error:
        if converted.family.kind is None:
            raise
        return Check("tokenizer", str(error), "not compared")  # SigLIP's, whose rules are in no tokenizer.json
    try:
        reference = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (ValueError, OSError) as error:  # it needs a model_type that old files do not have
        if not (source.folder / "vocab.txt").is_file():
            why = f"transformers cannot read it: {first_line(error)}"
            return Check("tokenizer", why, "not compared")
        from transformers import BertTokenizer

        reference = BertTokenizer.from_pretrained(source.folder, local_files_only=True)  # with its settings
    different = [text for text in TEXTS if not _same_ids(tokenizer, reference, text)]
    value = f"{len(TEXTS)} texts equal" if not different else f"differs on {different[0]!r}"
    return comparison("tokenizer", value, not different)


def _same_ids(tokenizer: Tokenizer, reference: "transformers.PreTrainedTokenizerBase", text: str) -> bool:
    """Whether a text has the same ids, and where transformers frames and pads, the same frame and padding."""
    ids = reference.encode(text, add_special_tokens=False)
    if tokenizer.tokens([text])[0] != ids:
        return False
    framed, padding = reference.encode(text), [reference.pad_token_id]
    own = tokenizer.encode([text], len(ids) + 3)[0][0].tolist()
    return framed == ids or own == framed + padding or (padding == [None] and own[:-1] == framed)


def _compare_cnn(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    from vlm_jax.weights.oracles import cnn_outputs

    height, width = converted.architecture.input.size
    pixels = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    references, unlike = cnn_outputs(converted, source, oracle, folder, pixels)
    if unlike:
        yield comparison("tensors", f"transformers' {oracle}: {unlike}", False)
        return
    with jax.default_matmul_precision("highest"):
        outputs = jax.device_get(run_cnn(converted.module, converted.params, pixels))
    for name, output, reference in zip(("features", "logits"), outputs, references, strict=True):
        if output is not None and reference is not None:
            worst = score(output, reference)
            yield comparison(name, f"{worst:.1e}", worst <= BOUND and math.isfinite(worst))
        elif output is not None:
            yield Check(name, f"{oracle} does not compute it", "not compared")
