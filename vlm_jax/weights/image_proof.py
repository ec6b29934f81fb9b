"""The proof of an image transformer: its layers and heads beside the published ones, at several image sizes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np

from vlm_jax.models.vit_heads import PretrainedImageOutput, PretrainedImageTransformer
from vlm_jax.types import Parameters
from vlm_jax.weights.checks import BOUND, Check, comparison, score
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.source import Source

Outputs = dict[str, np.ndarray]


@partial(jax.jit, static_argnums=0)
def run_image_transformer(
    module: PretrainedImageTransformer, params: Parameters, pixels: jax.Array
) -> tuple[PretrainedImageOutput, dict[str, object]]:
    """The module's output, and what its embeddings and layers return."""
    wanted = {"embed", *(f"layer_{index}" for index in range(module.settings.num_layers))}
    return module.apply(
        {"params": params}, pixels, capture_intermediates=lambda m, _: m.name in wanted, mutable=["intermediates"]
    )


def image_outputs(converted: ConvertedModel, pixels: np.ndarray) -> Outputs:
    """Every layer and head by name, of pixels [B, h, w, 3]."""
    with jax.default_matmul_precision("highest"):
        output, captured = jax.device_get(run_image_transformer(converted.module, converted.params, pixels))
    states = captured["intermediates"]["image"]
    outputs = {"embeddings": states["embed"]["__call__"][0]}
    for index in range(converted.architecture.model.num_layers):
        outputs[f"layer {index + 1}"] = states[f"layer_{index}"]["__call__"][0][0][:, 0]
    heads = {"last state": output.tokens, "class token": output.class_token, "pooled": output.pooled}
    heads |= {"projected": output.projected, "logits": output.logits}
    return outputs | {name: x for name, x in heads.items() if x is not None}


def image_sizes(converted: ConvertedModel) -> list[tuple[int, int]]:
    """The sizes of the model's images and of the position table, and one that is not square, which is interpolated.

    transformers interpolates square tables alone: of others the table's size is compared.
    """
    architecture = converted.architecture
    height, width = architecture.input.size
    side, table_size = architecture.model.patch_size, architecture.model.image_size
    if table_size[0] != table_size[1]:
        return [table_size]
    return list(dict.fromkeys([(height, width), table_size, (height + side, width + 2 * side)]))


def compare_image_transformer(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    """Every output of the port with the oracle's; those at the first size by name, at others in one line."""
    from vlm_jax.weights.image_oracle import image_references
    from vlm_jax.weights.oracles import load_oracle

    model, unlike = load_oracle(converted, source, oracle, folder)
    if unlike:  # some of its tensors are random
        yield comparison("tensors", f"transformers' {oracle}: {unlike}", False)
        return
    for number, (height, width) in enumerate(image_sizes(converted)):
        pixels = np.random.default_rng(number).normal(size=(2, height, width, 3)).astype(np.float32)
        outputs, references = image_outputs(converted, pixels), image_references(converted, model, pixels)
        differences = {name: score(x, references[name]) for name, x in outputs.items() if name in references}
        if number == 0:
            for name in outputs:
                if name not in differences:
                    yield Check(name, f"{oracle} does not compute it", "not compared")
            for name, worst in differences.items():
                yield comparison(name, f"{worst:.1e}", worst <= BOUND)
        else:
            worst = max(differences.values(), key=lambda x: np.inf if np.isnan(x) else x)
            yield comparison(f"at {height} x {width} pixels", f"{worst:.1e}", worst <= BOUND)
