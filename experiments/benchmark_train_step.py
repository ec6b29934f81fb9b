"""Speed and memory of a train step, ours against the same model in plain PyTorch (`experiments/benchmark_peers.py`).

`python -m experiments.benchmark_train_step configs/quickstart.py`: each side runs in a process of its own, and they
take turns, so that whatever else the machine does slows both. Before any timing their logits must agree.
"""

import importlib.util
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from vlm_jax.command_line import run_command
from vlm_jax.config.run import Compute, Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group
from vlm_jax.settings.presets import load_preset

from .benchmark_sides import Child, Own, PeerSide, furthest

TOLERANCE = 2e-5  # of logits, relative to the largest one or 1: the project's bound for a port
SAMPLE_SECONDS = 1.0
CONVOLUTIONS = get_args(Compute.model_fields["convolution"].annotation)


class Benchmark(Group):
    """Median optimizer steps a second and peak memory, ours and PyTorch's, on the same random batch."""

    config: Annotated[Path, POSITIONAL]
    """A config file."""
    steps: int | None = None
    """Optimizer steps of a sample; without it, as many as take about a second."""
    batch_images: int | None = None
    """Images of a step; without it the config's, or 2 with a ResNet-50."""
    rounds: int | None = None
    """Samples of each side; without it 9, or 5 with a ResNet-50."""
    devices: int | None = None
    """Devices of our side; without it as many as training takes."""
    convolution: Literal["auto", "direct", "products", "all"] | None = None
    """How our side computes convolutions; `all` measures the three one after the other; without it as the config."""
    tf32: bool = False
    """On a GPU, products in TF32 on both sides instead of float32."""
    compile: bool = False
    """Let torch.compile compile the peer, which needs a C++ compiler."""
    json_: bool = False
    """One line of JSON instead of text."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Benchmark, prog=command_name("benchmark_train_step"))
    config = _comparable(load_preset(arguments.config, TASKS), arguments)
    if importlib.util.find_spec("torch") is None:
        raise InputError("the peer needs PyTorch; install it with: pip install torch==2.13.0")
    methods = CONVOLUTIONS if arguments.convolution == "all" else (arguments.convolution or config.compute.convolution,)
    # After a difference nothing else is measured.
    return int(any(_compare(with_changes(config, {"compute.convolution": m}), arguments) for m in methods))


def _compare(config: VQA, arguments: Benchmark) -> int:
    """Print the figures of one way to compute convolutions; the exit status."""
    ours, peer = start(config, tf32=arguments.tf32, compiled=arguments.compile)
    difference = furthest(ours.call("logits"), peer.call("logits"))
    if difference > TOLERANCE:
        print(
            f"error: the logits differ by {difference:.1e} relative, over {TOLERANCE:.0e}: not one model",
            file=sys.stderr,
        )
        return 1
    if not arguments.json_:
        print(f"logits differ by {difference:.1e} relative, within {TOLERANCE:.0e}: the same model", flush=True)
    rounds = arguments.rounds or (5 if _encoder(config) == "resnet50" else 9)
    result = {
        **_described(config),
        "logits_difference": difference,
        **measure(ours, peer, steps=arguments.steps, rounds=rounds),
    }
    print(json.dumps(result) if arguments.json_ else _text(result))
    return 0


def _comparable(config: Config, arguments: Benchmark) -> VQA:
    """The config with the options' sizes, refused where the peer lacks what it asks for."""
    if not isinstance(config, VQA):
        raise InputError(f"the PyTorch peer has no task {config.task!r}; set it to 'vqa'")
    model, optimizer, training = config.architecture, config.optimizer, config.training
    for setting, value, known in (
        ("model.fusion.kind", model.fusion, ("concat",)),
        ("model.image.kind", _encoder(config), ("small", "resnet50")),
        ("model.image.positions", model.image.positions, ("sequence",)),
        ("compute.dtype", model.dtype, ("float32",)),
        ("optimizer.kind", optimizer.kind, ("adamw", "muon")),
        ("optimizer.frozen", optimizer.frozen, ((),)),
        ("optimizer.multipliers", optimizer.multipliers, ((),)),
        ("training.accumulation", training.accumulation, (1,)),
    ):
        if value not in known:
            raise InputError(f"the PyTorch peer has no {setting} {value!r}; set it to {' or '.join(map(repr, known))}")
    size = arguments.batch_images or (2 if _encoder(config) == "resnet50" else training.batch_images)
    return with_changes(config, {"training.batch_images": size, "compute.devices": arguments.devices})


