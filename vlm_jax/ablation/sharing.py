"""Runs that say texts or draw images in different ways, and train alike: one training, each scored by itself.

What they are scored by is, bit for bit, what each would be scored by had it been trained by itself.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from vlm_jax.config import Config, training_of
from vlm_jax.config_json import to_json
from vlm_jax.run_folder import CONFIG, SETUP, TRAINED_AS, RunFolder

GENERATING_TASKS = ("captioning", "image_generation")


def training(config: Config) -> Config | None:
    """What runs of one training have in common; None where no other way to draw could share this run's.

    With several validations the best of several checkpoints would be chosen by what was drawn.
    """
    if config.task not in GENERATING_TASKS or config.training.evaluate_every < config.training.steps:
        return None
    return replace(training_of(config), name="")


def begin_trained(folder: RunFolder, config: Config, trained: RunFolder, part: Path) -> None:
    """Make the folder of a run that is trained already, and left to be scored, from that of one that trained alike.

    All of it is there or nothing: it is put together in `part`, on the same disk. The log of the other and its
    validation scores are of its own way to draw, and stay with it. Raises `InputError` where a file of the other is
    not as it was written.
    """
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in SETUP:
        if (source := trained.file(name)).is_file() and name not in (CONFIG, TRAINED_AS):
            shutil.copyfile(source, part / name)
    copy = RunFolder(part)
    copy.write_json(TRAINED_AS, {"run": trained.path.name})
    copy.write_text(CONFIG, to_json(config))
    copy.seal(*SETUP)
    shutil.copytree(trained.checkpoints, part / trained.checkpoints.name)
    os.sync()  # or files could be empty, after a power failure, in a folder that is there
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    part.rename(folder.path)
