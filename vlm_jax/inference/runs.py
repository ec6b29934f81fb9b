"""Models of runs and of model directories: reading them, writing them, and what those of all tasks share.

A model directory is a run directory without training: `config.json`, the vocabularies, `model.safetensors` and a
manifest.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vlm_jax.config.run import Config
from vlm_jax.config.trunk import TextConfig
from vlm_jax.config.use import ImageScoring, Predict
from vlm_jax.errors import InputError, one_of
from vlm_jax.failures import os_failure
from vlm_jax.figures import Card
from vlm_jax.inference.images import ImageLike, ImageProcessor, bucket, filled, grid_features
from vlm_jax.inference.model import Model
from vlm_jax.inference.results import Features
from vlm_jax.run_folder import CONFIG, IMAGE_FEATURES, MODEL, VOCABULARIES, RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.tasks.base import Task
from vlm_jax.tasks.user_input import text_warnings
from vlm_jax.training import checkpoint_manifest as manifests
from vlm_jax.training.saved_params import read_params
from vlm_jax.training.setup import make_encoder, make_task
from vlm_jax.trees import compare_trees, flatten, unflatten
from vlm_jax.types import Json, Parameters

AT_ONCE, TEXTS_AT_ONCE = 64, 16  # images of a batch, and texts of each
REMEMBERED = 2**10  # texts whose warnings are remembered
MODELS = ("vqa", "captioning", "image_generation")
"""The tasks whose models can do something: a module of this name has the class, as `MODEL`."""
Output = TypeVar("Output")
_logger = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What `experiments.predict` prints and shows."""

    lines: list[dict[str, Json]]
    """One JSON object for each prediction."""
    text: str
    cards: list[Card]
    """Empty without an output file."""


class RunModel(Model):
    """The model of a run, at one of its checkpoints."""

    def __init__(self, folder: RunFolder, config: Config, task: Task, params: Parameters, step: int) -> None:
        self.source, self.config, self.params = str(folder.path), config, params
        self.task, self.step, self.module = task, step, task.model
        """The task, and the optimizer step of the checkpoint."""
        self._folder = folder
        self.processor = ImageProcessor(config.image, max_pixels=config.data.max_pixels)
        if isinstance(config, TextConfig):
            self.tokenizer = task.encode.tokenizer
            own = config.model.text.tokenizer is None
            self._warnings = lru_cache(REMEMBERED)(lambda text: text_warnings(text, task.encode, own_vocabulary=own))

    def show(self, options: Predict) -> Shown:
        """The predictions of what a user gives on the command line, where `config.predict_options` has options."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model directory; one that is there already and not empty is refused."""
        path = Path(folder).expanduser()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} is there already; give a new folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise os_failure(error, f"cannot write a model to {path}") from None
        (path / CONFIG).write_text(to_json(self.config), encoding="utf-8")
        for file in map(self._folder.file, (*VOCABULARIES, IMAGE_FEATURES)):
            if file.is_file():
                shutil.copyfile(file, path / file.name)
        leaves = {name: np.asarray(leaf) for name, leaf in flatten(self.params).items()}
        # Not `save_file`, which makes a file that nobody else can read.
        (path / MODEL).write_bytes(save(leaves, {"checkpoint_step": str(self.step)}))
        RunFolder(path).seal(CONFIG, *VOCABULARIES, IMAGE_FEATURES, MODEL)

    def _call(self, function: Callable[..., Output], *inputs: object) -> Output:
        """A compiled function of the parameters; `InputError` where these are not those of the module."""
        try:
            return function(self.params, *inputs)
        except Exception:
            shapes = jax.eval_shape(self.task.init_params, jax.random.key(0))
            compare_trees(self.params, shapes, what=f"parameters in {self.source}")
            raise


