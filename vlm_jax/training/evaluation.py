"""What a finished run leaves behind: scores on the test split, taken once, predictions and a sheet of images."""

import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from vlm_jax.config.run import Config
from vlm_jax.data.images import decode_image
from vlm_jax.figures import plot_contact_sheet
from vlm_jax.placement import devices_of
from vlm_jax.run_folder import RESULT, RunFolder
from vlm_jax.settings.groups import json_tree
from vlm_jax.tasks.base import Prediction
from vlm_jax.tasks.baselines import baseline_warnings
from vlm_jax.training.setup import Trained
from vlm_jax.types import Example, Json, Parameters

CONTACT_SHEET_ITEMS = 24
PACKAGES = (
    "vlm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "tokenizers",
    "numpy", "scipy",
)  # fmt: skip


class SplitExamples(NamedTuple):
    """A split to score, as `Task.prepare` has its examples, and the training split for the baselines."""

    split: str
    examples: Sequence[Example]
    train: Sequence[Example]


def evaluate_run(
    model: Trained,
    scored: SplitExamples,
    *,
    folder: RunFolder,
    metadata: dict[str, Json],
    name: str | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Json]:
    """Score a split, with the baselines as rows of their own; write predictions, the sheet and, last, the result.

    The test split's files are `predictions.jsonl`, `predictions.png` and `result.json`; those of another split carry
    `name`, by default the split's. `metadata` are rows of the result; its `wall_seconds` grow by what scoring took.
    `warnings` stand before those of the scores.
    """
    (task, params, step), (split, examples, train) = model, scored
    config, began, named = task.config, time.perf_counter(), name or split
    predictions_file, contact_sheet_file, result_file = result_files(named)
    predictions = task.predict(params, examples)
    if task.can_score(examples):
        metrics = task.score(predictions) | task.baselines(params, examples, train, predictions)
        score_warnings = [*task.warnings(predictions, metrics), *baseline_warnings(metrics, task.metric, task.shuffled)]
        title = task.title(metrics)
    else:
        metrics, title = {}, "not scored"
        score_warnings = [f"the {split} split has no answers: they are predicted, and nothing is scored"]
    lines = [json.dumps(prediction.as_dict(), ensure_ascii=False) for prediction in predictions]
    folder.write_text(predictions_file, "\n".join(lines) + "\n")
    for file, content in task.files(predictions).items():
        folder.write_json(_named(file, named), content)
    title = f"{config.name}, {split} split: {title}"
    write_contact_sheet(config, predictions, examples, folder.path / contact_sheet_file, title=title)
    result = {
        "task": config.task,
        "split": split,
        "metrics": metrics,
        "warnings": [*warnings, *score_warnings],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "checkpoint_step": step,
        **metadata,
        **task.metadata(),
        "wall_seconds": metadata["wall_seconds"] + time.perf_counter() - began,
        "seed": config.seed,
        "versions": versions(),
        "machine": machine(params),
        "peak_memory_bytes": peak_memory(),
        "config": json_tree(config),
    }
    folder.write_json(result_file, result)
    return result


def result_files(name: str) -> tuple[str, str, str]:
    """Names of the files of predictions, of the sheet and of the result, of a split or under another name."""
    return tuple(_named(file, name) for file in ("predictions.jsonl", "predictions.png", RESULT))


def _named(file: str, name: str) -> str:
    stem, _, ending = file.rpartition(".")
    return file if name == "test" else f"{stem}-{name}.{ending}"


def write_contact_sheet(
    config: Config, predictions: Sequence[Prediction], examples: Sequence[Example], path: Path, *, title: str
) -> None:
    """A sheet of one prediction an image; mistakes come last, up to a quarter, or what the others leave room for."""
    random = np.random.default_rng(config.seed)
    order = random.permutation(len(predictions))
    first_of_image = {predictions[i].image_id: i for i in reversed(order)}
    chosen = [predictions[i] for i in order if first_of_image[predictions[i].image_id] == i]
    right = [p for p in chosen if p.right is not False][:CONTACT_SHEET_ITEMS]
    wrong = [p for p in predictions if p.right is False]
    most_wrong = max(CONTACT_SHEET_ITEMS // 4, CONTACT_SHEET_ITEMS - len(right))
    wrong = [wrong[i] for i in random.permutation(len(wrong))][:most_wrong]
    by_id = {example.image_id: example for example in examples}

    def shown(name: str) -> np.ndarray | None:
        """The image; None of one that has image tokens, where the generated image is shown alone."""
        example = by_id[name]
        if example.image_tokens is not None:
            return None
        return decode_image(example.image, name=name, max_pixels=config.data.max_pixels)

    items = [p.card(shown(p.image_id)) for p in [*right[: CONTACT_SHEET_ITEMS - len(wrong)], *wrong]]
    title = f"{title}; mistakes shown more often than they occur" if right and wrong else title
    plot_contact_sheet(items, path, title=title)


def score_lines(result: Mapping[str, Json]) -> list[str]:
    """The scores and warnings of a result, a line each."""
    scores = result["metrics"]
    width = max(map(len, scores), default=0)
    lines = [f"{name:{width}s}  {'missing' if score is None else f'{score:.4f}'}" for name, score in scores.items()]
    return [*lines, *(f"warning: {warning}" for warning in result.get("warnings", ()))]


def versions() -> dict[str, str | None]:
    """Python's and those of the packages that a result depends on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    """None where a package is not installed: ours may run from its sources, and a result must not be lost by that."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout that this code lies in, with `+changes` where files differ from it; None elsewhere."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        tracked = git("ls-files", Path(__file__).name)  # an installed copy may lie inside somebody else's checkout
        changed = git("status", "--porcelain", "--untracked-files=no")  # of all files, wherever this one lies
        return git("rev-parse", "HEAD") + ("+changes" if changed else "") if tracked else None
    except (OSError, subprocess.SubprocessError):
        return None


def code() -> str:
    """A digest of this package's sources as they are, committed or not."""
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in sources)).hexdigest()[:16]


def peak_memory() -> int | None:
    """The most memory so far in bytes: of the accelerator where there is one, otherwise of this process."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return statistics.get("peak_bytes_in_use")
    # Not getrusage's: that begins with what the parent had when it started this process.
    match = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def machine(params: Parameters) -> dict[str, Json]:
    """Where it ran: the processor and how many of its cores it may use, and the devices that hold the parameters."""
    devices = [device.device_kind for device in devices_of(params)]
    return {"processor": processor(), "cpu_cores": len(os.sched_getaffinity(0)), "devices": devices}


def processor() -> str | None:
    """As Linux names it, with family and model, since makers give several the same name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    cpuinfo = dict(re.findall(r"^([a-z ]+?)\s*: (.+)$", text, re.MULTILINE))
    numbers = [
        f"{name} {cpuinfo[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in cpuinfo
    ]
    return " ".join([cpuinfo.get("model name", platform.machine()), *numbers])
