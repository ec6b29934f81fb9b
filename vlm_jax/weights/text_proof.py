"""The proof of a text encoder: every layer and head, and its tokenizer, against transformers'."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np

from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.models.pretrained import PretrainedModel
from vlm_jax.models.text_trunk import group_of
from vlm_jax.text_lines import first_line
from vlm_jax.weights.checks import BOUND, KL_BOUND, Check, comparison, not_installed, score
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.source import Source

TEXTS = (
    "hello world", "The quick brown fox jumps over the lazy dog.", "What colour is the car, and who's driving it?",
    "it's 4:21 and $1,000.50", "naïve café — déjà vu", "antidisestablishmentarianism", "日本語のテキスト",
    "שלום עולם",
    "emoji 🙂 and tabs\tand\nlines", "UPPER lower MiXeD", "", "a", "C1=CC=CC=C1", "under_score-hyphen/slash",
    "1234567890" * 5,
)  # fmt: skip


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


def converted_outputs(converted: ConvertedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every layer and head by name, the words before the image's cells as VisualBERT has them; NaN where padded."""
    model = converted.architecture.model
    with jax.default_matmul_precision("highest"):
        output, captured = jax.device_get(run_encoder(converted.module, converted.params, inputs))
    captured = captured["intermediates"]
    grid_length = inputs["image"].shape[1] if converted.architecture.sees else 0
    ((embedded, *_),) = (calls.values() for calls in captured["embed"].values())  # the text's, then the image's
    states = {"embeddings": np.concatenate([x[:, 0] for x in embedded], axis=1)}
    calls = {name: iter(module["__call__"]) for name, module in captured["trunk"].items()}
    for index in range(model.num_layers):
        layer_states = next(calls[f"layer_{group_of(model, index)}"])[0][:, 0]
        states[f"layer {index + 1}"] = np.concatenate(
            [layer_states[:, grid_length:], layer_states[:, :grid_length]], axis=1
        )
    seen = _seen(converted, inputs)
    if output.words is not None:
        states["masked words"] = np.concatenate([output.words, output.image_words], axis=1)
    replaced = None if output.replaced is None else output.replaced[:, :, None]
    heads = {"token classes": output.tokens, "spans": output.spans, "replaced tokens": replaced}
    states |= {name: x for name, x in heads.items() if x is not None}
    states = {name: np.where(seen[:, :, None], x, np.nan) for name, x in states.items()}
    heads = {"pooled": output.pooled, "sentence pairs": output.pairs, "answers": output.answers}
    heads |= {"text classes": output.sequence}
    return states | {name: x for name, x in heads.items() if x is not None}


def _seen(converted: ConvertedModel, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Words and cells that are no padding, [3, T + G]."""
    cells = [inputs["image_mask"]] if converted.architecture.sees else []
    return np.concatenate([inputs["text_mask"], *cells], axis=1)


def compare_encoder(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    """Every output of the port with that of transformers' class `oracle`."""
    from vlm_jax.weights.oracles import encoder_outputs, load_oracle

    inputs = _inputs(converted)
    seen = _seen(converted, inputs)
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
        shown = seen if reference.ndim == 3 else ...  # NaN anywhere else is a mistake, and fails
        worst = score(output[shown], reference[shown])
        yield comparison(name, f"{worst:.1e}", worst <= BOUND)
    if "masked words" in references:
        words = (references["masked words"][seen], outputs["masked words"][seen].astype(np.float64))
        divergence = _divergence(*words)
        yield comparison("KL of masked words", f"{divergence:.1e} nats", divergence <= KL_BOUND)


def _divergence(logits: np.ndarray, other: np.ndarray) -> float:
    """The largest Kullback-Leibler divergence KL(p, q) over rows, in nats."""
    log_p, log_q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (logits, other))
    return max(float((np.exp(log_p) * (log_p - log_q)).sum(-1).max()), 0.0)  # in this order NaN stays


def compare_tokenizers(converted: ConvertedModel, source: Source) -> Check:
    """Token ids of `TEXTS` with those of transformers' tokenizer."""
    if not converted.tokenizer:
        return Check("tokenizer", "none lies beside the weights", "note")
    if why := not_installed("transformers"):
        return Check("tokenizer", why, "not compared")
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.load(converted.tokenizer[0].parent)
    try:
        reference = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (ValueError, OSError) as error:  # it needs a model_type that old files do not have
        if not (source.folder / "vocab.txt").is_file():
            why = f"transformers cannot read it: {first_line(error)}"
            return Check("tokenizer", why, "not compared")
        from transformers import BertTokenizer

        reference = BertTokenizer.from_pretrained(source.folder, local_files_only=True)  # with its settings
    different = [
        text for text in TEXTS if tokenizer.tokens([text])[0] != reference.encode(text, add_special_tokens=False)
    ]
    value = f"{len(TEXTS)} texts equal" if not different else f"differs on {different[0]!r}"
    return comparison("tokenizer", value, not different)
