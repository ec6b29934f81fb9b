"""An image tokenizer, a run that draws in its image tokens, and one that says captions, each trained once."""

import dataclasses
import shutil

import numpy as np
import pytest

from vlm_jax.config import (
    Config,
    Data,
    Generation,
    ImageEncoder,
    ImageInput,
    ImageTokenizerSettings,
    Model,
    Optimizer,
    TextEncoder,
    Training,
)
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder
from vlm_jax.training.loop import Trainer

CODES = ImageTokenizerSettings(levels=(4, 4, 3), patch_size=4, widths=(16, 32), depths=(1, 1))
SOME = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)


def tokenizer_config(directory, **codes):
    return Config(
        name="codes",
        task="image_tokenizer",
        data=Data(name="shape_scenes", directory=str(directory), image=ImageInput(size=(64, 64))),
        model=Model(image_tokenizer=dataclasses.replace(CODES, **codes)),
        optimizer=Optimizer(learning_rate=3e-3, warmup_steps=5, weight_decay=0.0),
        training=Training(steps=40, batch_images=8, evaluate_every=20, log_every=10, evaluation_batch_images=8),
    )


def generation_config(directory, tokenizer, **generation):
    return Config(
        name="drawings",
        task="image_generation",
        data=Data(
            name="shape_scenes",
            directory=str(directory),
            texts="first_caption",
            texts_per_image=1,
            image=ImageInput(size=(64, 64)),
        ),
        model=Model(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=1,
            intermediate_size=32,
            image_tokenizer=CODES,
            image=ImageEncoder(positions="grid"),
            text=TextEncoder(vocab_size=128, feature_size=32, max_length=24),
        ),
        optimizer=Optimizer(learning_rate=3e-3, warmup_steps=5),
        training=Training(steps=20, batch_images=8, evaluate_every=20, log_every=10, evaluation_batch_images=8),
        generation=Generation(tokenizer=str(tokenizer), num_decoding_steps=3, **generation),
    )


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="session")
def tokenizer_run(directory):
    path = directory / "tokenizer"
    with claim(path, tokenizer_config(directory)) as folder:
        Trainer(folder.config(), folder).run()
    return RunFolder(path)


@pytest.fixture(scope="session")
def generation_run(directory, tokenizer_run):
    """A run whose image tokenizer's run is gone by the time it is used."""
    path, copy = directory / "drawings", directory / "copy"
    shutil.copytree(tokenizer_run.path, copy)
    with claim(path, generation_config(directory, copy)) as folder:
        Trainer(folder.config(), folder).run()
    shutil.rmtree(copy)
    return RunFolder(path)


@pytest.fixture(scope="session")
def captioning_run(directory):
    path = directory / "captions"
    config = Config(
        name="captions",
        task="captioning",
        data=Data(
            name="shape_scenes", directory=str(directory), texts="first_caption", image=ImageInput(size=(32, 32))
        ),
        model=Model(
            hidden_size=16,
            num_attention_heads=2,
            num_layers=1,
            intermediate_size=16,
            image=ImageEncoder(stem_width=4, widths=(8,), blocks=(0,)),
            text=TextEncoder(vocab_size=128, feature_size=16, max_length=24),
        ),
        training=Training(steps=1, batch_images=8, evaluate_every=1, log_every=1, evaluation_batch_images=8),
    )
    with claim(path, config) as folder:
        Trainer(folder.config(), folder).run()
    return RunFolder(path)
