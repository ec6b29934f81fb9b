"""What settings must satisfy, alone and together, before anything is compiled or written."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from vlm_jax.config import PAIRINGS, Config, leaves
from vlm_jax.errors import InputError, nearest

# Every number among the settings, by the rule that it or each of its entries keeps. None, where it may be, always may.
RULES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        "at least 1",
        lambda value: value >= 1,
        (
            "data.questions_per_image",
            "data.limit",
            "data.min_answer_count",
            "data.threads",
            "data.read_ahead",
            "data.drawing_size",
            "data.drawing_things",
            "data.image.size",
            "data.image.max_pixels",
            "model.width",
            "model.heads",
            "model.layers",
            "model.mlp_width",
            "model.classes",
            "model.image.stem_width",
            "model.image.stem_stride",
            "model.image.widths",
            "model.image.patch_size",
            "model.image.features",
            "model.image.max_positions",
            "model.text.vocabulary_size",
            "model.text.width",
            "model.text.max_positions",
            "model.image.segments",
            "training.steps",
            "training.batch_images",
            "training.accumulation",
            "training.log_every",
            "training.evaluate_every",
            "training.evaluation_batch_images",
            "decoding.texts",
            "decoding.beams",
            "decoding.top_k",
            "parallel.devices",
        ),
    ),
    ("at least 3", lambda value: value >= 3, ("model.text.max_length",)),  # [CLS], a word, [SEP]
    (
        "at least 0",
        lambda value: value >= 0,
        (
            "data.image.shift",
            "model.image.blocks",
            "model.text.segments",
            "model.text.first_position",
            "optimizer.warmup_steps",
            "decoding.min_length",
        ),
    ),
    ("0, or at least 2", lambda value: value == 0 or value >= 2, ("decoding.no_repeat_ngram",)),
    ("above 0 and at most 1", lambda value: 0 < value <= 1, ("decoding.top_p",)),
    ("finite", math.isfinite, ("data.image.mean",)),
    (
        "at least 0 and finite",
        lambda value: 0 <= value < math.inf,
        ("optimizer.learning_rate", "optimizer.weight_decay", "decoding.length_penalty"),
    ),
    (
        "above 0 and finite",
        lambda value: 0 < value < math.inf,
        (
            "data.image.deviation",
            "model.norm_epsilon",
            "optimizer.epsilon",
            "optimizer.clip_norm",
            "decoding.temperature",
        ),
    ),
    (
        "at least 0 and below 1",
        lambda value: 0 <= value < 1,
        (
            "model.dropout",
            "model.attention_dropout",
            "optimizer.b1",
            "optimizer.b2",
            "optimizer.ema",
            "training.label_smoothing",
        ),
    ),
    ("at least 0 and below 2**32", lambda value: 0 <= value < 2**32, ("seed", "data.drawing_seed")),
)


def check(config: Config) -> Config:
    """The config with what was left open chosen, or an `InputError` that names the setting at fault and the remedy."""
    _check_numbers(config)
    config = _choose(config)
    model, training = config.model, config.training
    _require(
        model.width % model.heads == 0,
        f"model.width {model.width} is not a multiple of model.heads {model.heads}; "
        f"the nearest width is {_nearest_multiple(model.width, model.heads)}",
    )
    _require(
        len(model.image.widths) == len(model.image.blocks),
        f"model.image.blocks has {len(model.image.blocks)} stages, model.image.widths {len(model.image.widths)}; "
        "give both the same length",
    )
    needed = model.text.first_position + model.text.max_length
    _require(
        needed <= model.text.max_positions,
        f"model.text.max_length {model.text.max_length} needs {needed} positions, model.text.max_positions is "
        f"{model.text.max_positions}; raise the latter",
    )
    _require(
        training.batch_images % training.accumulation == 0,
        f"training.batch_images {training.batch_images} does not divide into training.accumulation "
        f"{training.accumulation} micro-batches; the nearest batch is "
        f"{_nearest_multiple(training.batch_images, training.accumulation)}",
    )
    _check_decoding(config)
    return config


def _check_decoding(config: Config) -> None:
    settings = config.decoding
    most = {"greedy": 1, "beam": settings.beams}.get(settings.method, settings.texts)
    _require(
        settings.texts <= most,
        f"decoding.texts is {settings.texts}, and decoding.method {settings.method!r} gives "
        f"{most} at most; " + ("raise decoding.beams" if settings.method == "beam" else "choose sample or beam"),
    )
    words = config.model.text.max_length - 2
    _require(
        settings.min_length <= words,
        f"decoding.min_length is {settings.min_length}, and a text of model.text.max_length "
        f"{config.model.text.max_length} has {words} tokens beside [CLS] and [SEP]; lower it",
    )


def _check_numbers(config: Config) -> None:
    values = leaves(config)
    for rule, holds, settings in RULES:
        for setting in settings:
            value = values[setting]
            entries = value if isinstance(value, tuple) else () if value is None else (value,)
            _require(all(map(holds, entries)), f"{setting} is {value}; it must be {rule}")
    for _, factor in config.optimizer.multipliers:
        _require(0 <= factor < math.inf, f"optimizer.multipliers has the factor {factor}; it must be at least 0")


def _choose(config: Config) -> Config:
    """The config with what was left open chosen; a fusion, pattern and head that cannot work together are refused."""
    task, fusion = config.task, config.model.fusion
    _require(
        fusion in PAIRINGS[task],
        f"model.fusion {fusion!r} cannot do the task {task!r}; {nearest(fusion, PAIRINGS[task])}",
    )
    chosen: dict[str, Any] = {}
    for name, allowed in zip(("pattern", "head"), PAIRINGS[task][fusion], strict=True):
        value = getattr(config.model, name) or allowed[0]
        _require(
            value in allowed,
            f"model.{name} {value!r} does not go with model.fusion {fusion!r} in the task {task!r}; "
            f"{nearest(value, allowed)}, or leave it out",
        )
        chosen[name] = value
    _require(
        config.model.image.cnn != "features",
        f"model.image.cnn 'features' takes precomputed grid features, and the data set {config.data.name!r} holds "
        "pictures; choose one of: efficientnet_lite0, mobilenet_v2, patches, resnet101, resnet18, resnet34, resnet50, "
        "small",
    )
    accuracy = config.data.accuracy or ("vqa" if config.data.name == "vqa_v2" else "share")
    texts = config.data.texts or ("captions" if task == "captioning" else "questions")
    _require(
        (texts == "questions") == (task != "captioning"),
        f"data.texts {texts!r} does not go with the task {task!r}; leave it out",
    )
    data = dataclasses.replace(config.data, accuracy=accuracy, texts=texts)
    return dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, **chosen))


def _nearest_multiple(value: int, unit: int) -> int:
    return max(1, round(value / unit)) * unit


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
