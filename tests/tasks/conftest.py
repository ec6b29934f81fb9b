"""An image tokenizer, a run that draws in its image tokens, and one that says captions, each trained once."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from vlm_jax.config import captioning, image_generation
from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.image_generation import ImageGeneration, Masked, TrainedImageTokenizer
from vlm_jax.config.image_tokenizer import ImageTokenizer, NoisyImageTokenizer
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.quantizers import FSQ
from vlm_jax.config.run import TextTraining, Training
from vlm_jax.config.trunk import TextInput
from vlm_jax.data.datasets.shape_scenes import SceneCaptions, ShapeScenes
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.loop import Trainer

CODES = {"quantizer": FSQ(levels=(4, 4, 3)), "patch_size": 4, "widths": (16, 32), "depths": (1, 1)}
SOME = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)
SHORT = {"batch_images": 8, "evaluate_every": 20, "log_every": 10, "evaluation_batch_images": 8}


def tokenizer_config(directory, **changes):
    """An image tokenizer; `changes` are settings of its group `image_tokenizer`."""
    config = ImageTokenizer(
        name="codes",
        data=ShapeScenes(directory=directory),
        image_tokenizer=NoisyImageTokenizer(**CODES),
        optimizer=AdamW(learning_rate=3e-3, warmup_steps=5, weight_decay=0.0),
        training=Training(steps=40, **SHORT),
    )
    return with_changes(config, {f"image_tokenizer.{name}": value for name, value in changes.items()})


def generation_config(directory, tokenizer, **changes):
    """Image generation with the tokens of a run; `changes` are settings of its group `generation`."""
    config = ImageGeneration(
        name="drawings",
        data=SceneCaptions(directory=directory, captions="first"),
        image_tokenizer=TrainedImageTokenizer(run=Path(tokenizer), **CODES),
        model=image_generation.Model(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=1,
            intermediate_size=32,
            text=TextInput(vocab_size=128, max_length=24),
        ),
        optimizer=AdamW(learning_rate=3e-3, warmup_steps=5),
        training=TextTraining(steps=20, texts_per_image=1, **SHORT),
        generation=Masked(num_decoding_steps=3),
    )
    return with_changes(config, {f"generation.{name}": value for name, value in changes.items()})


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
    config = captioning.Captioning(
        name="captions",
        data=SceneCaptions(directory=directory, captions="first"),
        image=AugmentedImages(size=(32, 32)),
        model=captioning.Model(
            hidden_size=16,
            num_attention_heads=2,
            num_layers=1,
            intermediate_size=16,
            image=SmallCNN(stem_width=4, widths=(8,), blocks=(0,)),
            text=TextInput(vocab_size=128, max_length=24),
        ),
        training=TextTraining(
            steps=1, batch_images=8, texts_per_image=10, evaluate_every=1, log_every=1, evaluation_batch_images=8
        ),
    )
    with claim(path, config) as folder:
        Trainer(folder.config(), folder).run()
    return RunFolder(path)
