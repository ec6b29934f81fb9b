"""What settings must satisfy, alone and together, before anything is compiled or written."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from vlm_jax.config import PAIRINGS, Config, ImageEncoder, leaves
from vlm_jax.errors import InputError, one_of

MAX_CODEBOOK_SIZE = 2**16
LEAST_SIDE = 16  # pixels: what the structural similarity of two images needs, and a little more

# Every number among the settings, by the rule that it or each of its entries keeps. None, where it may be, always may.
RULES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        "at least 1",
        lambda value: value >= 1,
        (
            "data.texts_per_image",
            "data.limit",
            "data.evaluation_limit",
            "data.min_answer_count",
            "data.threads",
            "data.read_ahead",
            "data.drawing_size",
            "data.drawing_things",
            "data.image.size",
            "data.image.short_side",
            "data.image.max_pixels",
            "model.hidden_size",
            "model.num_attention_heads",
            "model.num_layers",
            "model.intermediate_size",
            "model.classes",
            "model.image.stem_width",
            "model.image.stem_stride",
            "model.image.widths",
            "model.image.patch_size",
            "model.image.feature_size",
            "model.image.max_position_embeddings",
            "model.text.vocab_size",
            "model.text.feature_size",
            "model.text.max_position_embeddings",
            "model.image.modality_type_vocab_size",
            "training.steps",
            "training.batch_images",
            "training.accumulation",
            "training.log_every",
            "training.evaluate_every",
            "training.evaluation_batch_images",
            "model.image_tokenizer.embedding_size",
            "model.image_tokenizer.patch_size",
            "model.image_tokenizer.widths",
            "decoding.num_return_sequences",
            "decoding.num_beams",
            "decoding.top_k",
            "generation.num_decoding_steps",
            "generation.num_images",
            "generation.num_candidates",
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
            "model.text.type_vocab_size",
            "model.text.first_position",
            "optimizer.warmup_steps",
            "decoding.min_length",
            "model.image_tokenizer.depths",
            "generation.num_refinement_rounds",
        ),
    ),
    # Of two levels the bounding tanh stands at its flat end: a number gets a thousandth of the gradient, and stays.
    ("3 to 1000", lambda value: 3 <= value <= 1000, ("model.image_tokenizer.levels",)),
    (
        "at least 2",
        lambda value: value >= 2,
        ("model.image_tokenizer.codebook_size",),
    ),  # one image token says nothing of an image
    ("0, or at least 2", lambda value: value == 0 or value >= 2, ("decoding.no_repeat_ngram_size",)),
    ("above 0 and at most 1", lambda value: 0 < value <= 1, ("decoding.top_p",)),
    ("0 to 1", lambda value: 0 <= value <= 1, ("generation.token_frequency_power",)),
    ("finite", math.isfinite, ("data.image.mean",)),
    (
        "at least 0 and finite",
        lambda value: 0 <= value < math.inf,
        (
            "optimizer.learning_rate",
            "optimizer.weight_decay",
            "decoding.length_penalty",
            "model.image_tokenizer.commitment",
            "model.image_tokenizer.encoder_noise",
            "generation.guidance",
            "generation.choice_temperature",
        ),
    ),
    (
        "above 0 and finite",
        lambda value: 0 < value < math.inf,
        (
            "data.image.std",
            "model.layer_norm_eps",
            "optimizer.epsilon",
            "optimizer.clip_norm",
            "decoding.temperature",
            "generation.temperature",
        ),
    ),
    (
        "at least 0 and below 1",
        lambda value: 0 <= value < 1,
        (
            "model.hidden_dropout_prob",
            "model.attention_probs_dropout_prob",
            "optimizer.b1",
            "optimizer.b2",
            "optimizer.ema",
            "training.label_smoothing",
            "generation.cond_drop_prob",
        ),
    ),
    ("at least 0 and below 2**32", lambda value: 0 <= value < 2**32, ("seed", "data.drawing_seed")),
)


def check(config: Config) -> Config:
    """The config with what was left open chosen, or an `InputError` that names the setting at fault and the remedy."""
    _check_numbers(config)
    config = _choose_texts(_choose(config))
    model, training = config.model, config.training
    _require(
        model.hidden_size % model.num_attention_heads == 0,
        f"model.hidden_size {model.hidden_size} is not a multiple of model.num_attention_heads "
        f"{model.num_attention_heads}; "
        f"the nearest hidden_size is {_nearest_multiple(model.hidden_size, model.num_attention_heads)}",
    )
    _require(
        len(model.image.widths) == len(model.image.blocks),
        f"model.image.blocks has {len(model.image.blocks)} stages, model.image.widths {len(model.image.widths)}; "
        "give both the same length",
    )
    _check_short_side(config)
    needed = model.text.first_position + model.text.max_length
    _require(
        needed <= model.text.max_position_embeddings,
        f"model.text.max_length {model.text.max_length} needs {needed} positions, model.text.max_position_embeddings "
        f"is "
        f"{model.text.max_position_embeddings}; raise the latter",
    )
    _require(
        training.batch_images % training.accumulation == 0,
        f"training.batch_images {training.batch_images} does not divide into training.accumulation "
        f"{training.accumulation} micro-batches; the nearest batch is "
        f"{_nearest_multiple(training.batch_images, training.accumulation)}",
    )
    _check_decoding(config)
    _check_image_tokens(config)
    return config


def _check_short_side(config: Config) -> None:
    image = config.data.image
    if image.short_side is None:
        return
    _require(
        image.resize == "crop",
        f"data.image.short_side {image.short_side} needs data.image.resize crop, not {image.resize}",
    )
    _require(
        image.short_side >= max(image.size),
        f"data.image.short_side {image.short_side} is less than data.image.size {image.size}; the smallest is "
        f"{max(image.size)}",
    )


def _check_image_tokens(config: Config) -> None:
    tokenizer = config.model.image_tokenizer
    _require(
        len(tokenizer.widths) == len(tokenizer.depths),
        f"model.image_tokenizer.depths has {len(tokenizer.depths)} stages, model.image_tokenizer.widths "
        f"{len(tokenizer.widths)}; "
        "give both the same length",
    )
    _require(
        math.prod(tokenizer.levels) <= MAX_CODEBOOK_SIZE,
        f"model.image_tokenizer.levels {tokenizer.levels} make {math.prod(tokenizer.levels):,} image tokens; choose "
        f"at most "
        f"{MAX_CODEBOOK_SIZE:,}",
    )
    if config.task not in ("image_tokenizer", "image_generation"):
        return
    training = config.training
    image, generation = config.data.image, config.generation
    patch = tokenizer.patch_size * 2 ** (len(tokenizer.widths) - 1)
    for side in image.size:
        _require(
            side % patch == 0 and side >= LEAST_SIDE,
            f"data.image.size {image.size} is below {LEAST_SIDE} pixels, or does not divide into cells of {patch} "
            "pixels (model.image_tokenizer); "
            f"the nearest side is {_nearest_multiple(max(side, LEAST_SIDE + patch // 2), patch)}",
        )
    if config.task == "image_tokenizer":
        _require(
            config.model.compute_dtype == "float32",
            f"model.compute_dtype {config.model.compute_dtype!r} is not for an image tokenizer; leave it out",
        )
        _require(
            training.label_smoothing == 0,
            "training.label_smoothing is for tasks that choose among words, answers or image tokens, and an image "
            "tokenizer "
            "draws pixels; leave it out",
        )
        _require(
            config.optimizer.name != "muon",
            "optimizer.name 'muon' is for the matrices of a trunk, and an image tokenizer has none; choose 'adamw'",
        )
        return
    _require(
        config.data.name != "shape_scenes" or (image.size[0] == image.size[1] and image.size[0] % 64 == 0),
        f"data.image.size {image.size}: drawn scenes are read from square images of a multiple of 64 pixels",
    )
    _require(
        not image.flip and not image.shift,
        "data.image.flip and data.image.shift move pixels, and an image is image tokens here; set them for the "
        "tokenizer",
    )
    _require(
        generation.cond_drop_prob > 0 or generation.guidance == 0,
        "generation.guidance needs what is learned without a prompt; raise generation.cond_drop_prob, or set guidance "
        "0",
    )
    _require(
        generation.features is not None or generation.features_sha256 is None,
        "generation.features_sha256 is the digest of nothing; give generation.features, or leave it out",
    )
    _require(
        generation.tokenizer is not None,
        "generation.tokenizer is open: images are drawn as image tokens; give the run of an image tokenizer, "
        "such as one of configs/shape_scenes_tokenizer.py",
    )
    _require(
        generation.loss_weighting == "uniform" or config.model.attention_pattern != "autoregressive",
        "generation.loss_weighting 'elbo' is about how many image tokens are hidden, and with model.attention_pattern "
        "'autoregressive' none is; leave one "
        "of them out",
    )
    _require(
        generation.token_frequency_power == 0 or training.label_smoothing == 0,
        "training.label_smoothing would be spread by generation.token_frequency_power, not evenly; leave one of them "
        "out",
    )
    _require(
        generation.num_refinement_rounds == 0 or config.model.attention_pattern != "autoregressive",
        "generation.num_refinement_rounds draws image tokens of a whole image anew, and with model.attention_pattern "
        "'autoregressive' none knows those "
        "after it; leave one of them out",
    )
    _require(
        generation.reranker is None or generation.num_candidates > 1,
        "generation.reranker chooses among candidates, and generation.num_candidates is 1; raise it, or leave the "
        "reranker out",
    )
    _require(
        generation.reranker is not None or generation.num_candidates <= training.evaluation_batch_images,
        f"generation.num_candidates is {generation.num_candidates}, and all of an image's are drawn at once; choose "
        f"at most "
        f"{training.evaluation_batch_images}, or raise training.evaluation_batch_images",
    )


def _check_decoding(config: Config) -> None:
    settings = config.decoding
    most = {"greedy": 1, "beam": settings.num_beams}.get(settings.method, settings.num_return_sequences)
    _require(
        settings.num_return_sequences <= most,
        f"decoding.num_return_sequences is {settings.num_return_sequences}, and decoding.method {settings.method!r} "
        f"gives "
        f"{most} at most; " + ("raise decoding.num_beams" if settings.method == "beam" else "choose sample or beam"),
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
    if task not in PAIRINGS:  # no trunk
        return config
    _require(
        fusion in PAIRINGS[task],
        f"model.fusion {fusion!r} cannot do the task {task!r}; {one_of(PAIRINGS[task])}",
    )
    chosen: dict[str, Any] = {}
    for name, allowed in zip(("attention_pattern", "head"), PAIRINGS[task][fusion], strict=True):
        value = getattr(config.model, name) or allowed[0]
        _require(
            value in allowed,
            f"model.{name} {value!r} does not go with model.fusion {fusion!r} in the task {task!r}; "
            f"{one_of(allowed)}, or leave it out",
        )
        chosen[name] = value
    image = config.model.image
    if task == "image_generation":
        _require(
            image.cnn in (ImageEncoder().cnn, "image_tokens"),
            f"model.image.cnn {image.cnn!r} does not go with the task {task!r}, whose images are image tokens; leave "
            f"it out",
        )
        image = dataclasses.replace(image, cnn="image_tokens")
    _require(
        task == "image_generation" or image.cnn not in ("features", "image_tokens"),
        f"model.image.cnn {image.cnn!r} takes precomputed {image.cnn}, and the data set {config.data.name!r} holds "
        "images; choose one of: efficientnet_lite0, mobilenet_v2, patches, resnet101, resnet18, resnet34, resnet50, "
        "small",
    )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, image=image, **chosen))


def _choose_texts(config: Config) -> Config:
    """The config with what its data set is read for chosen."""
    data, task = config.data, config.task
    accuracy = data.accuracy or ("vqa" if data.name == "vqa_v2" else "soft")
    has_questions = data.name in ("easy_vqa", "sort_of_clevr", "vqa_v2")  # no captions there
    by_task = {"vqa": "questions", "image_tokenizer": "questions" if has_questions else "captions"}
    texts = data.texts or by_task.get(task, "captions")
    _require(
        task == "image_tokenizer" or (texts == "questions") == (task == "vqa"),
        f"data.texts {texts!r} does not go with the task {task!r}; leave it out",
    )
    return dataclasses.replace(config, data=dataclasses.replace(data, accuracy=accuracy, texts=texts))


def _nearest_multiple(value: int, unit: int) -> int:
    return max(1, round(value / unit)) * unit


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)
