"""From a config and its run folder to the parts that training, evaluation and prediction share."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Sharding

from vlm_jax.config.encoders import FeatureFolder
from vlm_jax.config.run import Config
from vlm_jax.config.trunk import TextConfig
from vlm_jax.config.use import ImageScoring
from vlm_jax.data.answers import AnswerVocabulary, most_answers
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.feature_folder import FeatureShape, FeatureSource, open_features
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.files import read_settings_file
from vlm_jax.run_folder import ANSWERS, IMAGE_FEATURES, TEXT_TOKENIZER, RunFolder
from vlm_jax.tasks import task_class
from vlm_jax.tasks.base import Task
from vlm_jax.training import checkpoint_manifest as manifests
from vlm_jax.training.saved_params import read_params
from vlm_jax.trees import compare_trees
from vlm_jax.types import Example, Parameters

COUNTED_IMAGES = 1_000  # images whose texts are counted before training


class Trained(NamedTuple):
    """A model as a checkpoint of a run has it."""

    task: Task
    params: Parameters
    """The moving average where there is one."""
    step: int
    """The optimizer step of the checkpoint."""


def make_encoder(config: Config, folder: RunFolder, train: Sequence[Example] | None = None) -> ExampleEncoder:
    """The run's tokenizer and answers: those saved in its folder, or, given the training set, made and saved there."""
    if not isinstance(config, TextConfig):  # reads no text
        shape = {"max_length": 3, "texts_per_image": 1, "max_pixels": config.data.max_pixels}
        return ExampleEncoder(Tokenizer.empty(), None, config.image, **shape)
    if not folder.sealed:  # what a killed start left may be half of it
        if train is None:
            raise InputError(f"{folder.path} has no tokenizer or no answers: the run never started; train it first")
        _save_vocabularies(config, folder, train)
    text, tokenizer = config.model.text, Tokenizer.load(folder.file(TEXT_TOKENIZER))
    tokenizer.check_fits(text.vocab_size, "put back the tokenizer that the run was trained with")
    return ExampleEncoder(
        tokenizer=tokenizer,
        answers=AnswerVocabulary.load(folder.file(ANSWERS)) if task_class(config.task).classifies else None,
        image=config.image,
        max_length=text.max_length,
        texts_per_image=config.training.texts_per_image,
        accepted_answers=most_answers(train) if train is not None else 1,
        max_pixels=config.data.max_pixels,
        cached=given_features(config) if train is not None else _known_features(folder),
    )


def _known_features(folder: RunFolder) -> FeatureShape | None:
    """What a trained run says of the features that it reads in the place of images."""
    file = folder.file(IMAGE_FEATURES)
    return FeatureShape(tuple(read_settings_file(file)["shape"])) if file.is_file() else None


def given_features(config: Config) -> FeatureSource | None:
    """The features that a model reads in the place of images, where the config names some."""
    image = config.model.image if isinstance(config, TextConfig) else None
    return open_features(image.folder, config.image) if isinstance(image, FeatureFolder) else None


def _save_vocabularies(config: TextConfig, folder: RunFolder, train: Sequence[Example]) -> None:
    """Write the tokenizer and, for questions, the answers of the training set."""
    from vlm_jax.training.pretrained import check_tokenizer, tokenizer_source  # brings what reads published weights

    text, source = config.model.text, tokenizer_source(config)
    if source is None:
        texts = (text.text for example in train for text in example.texts)
        tokenizer = Tokenizer.build(texts, text.vocab_size)
    else:
        tokenizer = Tokenizer.load(source)
    check_tokenizer(tokenizer, config)
    _warn_truncated(tokenizer, train, text.max_length)
    tokenizer.save(folder.path)
    if task_class(config.task).classifies:
        AnswerVocabulary.build(train, min_count=config.data.min_answer_count).save(folder.path / ANSWERS)


def _warn_truncated(tokenizer: Tokenizer, train: Sequence[Example], max_length: int) -> None:
    """A text that loses its end is learned without it: a person should know."""
    examples = (train[index] for index in range(min(len(train), COUNTED_IMAGES)))
    texts = [text.text for example in examples for text in example.texts]
    cut = tokenizer.truncated(texts, max_length)
    if cut:
        print(
            f"note: {cut / len(texts):.0%} of the training texts have more than the {max_length - 2} tokens of "
            "model.text.max_length, and lose their end",
            file=sys.stderr,
        )


def make_task(config: Config, encode: ExampleEncoder, folder: RunFolder, scoring: ImageScoring | None = None) -> Task:
    """The task of a run's config, with what it keeps in the run's folder."""
    return task_class(config.task).build(config, encode, folder, load_best, scoring or ImageScoring())


def load_best(folder: RunFolder) -> Trained:
    """The model of a run's best checkpoint."""
    config = folder.config()
    return load_trained(config, folder, make_encoder(config, folder), which="best")


def saved_steps(folder: RunFolder) -> int:
    """The optimizer step of the newest checkpoint, 0 where there is none."""
    return max(manifests.steps(folder.checkpoints), default=0)


def load_trained(
    config: Config,
    folder: RunFolder,
    encode: ExampleEncoder,
    *,
    which: str,
    scoring: ImageScoring | None = None,
    where: Sharding | None = None,
) -> Trained:
    """The model of the `best` or `latest` checkpoint of a run, or of a step; of the next best where it is damaged.

    Its parameters, and those of models that its task uses, are put `where`; by default on one device.
    """
    task = make_task(config, encode, folder, scoring)
    if where is not None:
        task.place(where)
    manifests.warn_unsealed(folder.checkpoints)
    step, _ = manifests.first_intact(
        folder.checkpoints, manifests.choices(folder.checkpoints, which), folder.made_with()
    )
    params = read_params(folder.checkpoints / str(step), ema=config.optimizer.ema is not None)
    shapes = jax.eval_shape(task.init_params, jax.random.key(config.seed))
    compare_trees(params, shapes, what=f"parameters of checkpoint {step}")
    return Trained(task, jax.device_put(params, where), step)
