"""From a config and its run folder to the parts that training, evaluation and prediction share."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from vlm_jax.config import Config
from vlm_jax.data.answers import AnswerVocabulary, most_answers
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.text import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.run_folder import ANSWERS, IMAGE_TOKENIZER, TEXT_TOKENIZER, RunFolder, open_run
from vlm_jax.tasks import TASKS
from vlm_jax.tasks.reranker import Reranker
from vlm_jax.tasks.trained_tokenizer import TrainedTokenizer, differing, save_tokenizer
from vlm_jax.training.checkpoint import Checkpoints
from vlm_jax.training.checkpoint_manifest import steps
from vlm_jax.training.pretrained import check_tokenizer, tokenizer_source
from vlm_jax.training.state import Parameters
from vlm_jax.trees import flatten
from vlm_jax.types import Example

COUNTED_IMAGES = 1_000  # images whose texts are counted before training


def make_encoder(config: Config, folder: RunFolder, train: Sequence[Example] | None = None) -> ExampleEncoder:
    """The run's tokenizer and answers: those saved in its folder, or, given the training set, made and saved there."""
    has_questions = config.data.texts == "questions"
    if not folder.sealed:  # what a killed start left may be half of it
        if train is None:
            raise InputError(f"{folder.path} has no tokenizer or no answers: the run never started; train it first")
        text, source = config.model.text, tokenizer_source(config.model)
        if source is None:
            texts = (question.text for example in train for question in example.questions)
            tokenizer = Tokenizer.build(texts, text.vocab_size)
        else:
            tokenizer = Tokenizer.load(source)
        check_tokenizer(tokenizer, config.model)
        if config.task != "image_tokenizer":
            _warn_truncated(tokenizer, train, text.max_length)
        tokenizer.save(folder.path)
        if has_questions:
            AnswerVocabulary.build(train, min_count=config.data.min_answer_count).save(folder.path / ANSWERS)
    tokenizer = Tokenizer.load(folder.file(TEXT_TOKENIZER))
    _check_ids(tokenizer, folder, config.model.text.vocab_size)
    return ExampleEncoder(
        tokenizer=tokenizer,
        answers=AnswerVocabulary.load(folder.file(ANSWERS)) if has_questions else None,
        image=config.data.image,
        max_length=config.model.text.max_length,
        texts_per_image=config.data.texts_per_image,
        accepted_answers=most_answers(train) if train is not None else 1,
    )


def _check_ids(tokenizer: Tokenizer, folder: RunFolder, rows: int) -> None:
    """Raise `InputError` where a token has an id that the table of words has no row for."""
    highest = tokenizer.vocab_size - 1
    if highest >= rows:
        raise InputError(
            f"{folder.path / TEXT_TOKENIZER} gives the token {tokenizer.token(highest)!r} the id {highest}, and the "
            f"table of words has rows 0 to {rows - 1} (model.text.vocab_size)"
        )


def _warn_truncated(tokenizer: Tokenizer, train: Sequence[Example], max_length: int) -> None:
    """A text that loses its end is learned without it: a person should know."""
    examples = (train[index] for index in range(min(len(train), COUNTED_IMAGES)))
    texts = [question.text for example in examples for question in example.questions]
    cut = tokenizer.truncated(texts, max_length)
    if cut:
        print(
            f"note: {cut / len(texts):.0%} of the training texts have more than the {max_length - 2} tokens of "
            "model.text.max_length, and lose their end",
            file=sys.stderr,
        )


def make_task(config: Config, encode: ExampleEncoder, folder: RunFolder) -> Any:
    """The task of a run's config. One that draws keeps the image tokenizer that it began with in its folder."""
    if config.task != "image_generation":
        return TASKS[config.task](config, encode)
    if not folder.sealed:
        trained, tokenizer_config = tokenizer_run(config)
        _, params, _ = load_trained(tokenizer_config, trained, make_encoder(tokenizer_config, trained), which="best")
        save_tokenizer(folder.path / IMAGE_TOKENIZER, tokenizer_config, params)
    return TASKS[config.task](config, encode, TrainedTokenizer(folder.file(IMAGE_TOKENIZER)), _reranker(config))


def _reranker(config: Config) -> Reranker | None:
    if config.generation.reranker is None:
        return None
    folder, run_config = reranker_run(config)
    task, params, step = load_trained(run_config, folder, make_encoder(run_config, folder), which="best")
    flat = flatten(jax.device_get(params))
    digest = hashlib.sha256(b"".join(flat[name].tobytes() for name in sorted(flat))).hexdigest()
    return Reranker(task, params, {"run": config.generation.reranker, "checkpoint_step": step, "sha256": digest})


def reranker_run(config: Config) -> tuple[RunFolder, Config]:
    """The run of `generation.reranker` and its config; `InputError` where it has not ended or writes no captions."""
    return _finished(
        "generation.reranker", config.generation.reranker, "captioning", "configs/shape_scenes_captioning.py"
    )


def tokenizer_run(config: Config) -> tuple[RunFolder, Config]:
    """The run of `generation.tokenizer` and its config; `InputError` where it has not ended or makes other codes."""
    path = config.generation.tokenizer
    folder, run_config = _finished("generation.tokenizer", path, "image_tokenizer", "configs/shape_scenes_tokenizer.py")
    if differences := differing(config, run_config):
        raise InputError(f"generation.tokenizer {path} has {differences}, and the config says otherwise; give the same")
    return folder, run_config


def _finished(setting: str, path: str, task: str, preset: str) -> tuple[RunFolder, Config]:
    folder = open_run(Path(path).expanduser())
    run_config = folder.config()
    if run_config.task != task:
        raise InputError(
            f"{setting} {path} is a run of the task {run_config.task!r}; give one of {task!r}, such as {preset} leaves"
        )
    if not folder.finished:
        raise InputError(f"{setting} {path} is a run that has not ended; finish it with experiments.train")
    return folder, run_config


def saved_steps(folder: RunFolder) -> int:
    """The optimizer step of the newest checkpoint, 0 where there is none."""
    return max(steps(folder.checkpoints), default=0)


def load_trained(
    config: Config, folder: RunFolder, encode: ExampleEncoder, *, which: str
) -> tuple[Any, Parameters, int]:
    """Task, parameters (the moving average where there is one) and their optimizer step, from a run's checkpoints."""
    task = make_task(config, encode, folder)
    shapes = jax.eval_shape(task.init_params, jax.random.key(config.seed))
    with Checkpoints(folder.checkpoints, made_with=folder.made_with()) as checkpoints:
        params, step = checkpoints.restore_params(shapes, which=which, ema=config.optimizer.ema is not None)
    return task, params, step
