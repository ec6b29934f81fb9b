"""The manifest of a checkpoint: written last, so that a checkpoint without one does not exist.

It lies in the checkpoint's own folder, and is copied, moved and removed with it.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_jax.errors import InputError, one_of
from vlm_jax.integrity import MANIFEST, changes_below, entries_below, read_manifest, write_manifest
from vlm_jax.invocation import command_name
from vlm_jax.types import Json

_logger = logging.getLogger(__name__)


def seal(folder: Path, score: float | None, made_with: Mapping[str, Json] | None) -> None:
    """Write the manifest of a step's folder, which is named for the step.

    `score` is what the best checkpoint is chosen by, None where there is none; `made_with` is what
    `RunFolder.made_with` says of the run.
    """
    content = {"step": int(folder.name), "score": score, "made_with": dict(made_with or {})}
    write_manifest(folder / MANIFEST, content | {"files": entries_below(folder)})


def steps(folder: Path) -> list[int]:
    """The steps that have a manifest, damaged or not, in order."""
    return sorted(int(path.parent.name) for path in folder.glob(f"[0-9]*/{MANIFEST}") if path.parent.name.isdigit())


def unsealed(folder: Path) -> list[Path]:
    """Folders named as a number without a manifest: half a checkpoint, or something else."""
    folders = (path for path in folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir())
    return sorted(path for path in folders if not (path / MANIFEST).is_file())


def warn_unsealed(folder: Path) -> None:
    """Name the checkpoints that were written and have no manifest, which no reader uses."""
    for place in filter(committed, unsealed(folder)):
        _logger.warning("checkpoint %s in %s has no %s: it is left out", place.name, folder, MANIFEST)


def committed(folder: Path) -> bool:
    """Whether Orbax wrote the folder of a step to the end."""
    return (folder / "_CHECKPOINT_METADATA").is_file()


def score(folder: Path) -> float:
    """The score of a step's folder: minus infinity where it has none, NaN where its manifest is damaged."""
    try:
        value = read_manifest(folder / MANIFEST)["score"]
    except InputError:
        return math.nan
    return -math.inf if value is None else value


def scores(folder: Path) -> dict[int, float]:
    """The `score` of each step."""
    return {step: score(folder / str(step)) for step in steps(folder)}


def by_score(folder: Path) -> list[int]:
    """The steps, best first; those without a score last, the newest first."""
    known = {step: value for step, value in scores(folder).items() if not math.isnan(value)}
    return sorted(known, key=lambda step: (known[step], step), reverse=True)


def choices(folder: Path, which: str) -> list[int]:
    """The step of `best`, `latest` or a number, and then those to use in its place."""
    newest = steps(folder)[::-1]
    if not newest:
        raise InputError(no_checkpoint(folder))
    names = [*map(str, newest[::-1]), "best", "latest"]
    if which not in names:
        raise InputError(f"no checkpoint {which!r} in {folder.parent}; {one_of(names)}")
    if which == "latest":
        return newest
    if which == "best":  # one whose score is damaged may have been it, and is named
        best = by_score(folder)
        return [*(step for step in newest if step not in best), *best]
    return sorted(newest, key=lambda step: step != int(which))


def no_checkpoint(folder: Path) -> str:
    """What is wrong with a run without a checkpoint."""
    return f"{folder.parent} has no checkpoint yet; train it first"


def first_intact(
    folder: Path, wanted: Sequence[int], made_with: Mapping[str, Json] | None
) -> tuple[int, dict[int, str]]:
    """The first of some steps that can be used, and why those before it cannot; a warning names them.

    Raises `InputError` where none can be used.
    """
    faults: dict[int, str] = {}
    for step in wanted:
        why = fault(folder / str(step), made_with)
        if why is None:
            for bad, reason in faults.items():
                _logger.warning("checkpoint %d in %s is damaged (%s); using %d", bad, folder, reason, step)
            return step, faults
        faults[step] = why
    if not wanted:
        raise InputError(no_checkpoint(folder))
    reasons = "; ".join(f"checkpoint {step}: {why}" for step, why in faults.items())
    raise InputError(
        f"all {len(wanted)} checkpoints in {folder} are damaged ({reasons}); put back what was there, take "
        f"the run as it is with {command_name('accept')} {folder.parent} --yes, or give another --workdir"
    )


def fault(folder: Path, made_with: Mapping[str, Json] | None) -> str | None:
    """Why a step's folder cannot be used, in words; None where everything is as it was written.

    `made_with`: what the run says of itself now; None where nobody asks.
    """
    try:
        manifest = read_manifest(folder / MANIFEST)
    except InputError:
        return f"its {MANIFEST} is not as it was written"
    if manifest["step"] != int(folder.name):
        return f"it is the checkpoint of step {manifest['step']}"
    if (changed := next(changes_below(folder, manifest["files"]), None)) is not None:
        return changed
    if made_with is not None and (differing := other_than(manifest["made_with"], made_with)):
        return f"it was trained with another {', '.join(differing)} than the run has now"
    return None


def damaged(folder: Path) -> list[str]:
    """The checkpoints of a run whose files are not as they were written, a line each."""
    faults = {step: fault(folder / str(step), None) for step in steps(folder)}
    return [f"checkpoint {step} stays out of use: {why}" for step, why in faults.items() if why is not None]


def other_than(then: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """The names of what a checkpoint was trained with and the run has no longer."""
    return [name for name, value in then.items() if now.get(name) != value]


def accept(folder: Path, made_with: Mapping[str, Json]) -> list[str]:
    """Make the checkpoints of a run those of the run as it is now; a line for each that was not.

    Those that are `damaged` stay as they are.
    """
    lines = []
    for step in steps(folder):
        place = folder / str(step)
        if fault(place, None) is not None:
            continue
        manifest = read_manifest(place / MANIFEST)
        if differing := other_than(manifest["made_with"], made_with):
            write_manifest(place / MANIFEST, manifest | {"made_with": dict(made_with)})
            lines.append(f"checkpoint {step} was trained with another {', '.join(differing)}")
    return lines
