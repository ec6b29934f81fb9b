"""The proof of a model of images and texts: layers and heads of both sides beside the published ones."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlm_jax.weights.checks import BOUND, Check, comparison, score
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.source import Source


def compare_image_text(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    """Every output of the port with the oracle's."""
    from vlm_jax.weights.oracles import load_oracle

    model, unlike = load_oracle(converted, source, oracle, folder)
    if unlike:  # some of its tensors are random
        yield comparison("tensors", f"transformers' {oracle}: {unlike}", False)
        return
    kind = converted.family.kind
    inputs = kind.inputs(converted.architecture)
    outputs, references = kind.outputs(converted.module, converted.params, inputs), kind.references(model, inputs)
    for name in sorted(references.keys() - outputs.keys()):
        yield comparison(name, "the port does not compute it", False)
    for name, x in outputs.items():
        if name not in references:
            yield Check(name, f"{oracle} does not compute it", "not compared")
            continue
        shown = ~np.isnan(references[name])  # NaN anywhere else is a mistake, and fails
        worst = score(x[shown], references[name][shown]) if x.shape == shown.shape else np.nan
        yield comparison(name, f"{worst:.1e}", worst <= BOUND)
