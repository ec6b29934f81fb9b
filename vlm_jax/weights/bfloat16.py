"""The bfloat16 tier of a proof: is our rounding at most as large as that of PyTorch's own bfloat16?"""

from collections.abc import Iterator

import numpy as np

from vlm_jax.weights.checks import BOUND, Check, comparison, not_installed, score
from vlm_jax.weights.proof_subject import ProofSubject, proof_subject
from vlm_jax.weights.proof_texts import SENTENCES, text_inputs
from vlm_jax.weights.verify import converted_outputs, visible

MOST = 0.85
"""Of PyTorch's error. A norm whose statistics are bfloat16 has more, and so has another gelu."""


def verify_bfloat16(
    name: str, *, strip_prefix: str = "", drop_tensors: str = "", class_name: str | None = None
) -> Iterator[Check]:
    """Every layer of a text encoder on 32 texts, in float32 and bfloat16, against float64.

    An error is the norm of the difference over that of the reference, the mean over the texts. The options are those
    of `verify`.
    """
    with proof_subject(name, strip_prefix=strip_prefix, drop_tensors=drop_tensors, class_name=class_name) as subject:
        if subject.converted.architecture.input is not None:
            yield Check("bfloat16", "is compared of text encoders", "not compared")
        elif why := not_installed("torch", "transformers"):
            yield Check("bfloat16", why, "not compared")
        else:
            yield from _compare(subject)


def _compare(subject: ProofSubject) -> Iterator[Check]:
    from vlm_jax.weights.oracles import encoder_outputs, load_oracle, rounded_to_bfloat16

    converted = subject.converted
    model, unlike = load_oracle(converted, subject.source, subject.oracle, subject.folder / "model")
    if unlike:
        yield comparison("tensors", f"transformers' {subject.oracle}: {unlike}", False)
        return
    inputs = text_inputs(converted, SENTENCES)
    references = encoder_outputs(converted, model, inputs)
    rounded = encoder_outputs(converted, rounded_to_bfloat16(model), inputs)
    exact, ours = (converted_outputs(converted, inputs, dtype) for dtype in ("float32", "bfloat16"))
    shown = visible(converted, inputs)
    layers = [layer for layer in references if layer.startswith("layer ")]
    worst = np.max([score(exact[layer][shown], references[layer][shown]) for layer in layers])  # NaN stays
    yield comparison("float32, all layers", f"{worst:.1e} on {len(SENTENCES)} texts", bool(worst <= BOUND))
    for layer in layers:
        error, bound = (_error(states[layer], references[layer], shown) for states in (ours, rounded))
        value = f"{error:.1e}, {error / bound:.2f} of torch's {bound:.1e}"
        yield comparison(f"{layer} in bfloat16", value, error <= MOST * bound)


def _error(states: np.ndarray, references: np.ndarray, shown: np.ndarray) -> float:
    """The relative error of a text's visible states, the mean over texts."""
    errors = [
        np.linalg.norm(state[mask] - reference[mask]) / np.linalg.norm(reference[mask])
        for state, reference, mask in zip(states, references, shown, strict=True)
    ]
    return float(np.mean(errors))
