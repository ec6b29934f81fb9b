"""Runs that say texts or draw pictures in different ways, and train alike: one training, each scored by itself.

What they are scored by is, bit for bit, what each would be scored by had it been trained by itself.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from vlm_jax.config import Config, training_of
from vlm_jax.config_json import to_json
from vlm_jax.run_folder import CONFIG, DATA, TRAINED_AS, WEIGHTS, RunFolder

# What a run has when it has been trained. Its log and its validation scores are of its own way to draw, and stay.
TRAINED = ("tokenizer.json", "answers.json", "image_tokenizer.safetensors", WEIGHTS, DATA, "digests", "checkpoints")
DRAWS = ("captioning", "image_generation")


def training(config: Config) -> Config | None:
    """What runs of one training have in common; None where no other way to draw could share this run's.

    With several validations the best of several checkpoints would be chosen by what was drawn.
    """
    if config.task not in DRAWS or config.training.evaluate_every < config.training.steps:
        return None
    return replace(training_of(config), name="")


def begin_trained(folder: RunFolder, config: Config, trained: RunFolder, part: Path) -> None:
    """Make the folder of a run that is trained already, and left to be scored, from that of one that trained alike.

    All of it is there or nothing: it is put together in `part`, on the same disk.
    """
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in TRAINED:
        source = trained.path / name
        if source.is_dir():
            shutil.copytree(source, part / name)
        elif source.is_file():
            shutil.copyfile(source, part / name)
    RunFolder(part).write_json(TRAINED_AS, {"run": trained.path.name})
    RunFolder(part).write_text(CONFIG, to_json(config))
    os.sync()  # or files could be empty, after a power failure, in a folder that is there
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    part.rename(folder.path)
