"""Checkpoints: parameters, optimizer state, data position, config and versions, each verified when read.

Orbax writes and commits them; what is ours is the check of every file's SHA-256 (a flipped bit restores silently
otherwise), the strict comparison of trees before reading, and the fall back to the newest good step.
"""

import itertools
import logging
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from vlm_jax.config import Config
from vlm_jax.config_json import to_dict
from vlm_jax.errors import InputError, one_of
from vlm_jax.integrity import matches_digests, write_digests
from vlm_jax.training.state import Parameters, TrainState
from vlm_jax.trees import compare_trees

SCORE = "score"  # what the task chooses a checkpoint by, larger being better
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")
_logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run: the newest two and the best by validation are kept."""

    def __init__(self, folder: Path, *, config: Config | None = None) -> None:
        """With a config for writing, without one for reading."""
        self._folder, self._config = folder.absolute(), config
        if config is None and not folder.is_dir():
            raise InputError(f"{folder.parent} has no checkpoint yet; train it first")
        if config is not None:
            self._remove_pretenders()
        keep = [LatestN(2), BestN(get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(keep),
            best_fn=_metric,
            enable_async_checkpointing=False,
            read_only=config is None,
            create=config is not None,
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in ("params", "opt_state", "ema")}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in ("data", "about")}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step, or None."""
        return max(self._steps(), default=None)

    def best(self) -> int | None:
        """The step with the best validation score; the newest where none was validated."""
        scored = [step for step in self._steps() if self._manager.metrics(step)]
        if not scored:
            return self.latest()
        return max(scored, key=lambda step: (_metric(self._manager.metrics(step)), step))

    def save(self, state: TrainState, position: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Write the state at its step, newer than those there; a step that exists already is left as it is.

        `metrics` without a finite score do not take part in choosing the best.
        """
        step = int(state.step)
        if step in self._steps():
            return
        newest = self.latest()
        if newest is not None and step < newest:  # it would not be among the newest, and be deleted at once
            raise RuntimeError(f"the state of step {step} is older than the checkpoint of step {newest}")
        scored = metrics is not None and math.isfinite(metrics.get(SCORE, math.nan))
        versions = {name: version(name) for name in PACKAGES}
        about = {"step": step, "config": to_dict(self._config), "versions": versions}
        items = {
            "params": ocp.args.StandardSave(state.params),
            "opt_state": ocp.args.StandardSave(state.opt_state),
            "data": ocp.args.JsonSave(position),
            "about": ocp.args.JsonSave(about),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        arguments = ocp.args.Composite(**items)
        saved = self._manager.save(step, args=arguments, metrics=metrics if scored else None, force=True)
        if not saved:
            raise RuntimeError(f"the checkpoint of step {step} was not written; the newest one is {self.latest()}")
        self._manager.wait_until_finished()
        self._write_digests(step)

    def restore(self, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state whose files are intact, in the shapes and places of `target`, and its data position."""
        step = self._newest_intact()
        names = ["params", "opt_state"] + (["ema"] if target.ema is not None else [])
        trees = {name: getattr(target, name) for name in names}
        items = {name: ocp.args.StandardRestore(self._abstract(step, name, tree)) for name, tree in trees.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**items, data=ocp.args.JsonRestore()))
        state = target._replace(step=np.int32(step), **{name: restored[name] for name in names})
        return jax.tree.map(jax.numpy.asarray, state), restored["data"]

    def restore_params(self, target: Parameters | None, *, which: str, ema: bool) -> tuple[Parameters, int]:
        """Parameters alone, or their moving average, of the `best` or `latest` checkpoint or a step, and their step.

        In the shapes and places of `target`; without one as they were saved, for a model that has only a part of them.
        Where the files of that checkpoint are damaged, those of the newest intact one, with a warning.
        """
        step = self._choose(which)
        if not self._intact(step):
            damaged, step = step, self._newest_intact()
            _logger.warning("checkpoint %d is damaged; using %d", damaged, step)
        name = "ema" if ema else "params"
        if target is None:
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._saved(step, name))
        items = {name: ocp.args.StandardRestore(self._abstract(step, name, target))}
        return self._manager.restore(step, args=ocp.args.Composite(**items))[name], step

    def _steps(self) -> list[int]:
        """The steps that Orbax committed. It counts any folder named as a number, such as an empty one, too."""
        return sorted(step for step in self._manager.all_steps() if _committed(self._folder / str(step)))

    def _remove_pretenders(self) -> None:
        """Take folders named as a number that hold no checkpoint out of the way: Orbax would count them as steps."""
        for entry in self._folder.glob("[0-9]*"):
            if entry.is_dir() and not _committed(entry):
                if any(entry.iterdir()):
                    entry.rename(_unused(self._folder.parent / f"damaged-{entry.name}"))
                else:
                    entry.rmdir()

    def _choose(self, which: str) -> int:
        steps = self._steps()
        if not steps:
            raise InputError(f"{self._folder.parent} has no checkpoint yet; train it first")
        names: dict[str, int] = {str(step): step for step in steps} | {"best": self.best(), "latest": steps[-1]}
        if which not in names:
            raise InputError(f"no checkpoint {which!r} in {self._folder.parent}; {one_of(names)}")
        return names[which]

    def _abstract(self, step: int, name: str, target: Any) -> Any:
        """`target` as shapes with places, after comparing it with what was saved."""
        compare_trees(self._saved(step, name), target, what=f"{name} of checkpoint {step}")
        return jax.tree.map(_placed, target)

    def _saved(self, step: int, name: str) -> Any:
        """The tree that was saved, as shapes."""
        saved = self._manager.item_metadata(step).get(name)
        if saved is None:
            raise InputError(f"checkpoint {step} in {self._folder} holds no {name}")
        return saved.tree if hasattr(saved, "tree") else saved

    def _newest_intact(self) -> int:
        steps = self._steps()
        for step in reversed(steps):
            if self._intact(step):
                return step
            _logger.warning("checkpoint %d in %s is damaged; trying an older one", step, self._folder)
            self._set_aside(step)
        if not steps:
            raise InputError(f"{self._folder.parent} has no checkpoint yet; train it first")
        raise InputError(f"all {len(steps)} checkpoints in {self._folder} are damaged; start in another --workdir")

    def _set_aside(self, step: int) -> None:
        """Move a damaged checkpoint out of the way, so that its step can be written again."""
        if self._config is not None:
            (self._folder / str(step)).rename(_unused(self._folder.parent / f"damaged-{step}"))
            self._digests_file(step).unlink(missing_ok=True)  # or it would condemn the next checkpoint of this step
            self._manager.reload()

    def _digests_file(self, step: int) -> Path:
        return self._folder.parent / "digests" / f"{step}.json"

    def _write_digests(self, step: int) -> None:
        file = self._digests_file(step)
        file.parent.mkdir(exist_ok=True)
        kept = {str(s) for s in self._steps()}
        for stale in file.parent.glob("*.json"):
            if stale.stem not in kept:
                stale.unlink()
        write_digests(self._folder / str(step), file)

    def _intact(self, step: int) -> bool:
        """Whether every file is as it was written, and of the step that its folder is named for.

        A kill between commit and digests leaves none: Orbax vouches then.
        """
        folder, file = self._folder / str(step), self._digests_file(step)
        if file.exists() and not matches_digests(folder, file):
            return False
        try:
            about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
        except (OSError, ValueError):
            return False
        return about.get("step", step) == step


def _metric(metrics: dict[str, float]) -> float:
    return metrics[SCORE] if SCORE in metrics else metrics["accuracy"]  # as runs before captioning kept it


def _committed(folder: Path) -> bool:
    return (folder / "_CHECKPOINT_METADATA").is_file()


def _unused(path: Path) -> Path:
    names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and place of a leaf: without a place Orbax wants the very devices it was saved from."""
    place = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
