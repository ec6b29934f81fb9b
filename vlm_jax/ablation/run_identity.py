"""Runs of a study whose data or machine has changed: they are still the runs that the study asks for."""

import functools

from vlm_jax.config.run import Config
from vlm_jax.data.digests import SplitDigest, digest_split, from_row, what_differs
from vlm_jax.data.settings import DataSet
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.identity import changes, settings_but
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.effects import Effect

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
