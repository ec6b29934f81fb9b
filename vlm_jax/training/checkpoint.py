"""Checkpoints: parameters, optimizer state, data position, config and versions, each verified when read.

Orbax writes and commits them; what is ours is the check of every file's SHA-256 (a flipped bit restores silently
otherwise), the strict comparison of trees before reading, and the fall back to the newest good step.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from vlm_jax.config import Config, to_dict
from vlm_jax.errors import InputError, nearest
from vlm_jax.training.state import Parameters, TrainState, parameter_path

METRIC = "accuracy"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")
_logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run: the newest two and the best by validation accuracy are kept."""

    def __init__(self, folder: Path, *, config: Config | None = None) -> None:
        """With a config for writing, without one for reading."""
        self._folder, self._config = folder.absolute(), config
        if config is None and not folder.is_dir():
            raise InputError(f"{folder.parent} has no checkpoint yet; train it first")
        # An empty folder named as a number would count as a step.
        for entry in self._folder.glob("[0-9]*"):
            if entry.is_dir() and not any(entry.iterdir()) and config is not None:
                entry.rmdir()
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
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the best validation accuracy; the newest where none was validated."""
        scored = [step for step in self._manager.all_steps() if self._manager.metrics(step)]
        if not scored:
            return self.latest()
        return max(scored, key=lambda step: (_metric(self._manager.metrics(step)), step))

    def save(self, state: TrainState, position: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Write the state at its step; a step that exists already is left as it is.

        `metrics` without a finite accuracy do not take part in choosing the best.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        scored = metrics is not None and math.isfinite(metrics.get(METRIC, math.nan))
        about = {"config": to_dict(self._config), "versions": {name: version(name) for name in PACKAGES}}
        items = {
            "params": ocp.args.StandardSave(state.params),
            "opt_state": ocp.args.StandardSave(state.opt_state),
            "data": ocp.args.JsonSave(position),
            "about": ocp.args.JsonSave(about),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        saved = self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics if scored else None, force=True)
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

    def restore_params(self, target: Parameters, *, which: str, ema: bool) -> tuple[Parameters, int]:
        """Parameters alone, or their moving average, of the `best` or `latest` checkpoint, and its step."""
        step = self.best() if which == "best" else self.latest()
        if step is None:
            raise InputError(f"{self._folder.parent} has no checkpoint yet; train it first")
        if not self._intact(step):
            damaged, step = step, self._newest_intact()
            _logger.warning("checkpoint %d is damaged; using %d", damaged, step)
        name = "ema" if ema else "params"
        items = {name: ocp.args.StandardRestore(self._abstract(step, name, target))}
        return self._manager.restore(step, args=ocp.args.Composite(**items))[name], step

    def _abstract(self, step: int, name: str, target: Any) -> Any:
        """`target` as shapes with places, after comparing it with what was saved."""
        saved = self._manager.item_metadata(step)[name]
        if saved is None:
            raise InputError(f"checkpoint {step} in {self._folder} holds no {name}")
        tree = saved.tree if hasattr(saved, "tree") else saved
        _compare(dict(_leaves(tree)), dict(_leaves(target)), f"{name} of checkpoint {step}")
        return jax.tree.map(ocp.utils.to_shape_dtype_struct, target)

    def _newest_intact(self) -> int:
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            if self._intact(step):
                return step
            _logger.warning("checkpoint %d in %s is damaged; trying an older one", step, self._folder)
            self._set_aside(step)
        raise InputError(f"every checkpoint in {self._folder} is damaged ({len(steps)} tried); start in another --workdir")

    def _set_aside(self, step: int) -> None:
        """Move a damaged checkpoint out of the way, so that its step can be written again."""
        if self._config is not None:
            (self._folder / str(step)).rename(self._folder.parent / f"damaged-{step}")
            self._manager.reload()

    def _digests_file(self, step: int) -> Path:
        return self._folder.parent / "digests" / f"{step}.json"

    def _write_digests(self, step: int) -> None:
        file = self._digests_file(step)
        file.parent.mkdir(exist_ok=True)
        kept = {str(s) for s in self._manager.all_steps()}
        for stale in file.parent.glob("*.json"):
            if stale.stem not in kept:
                stale.unlink()
        part = file.with_suffix(".part")
        part.write_text(json.dumps(_digests(self._folder / str(step))), encoding="utf-8")
        part.replace(file)

    def _intact(self, step: int) -> bool:
        """Whether every file is as it was written. A kill between commit and digests leaves none: Orbax vouches then."""
        file = self._digests_file(step)
        return not file.exists() or json.loads(file.read_text(encoding="utf-8")) == _digests(self._folder / str(step))


def _metric(metrics: dict[str, float]) -> float:
    return metrics[METRIC]


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    result = {}
    for path in files:
        with path.open("rb") as file:
            result[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return result


def _leaves(tree: Any) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield parameter_path(path), (tuple(leaf.shape), str(np.dtype(leaf.dtype)))


def _compare(saved: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    problems = [f"extra {path}" for path in saved if path not in wanted]
    for path, kind in wanted.items():
        if path not in saved:
            problems.append(f"missing {path} ({nearest(path, saved)})")
        elif saved[path] != kind:
            problems.append(f"{path} is {saved[path]}, expected {kind}")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"the {what} do not fit the model: {'; '.join(problems[:5])}{more}")
