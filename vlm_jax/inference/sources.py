"""A model from wherever it lies: a run, a model directory, an import, published weights."""

import dataclasses
import json
from pathlib import Path

from vlm_jax.compilation_cache import keep_programs
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError, one_of
from vlm_jax.inference.model import Model
from vlm_jax.inference.published_models import published_model
from vlm_jax.inference.runs import load_run
from vlm_jax.integrity import MANIFEST
from vlm_jax.run_folder import CONFIG, RunFolder
from vlm_jax.weights.import_folder import ABOUT, read
from vlm_jax.weights.source import locate

DTYPES = ("float32", "bfloat16")


def from_pretrained(source: str | Path, *, checkpoint: str | int = "best", dtype: str = "float32") -> Model:
    """The model at a source, ready for use.

    `source` is a run directory, a directory that `save_pretrained` wrote, the directory of an import, published weights
    (a directory, a .safetensors file, a DINOv2 in an .onnx file), `package:NAME/folder`, `published:NAME`, or a hub id
    such as `owner/name@revision`. `checkpoint` of a run is `best` by the validation score, `latest`, or an optimizer
    step. Published weights compute in `dtype`, `float32` or `bfloat16`; their parameters stay float32. Compiled
    programs are kept where the run's commands keep them. Raises `InputError` where there is no model, and where a file
    is damaged.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; {one_of(DTYPES)}")
    path, _ = locate(str(source))
    if _is_run(path):
        if dtype != DTYPES[0]:
            raise InputError(f"dtype is {dtype!r}, and {source} is a run, which computes in its own type; leave it out")
        folder = RunFolder(path)
        config = folder.config()
        if config.compute.compilation_cache:
            keep_programs(config.data.directory)
        model = load_run(folder, checkpoint=str(checkpoint))
    else:
        if checkpoint != "best":
            raise InputError(f"checkpoint is {checkpoint!r}, and {source} is no run; leave it out")
        is_import = (path / ABOUT).is_file()  # also inside a package, where `read` looks for published weights
        converted = read(str(path if is_import else source))
        model = published_model(dataclasses.replace(converted, dtype=dtype))
    model.source = str(source)
    return model


def _is_run(path: Path) -> bool:
    """Whether a directory is that of a run, or a model directory, damaged or not."""
    if (path / ABOUT).is_file():
        return False
    if (path / MANIFEST).is_file() or (path / "checkpoints").is_dir():
        return True
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("task") in TASKS
