"""Runs that say texts or draw images in different ways, and train alike: one training, each scored by itself.

What they are scored by is, bit for bit, what each would be scored by had it been trained by itself.
"""

import os
import shutil
from pathlib import Path

from vlm_jax.config.run import Config
from vlm_jax.identity import settings_but
from vlm_jax.run_folder import CONFIG, SETUP, TRAINED_AS, RunFolder
from vlm_jax.settings.changes import to_json
from vlm_jax.settings.effects import Effect, effects

Training = frozenset[tuple[str, object]]
"""The settings that runs of one training have in common."""


def training(config: Config) -> Training | None:
    """What runs of one training have in common; None where no other way to decode could share this run's.

    With several validations the decoding settings affect which checkpoint is selected.
    """
    if Effect.DECODING not in effects(config).values() or config.training.evaluate_every < config.training.steps:
        return None
    return frozenset(entry for entry in settings_but(config, Effect.DECODING) if entry[0] != "name")


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