class FusedModel(RunModel):
    """A model that fuses images with texts; an image is its grid features where the run was trained with features."""

    def __init__(self, folder: RunFolder, config: Config, task: Task, params: Parameters, step: int) -> None:
        super().__init__(folder, config, task, params, step)
        self._input: Callable[[ImageLike], np.ndarray] = self.processor
        if task.model.settings.image.kind == "features":
            self.processor = None
            self._input = partial(grid_features, shape=task.encode.cached.shape)
        self._streams = jax.jit(lambda params, *inputs: self.module.bind({"params": params}).streams(*inputs))

    def _batches(self, images: list[ImageLike]) -> Iterator[tuple[np.ndarray, int]]:
        """What the model reads of the images in batches of a few sizes, and how many of each batch are real."""
        with ThreadPoolExecutor(self.config.data.threads) as threads:
            for first in range(0, len(images), AT_ONCE):
                chunk = images[first : first + AT_ONCE]
                rows = np.stack(list(threads.map(self._input, chunk)) if len(chunk) > 1 else [self._input(*chunk)])
                yield filled(rows, bucket(len(rows), AT_ONCE)), len(rows)

    def _over_texts(
        self, function: Callable[..., Output], images: list[ImageLike], texts: list[str]
    ) -> list[list[Output]]:
        """`function(params, image, ids, mask)` of every text with every image: its rows, image by image.

        An image is encoded once for `TEXTS_AT_ONCE` texts.
        """
        ids, mask = self.task.encode.encode_texts(texts)
        rows = []
        for image, count in self._batches(images):
            parts = []
            for first in range(0, len(texts), TEXTS_AT_ONCE):
                chunk = slice(first, first + TEXTS_AT_ONCE)
                slots = bucket(len(ids[chunk]), TEXTS_AT_ONCE)
                inputs = [filled(values[chunk], slots) for values in (ids, mask)]
                inputs = [np.broadcast_to(values, (len(image), *values.shape)) for values in inputs]
                parts.append(self._call(function, image, *inputs))
            rows.append((parts, count))
        return [
            [_row(parts[place // TEXTS_AT_ONCE], image, place % TEXTS_AT_ONCE) for place in range(len(texts))]
            for parts, count in jax.device_get(rows)
            for image in range(count)
        ]

    def _features(self, images: list[ImageLike], texts: list[str]) -> list[Features]:
        rows = self._over_texts(self._fused, images, texts)
        return [Features(*fused, self._warnings(text)) for row in rows for fused, text in zip(row, texts, strict=True)]

    def _fused(self, params: Parameters, *inputs: np.ndarray) -> tuple[jax.Array, ...]:
        """Each with an axis of images and one of texts, which may have length 1 where texts do not differ."""
        fused = self._streams(params, *inputs)
        return fused.image, fused.text, fused.image_mask[:, None], fused.text_mask


def _row(outputs: Output, image: int, text: int) -> Output:
    """Those of one image and one text; arrays that do not depend on texts have one entry for all of them."""
    return jax.tree.map(lambda leaf: leaf[image, min(text, leaf.shape[1] - 1)], outputs)


def load_run(
    folder: RunFolder, *, checkpoint: str = "best", config: Config | None = None, scoring: ImageScoring | None = None
) -> RunModel:
    """The model of a run or of a model directory.

    `config` is the run's, with changes of its use. Raises `InputError` where the checkpoint or another file is damaged.
    """
    saved = folder.config()
    config = config or saved
    at_once = max(AT_ONCE, config.training.evaluation_batch_images)
    used = with_changes(config, {"training.evaluation_batch_images": at_once})
    task = make_task(used, make_encoder(used, folder), folder, scoring)
    params, step = _read_saved(folder, saved, checkpoint)
    is_listed = config.task in MODELS
    model_class = import_module(f"vlm_jax.inference.{config.task}").MODEL if is_listed else RunModel
    model = model_class(folder, config, task, jax.device_put(params), step)
    if folder.checkpoints.is_dir() and not folder.finished:
        model.warnings = (f"the run {folder.path} has not ended; this is its checkpoint of optimizer step {step}",)
        _logger.warning("%s", model.warnings[0])
    return model


def _read_saved(folder: RunFolder, config: Config, checkpoint: str) -> tuple[Parameters, int]:
    """The parameters of a checkpoint of a run, or those of a model directory, and their optimizer step."""
    place = folder.checkpoints
    if not place.is_dir() and (file := folder.file(MODEL)).is_file():
        return _read_model(file, checkpoint)
    step, *others = manifests.choices(place, checkpoint)
    why = manifests.fault(place / str(step), folder.made_with())
    if why is not None:
        hint = f"; to use another one, {one_of(map(str, others))}" if others else "; train again"
        raise InputError(f"checkpoint {step} in {place} is damaged: {why}{hint}")
    return read_params(place / str(step), ema=config.optimizer.ema is not None), step


def _read_model(file: Path, checkpoint: str) -> tuple[Parameters, int]:
    try:
        with safe_open(file, "np") as opened:
            step = int(opened.metadata()["checkpoint_step"])
            leaves = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{file} is no model that save_pretrained wrote: {error}") from None
    if checkpoint not in (names := ("best", "latest", str(step))):
        raise InputError(f"{file.parent} has no checkpoint {checkpoint!r}; {one_of(names)}")
    return unflatten(leaves), step
