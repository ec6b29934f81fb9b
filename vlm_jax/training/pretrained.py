"""Weights that training can start from, wherever they are: published ones, imports, runs of ours."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import GridEncoder, ImageTokens
from vlm_jax.config.initialization import WordsInit
from vlm_jax.config.trunk import TextConfig
from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.tokenizer_settings import CONFIG as TOKENIZER_CONFIG
from vlm_jax.data.wordpiece import TOKENIZER_FILES
from vlm_jax.errors import InputError
from vlm_jax.models.fusion import layer_names
from vlm_jax.run_folder import ANSWERS, CONFIG, TEXT_TOKENIZER, RunFolder, open_run
from vlm_jax.tasks import task_class
from vlm_jax.training.checkpoint import Checkpoints
from vlm_jax.trees import flatten
from vlm_jax.weights.converted_model import ConvertedModel, Origin
from vlm_jax.weights.export import text_side
from vlm_jax.weights.import_folder import ABOUT, read, read_import
from vlm_jax.weights.source import as_path, first_way, locate


class Pretrained(NamedTuple):
    """Weights of a source; its text layers are `trunk/layer_0` and so on, an image trunk `trunk/image_layer_0`."""

    family: str
    origin: Origin
    model: Architecture | None
    image: GridEncoder | None
    input: ImageInput | None
    leaves: dict[str, np.ndarray]
    answers: tuple[str, ...]
    """What the classes of its head mean, where that is known."""


def open_pretrained(name: str) -> Pretrained:
    """A source that can be ported, the folder of an import, or a run."""
    folder = as_path(name)
    if _is_run(folder):
        return _open_run(name, RunFolder(folder))
    converted = read(name).image_side
    architecture, leaves = converted.architecture, flatten(converted.params)
    if architecture.is_image_encoder:
        return Pretrained(
            converted.family.name, converted.origin, None, architecture.model, architecture.input, leaves, ()
        )
    # A published encoder has no such `text_fc`, and the identity changes nothing.
    leaves["embed/text_fc/kernel"] = np.eye(architecture.model.hidden_size, dtype=np.float32)
    leaves["embed/text_fc/bias"] = np.zeros(architecture.model.hidden_size, np.float32)
    return Pretrained(converted.family.name, converted.origin, architecture.model, None, None, leaves, converted.labels)


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and RunFolder(folder).checkpoints.is_dir()


def _open_run(name: str, folder: RunFolder) -> Pretrained:
    config = folder.config()
    with Checkpoints(folder.checkpoints, made_with=folder.made_with()) as checkpoints:
        params, step = checkpoints.restore_params(None, which="best", ema=config.optimizer.ema is not None)
        digest = checkpoints.digest(step)
    model = config.architecture if isinstance(config, TextConfig) else None
    leaves = {generic(path, model) if model else path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    origin = Origin(f"{name}, step {step}", None, digest)
    answers = AnswerVocabulary.load(folder.file(ANSWERS)).answers if task_class(config.task).classifies else ()
    image = model.image if model and not isinstance(model.image, ImageTokens) else None
    return Pretrained("run", origin, model, image, config.image, leaves, answers)


def open_converted(folder: Path) -> ConvertedModel:
    """What can be exported: an import, or the text side of a run."""
    return read_import(folder) if (folder / ABOUT).is_file() else text_side_of_run(folder)


def text_side_of_run(path: Path) -> ConvertedModel:
    """The text side of a run's best checkpoint as a BERT that can be exported."""
    folder = open_run(path)
    source, tokenizer = _open_run(str(path), folder), folder.file(TEXT_TOKENIZER)
    if source.model is None:
        raise InputError(f"{path} is a run of an image tokenizer, which has no text side")
    read_by = Tokenizer.load(tokenizer)
    converted = text_side(source.model, source.leaves, source.origin, (tokenizer,), pad_id=read_by.pad_id)
    return dataclasses.replace(converted, settings_files={TOKENIZER_CONFIG: read_by.settings()})


def tokenizer_source(config: TextConfig) -> str | None:
    """Where the tokenizer of a config comes from: given, or beside the weights that the text side starts from."""
    text, start = config.model.text, _text_start(config)
    if text.tokenizer is not None:
        return first_way(text.tokenizer)
    return None if start is None else source_tokenizer(start)


def check_tokenizer(tokenizer: Tokenizer, config: TextConfig) -> None:
    """`InputError` where a token has no row in the model's word table, or in that of the weights that it starts from.

    A larger table is trained from, as transformers does; the rows of no token are never predicted.
    """
    start, needed = _text_start(config), tokenizer.vocab_size
    vocab_size = config.model.text.vocab_size
    source_rows = table_rows(start) if start is not None else None
    if source_rows is None:
        tokenizer.check_fits(vocab_size, f"set model.text.vocab_size to at least {needed}")
        return
    tokenizer.check_fits(
        source_rows,
        f"it is that of {start}: give the tokenizer that these weights were trained with as model.text.tokenizer",
    )
    tokenizer.check_fits(vocab_size, f"set model.text.vocab_size to {source_rows}, the rows that {start} has")


def table_rows(name: str) -> int | None:
    """The rows of a source's word table as its settings say, no tensor read; None where they say nothing."""
    path = locate(name)[0]
    folder = path if path.is_dir() else path.parent
    if _is_run(folder):
        model = getattr(RunFolder(folder).config(), "architecture", None)
        return model.vocab_size if model else None
    for file, keys in ((ABOUT, ("model", "vocab_size")), (CONFIG, ("vocab_size",))):
        try:
            value = json.loads((folder / file).read_text(encoding="utf-8"))
            for key in keys:
                value = value[key]
            return value if isinstance(value, int) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # what is amiss with the file is said where its weights are read
    return None


def source_tokenizer(start: str) -> str:
    """Where the tokenizer of pretrained weights lies; `InputError` where none does."""
    folder = locate(start)[0]
    if _is_run(folder):
        return str(RunFolder(folder).file(TEXT_TOKENIZER))
    folder = folder if folder.is_dir() else folder.parent
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        if table_rows(start) is None:
            raise InputError(f"{start} holds no text encoder; if it is an image encoder, give it as init.image")
        raise InputError(f"no tokenizer lies beside {start}; give model.text.tokenizer")
    return str(folder)


def _text_start(config: TextConfig) -> str | None:
    """The source whose tokenizer the text side needs; word vectors alone fit any."""
    if isinstance(config.init, WordsInit):
        return None
    return getattr(config.init, "text", None) or getattr(config.init, "model", None)


def specific(path: str, model: Architecture) -> str:
    """The path that a leaf of a `Pretrained` has in our model."""
    return next(
        (own + path.removeprefix(common) for common, own in layer_names(model) if path.startswith(common)), path
    )


def generic(path: str, model: Architecture) -> str:
    """The path that a leaf of our model has in a `Pretrained`."""
    return next((common + path.removeprefix(own) for common, own in layer_names(model) if path.startswith(own)), path)
