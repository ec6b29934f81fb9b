"""Writes `ports.npz`: what the published models say, in float64 by PyTorch. Needs torch.

    python -m tests.goldens.make_ports

Encoders and transformers' ResNets are transformers' own classes; the other CNNs are `vlm_jax/weights/torch_cnns.py`.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.weights import fixtures
from tests.weights.fixtures import CASES, Case, Fixture
from vlm_jax.weights import torch_cnns

SMALLEST = 0.01  # a channel that noise leaves dead would be blown up in an image that wakes it


def stored_inputs() -> dict[str, np.ndarray]:
    """Texts with padding and token types, grids with hidden cells, images."""
    random = np.random.default_rng(0)
    length, grid_length = max(fixtures.LENGTHS), max(fixtures.GRID_LENGTHS)
    mask = np.arange(length)[None] < np.array(fixtures.LENGTHS)[:, None]
    ids = np.where(mask, random.integers(2, fixtures.WORDS, mask.shape), 1)  # RoBERTa's padding is 1
    return {
        "inputs/input_ids": ids.astype(np.int32),
        "inputs/text_mask": mask,
        "inputs/segments": random.integers(0, 2, mask.shape).astype(np.int32),
        "inputs/image": random.normal(size=(len(mask), grid_length, fixtures.FEATURES)).astype(np.float32),
        "inputs/image_mask": np.arange(grid_length)[None] < np.array(fixtures.GRID_LENGTHS)[:, None],
        "inputs/pixels": random.integers(0, 256, (2, *fixtures.IMAGE, 3)).astype(np.uint8),
    }


def load(case: Case, folder: Path) -> torch.nn.Module:
    """The transformers model of a folder, in float64."""
    kind = fixtures.transformers_class(case)
    more = {} if fixtures.is_cnn(case) or "For" in kind or case.family == "distilbert" else {
        "add_pooling_layer": "pooler" in case.parts
    }  # fmt: skip
    model, info = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True, **more
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model.eval()


def encoder_outputs(fixture: Fixture, stored: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """By the names of `verify.converted_outputs`; NaN where padded."""
    inputs = fixtures.inputs(fixture.case, stored)
    arguments = {
        "input_ids": torch.tensor(inputs["input_ids"]).long(),
        "attention_mask": torch.tensor(inputs["text_mask"]).long(),
    }
    seen = inputs["text_mask"]
    if "segments" in inputs:
        arguments["token_type_ids"] = torch.tensor(inputs["segments"]).long()
    if "image" in inputs:
        arguments["visual_embeds"] = torch.tensor(inputs["image"]).double()
        arguments["visual_attention_mask"] = torch.tensor(inputs["image_mask"]).long()
        seen = np.concatenate([seen, inputs["image_mask"]], axis=1)
    model = load(fixture.case, folder)
    with torch.no_grad():
        output = model(**arguments, output_hidden_states=True, return_dict=True)
    first, *layers = output.hidden_states
    outputs = {"embeddings": first} | {f"layer {index}": layer for index, layer in enumerate(layers, 1)}
    parts = fixture.case.parts
    if "words" in parts:
        outputs["masked words"] = output.prediction_logits if "pairs" in parts else output.logits
    if "pairs" in parts:
        outputs["sentence pairs"] = output.seq_relationship_logits
    if "answers" in parts:
        outputs["answers"] = output.logits
    elif parts == ("pooler",):
        outputs["pooled"] = output.pooler_output
    outputs = {name: value.numpy() for name, value in outputs.items()}
    return {name: np.where(seen[:, :, None], x, np.nan) if x.ndim == 3 else x for name, x in outputs.items()}


def cnn_outputs(fixture: Fixture, tensors: dict[str, np.ndarray], stored: dict, folder: Path) -> dict[str, np.ndarray]:
    image = torch.tensor(fixtures.inputs(fixture.case, stored)["pixels"]).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        if fixtures.transformers_class(fixture.case):
            model = load(fixture.case, folder)
            features, logits = model.resnet(image).pooler_output.flatten(1), model(image).logits
        else:
            wide = {name: torch.tensor(array).double() for name, array in tensors.items()}
            features, logits = torch_cnns.run_published(fixture.case.family, wide, image)
    return {"features": features.numpy(), "logits": logits.numpy()}


def batch_statistics(fixture: Fixture, folder: Path) -> np.ndarray:
    """The mean and variance that each batch norm meets on random images, in the order of the names."""
    blank = fixtures.cnn_tensors(fixture, None)
    pixels = np.random.default_rng(1).integers(0, 256, (32, *fixtures.IMAGE, 3))
    image = (torch.tensor(pixels).permute(0, 3, 1, 2).double() - 127) / 64
    met: dict[str, torch.Tensor] = {}

    def measure(name: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0).clamp(min=SMALLEST)
        met[f"{name}.running_mean"], met[f"{name}.running_var"] = mean.half(), variance.half()
        return mean.half().double(), variance.half().double()

    with torch.no_grad():
        if fixtures.transformers_class(fixture.case):
            model = load(fixture.case, fixtures.write(folder, blank, fixtures.config(fixture.case)))
            for name, module in model.named_modules():
                if isinstance(module, torch.nn.BatchNorm2d):

                    def hook(module, arguments, name=name):
                        module.running_mean[:], module.running_var[:] = measure(name, arguments[0])

                    module.register_forward_pre_hook(hook)
            model(image)
        else:
            wide = {name: torch.tensor(array).double() for name, array in blank.items()}
            real = torch_cnns._norm

            def norm(t, x, name, epsilon):
                t[f"{name}.running_mean"], t[f"{name}.running_var"] = measure(name, x)
                return real(t, x, name, epsilon)

            torch_cnns._norm = norm
            try:
                torch_cnns.run_published(fixture.case.family, wide, image)
            finally:
                torch_cnns._norm = real
    return np.concatenate([met[name].numpy() for name in sorted(blank) if "running_" in name])


def main() -> None:
    """All inputs, statistics and outputs, case by case."""
    transformers.utils.logging.disable_progress_bar()
    stored = stored_inputs()
    with tempfile.TemporaryDirectory() as temporary:
        for fixture in (fixture for case in CASES for fixture in case.fixtures):
            statistics = None
            if fixtures.is_cnn(fixture.case):
                statistics = batch_statistics(fixture, Path(temporary) / f"{fixture}-blank")
                stored[f"{fixture}/statistics"] = statistics
            tensors = fixtures.tensors(fixture, statistics)
            folder = fixtures.write(Path(temporary) / str(fixture), tensors, fixtures.config(fixture.case))
            if fixtures.is_cnn(fixture.case):
                outputs = cnn_outputs(fixture, tensors, stored, folder)
            else:
                outputs = encoder_outputs(fixture, stored, folder)
            stored[f"{fixture}/fingerprint"] = np.uint32(fixtures.fingerprint(tensors))
            stored |= {f"{fixture}/outputs/{name}": output for name, output in outputs.items()}
            print(fixture, {name: f"{np.nanmax(np.abs(output)):.3g}" for name, output in outputs.items()}, flush=True)
    np.savez_compressed(fixtures.GOLDENS, **stored)
    print(f"{fixtures.GOLDENS}: {fixtures.GOLDENS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
