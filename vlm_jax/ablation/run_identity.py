"""Runs of a study whose data or machine has changed: they are still the runs that the study asks for."""

import functools

from vlm_jax.config import Config, Data
from vlm_jax.data.digests import SplitDigest, digest_split, from_row, what_differs
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.identity import changes, with_settings_of
from vlm_jax.run_folder import RunFolder
from vlm_jax.setting_kinds import Kind

# Settings that no number depends on. A study compares numbers, so how a model is used, and what rounds otherwise
# (`parallel`), makes another run of it, though claiming the run's folder would go on with it.
FREE = (Kind.SPEED, Kind.PLACE)


def as_requested(folder: RunFolder, config: Config, requested: Config) -> Config:
    """A run's config with what may change as in `requested`, where both are about the same images and texts.

    Nothing is read where the places of data are the same.
    """
    moved = with_settings_of(config, requested, *FREE)
    places = [change.setting for change in changes(config, requested) if change.kind is Kind.PLACE]
    if moved != requested or not any(setting.startswith("data.") for setting in places):
        return moved
    return moved if _same_data(folder, requested.data) else config


def _same_data(folder: RunFolder, data: Data) -> bool:
    """Whether the splits that a run kept digests of are those of these settings; no where one cannot be read."""
    known = folder.data()
    try:
        digests = {split: _digest(data, split) for split in known}
    except (InputError, OSError):
        return False
    return bool(known) and not any(what_differs(from_row(known[split]), digests[split]) for split in known)


def content(folder: RunFolder, config: Config) -> tuple[Config, tuple[str, ...]]:
    """What two runs have in common that differ in what no number depends on: settings, and digests of their data.

    Of a run that kept no digests the places stand for them.
    """
    known = folder.data()
    digests = tuple(from_row(known[split]).sha256 for split in ("train", "validation") if split in known)
    return with_settings_of(config, Config(), *(FREE if digests else (Kind.SPEED,))), digests


@functools.lru_cache(maxsize=64)
def _digest(data: Data, split: str) -> SplitDigest:
    return digest_split(open_split(data, split), data, split)
