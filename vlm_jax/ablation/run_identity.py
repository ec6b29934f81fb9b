"""Which runs of a study are the same: those whose data or machine has changed, and those that were trained alike.

Runs that decode in different ways and train alike are trained once and scored each by itself, with the bits that each
has when it is trained itself.
"""

import functools
import os
import shutil
from pathlib import Path

from vlm_jax.config.run import Config
from vlm_jax.data.digests import SplitDigest, digest_split, from_row, what_differs
from vlm_jax.data.settings import DataSet
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.identity import changes, settings_but
from vlm_jax.run_folder import CONFIG, SETUP, TRAINED_AS, RunFolder
from vlm_jax.settings.changes import to_json
from vlm_jax.settings.effects import Effect, effects

# Settings that no number depends on. A study compares numbers, so how a model is used, and what changes parameters by
# rounding (`compute`), makes another run of it, though claiming the run's folder would go on with it.
FREE = (Effect.SPEED, Effect.PLACE)


Content = tuple[frozenset[tuple[str, object]], tuple[str, ...]]
"""Settings, and the digests of data."""


def is_requested(folder: RunFolder, config: Config, requested: Config, *ignored: Effect) -> bool:
    """Whether a run differs from a requested one in nothing but settings that may, on the same images and texts.

    Settings of the `ignored` effects may differ too. Nothing is read where the places of data are the same.
    """
    free = (*FREE, *ignored)
    if settings_but(config, *free) != settings_but(requested, *free):
        return False
    places = [change.setting for change in changes(config, requested) if change.effect is Effect.PLACE]
    return not any(setting.startswith("data.") for setting in places) or _same_data(folder, requested.data)


def _same_data(folder: RunFolder, data: DataSet) -> bool:
    """Whether the splits that a run kept digests of are those of these settings; no where one cannot be read."""
    known = folder.data()
    try:
        digests = {split: _digest(data, split) for split in known}
    except (InputError, OSError):
        return False
    return bool(known) and not any(what_differs(from_row(known[split]), digests[split]) for split in known)


def content(folder: RunFolder, config: Config) -> Content:
    """What two runs have in common that differ in what no number depends on: settings, and digests of their data.

    Of a run that kept no digests the places stand for them. Name and seed are left out.
    """
    known = folder.data()
    digests = tuple(from_row(known[split]).sha256 for split in ("train", "validation") if split in known)
    settings = settings_but(config, *(FREE if digests else (Effect.SPEED,)))
    return frozenset(entry for entry in settings if entry[0] not in ("name", "seed")), digests


@functools.lru_cache(maxsize=64)
def _digest(data: DataSet, split: str) -> SplitDigest:
    return digest_split(open_split(data, split), data, split)


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