def _encoder(config: VQA) -> str:
    return getattr(config.model.image, "name", config.model.image.kind)


def start(config: VQA, *, tf32: bool, compiled: bool) -> tuple["Child", "Child"]:
    """Both sides, with the same parameters and the same batch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "parameters.npz"
        ours = Child(Own, config, file, tf32)
        peer = Child(PeerSide, config, file, tf32, compiled)
    if ours.metadata["device"] != peer.metadata["device"]:
        raise InputError(
            f"jax runs on {ours.metadata['device']}, torch on {peer.metadata['device']}; install both for one"
        )
    return ours, peer


def measure(ours: "Child", peer: "Child", *, steps: int | None, rounds: int) -> dict[str, Any]:
    """`rounds` samples of each side, in turn: medians, spreads, peaks and the ratio of the median times."""
    for side in (ours, peer):
        side.call("timed", 2)  # compiles, and fills caches
    steps = steps or max(1, round(SAMPLE_SECONDS / ours.call("timed", 1)[0]))
    samples = [(ours.call("timed", steps), peer.call("timed", steps)) for _ in range(rounds)]
    figures = [_figures(side, times) for side, times in zip((ours, peer), zip(*samples, strict=True), strict=True)]
    ratio = figures[0]["seconds_a_step"] / figures[1]["seconds_a_step"]
    ratios = [own[0] / other[0] for own, other in samples]
    sides = {"ours": figures[0], "torch": figures[1]}
    return {**sides, "ratio": ratio, "ratios": ratios, "rounds": rounds, "steps_a_sample": steps}


def _figures(side: "Child", times: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    wall, processor = zip(*times, strict=True)
    median = statistics.median(wall)
    return {
        "steps_a_second": 1 / median,
        "seconds_a_step": median,
        "fastest": min(wall),
        "slowest": max(wall),
        "processor_seconds_a_step": statistics.median(processor),
        "peak_bytes": side.call("peak_bytes"),
        **side.metadata,
    }


def _described(config: Config) -> dict[str, Any]:
    return {
        "config": config.name,
        "batch_images": config.training.batch_images,
        "texts_per_image": config.training.texts_per_image,
        "convolution": config.compute.convolution,
        "cores": os.cpu_count(),
        "environment": {
            k: v for k, v in os.environ.items() if k.startswith(("MALLOC_", "GLIBC_", "XLA_", "OMP_", "MKL_"))
        },
    }


def _text(result: dict[str, Any]) -> str:
    lines = []
    for name in ("ours", "torch"):
        side = result[name]
        median, low, high, processor = (
            1000 * side[key] for key in ("seconds_a_step", "fastest", "slowest", "processor_seconds_a_step")
        )
        lines.append(
            f"{name:6s}{side['steps_a_second']:8.2f} steps/s  {median:8.1f} ms a step ({low:.1f} to {high:.1f}; "
            f"processors {processor:.1f})  peak {side['peak_bytes'] / 2**20:,.0f} MiB"
        )
    ours, peer = result["ours"], result["torch"]
    versions = ours["versions"] | peer["versions"]
    lines += [
        f"time of ours / torch: {result['ratio']:.3f} (below 1, ours is faster), medians of {result['rounds']} samples "
        f"of {result['steps_a_sample']} steps",
        f"{result['config']}, {result['batch_images']} images x {result['texts_per_image']} questions, on "
        f"{ours['device']}: {result['cores']} cores, {ours['devices']} JAX devices, {peer['threads']} torch threads, "
        f"products in {ours['products']}, compute.convolution {result['convolution']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    return "\n".join(lines + [f"{name}={value}" for name, value in result["environment"].items()])


if __name__ == "__main__":
    run_command(main)
