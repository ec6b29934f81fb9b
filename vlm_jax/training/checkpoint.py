"""Checkpoints: parameters, optimizer state, data position, config and versions, each verified when read.

Orbax writes and commits them. Here are the manifest of each (a flipped bit restores silently otherwise), the strict
comparison of trees before reading, and the way back to the newest good step.
"""

import logging
import math
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

from vlm_jax.config.run import Config
from vlm_jax.errors import InputError
from vlm_jax.files import sha256, unused
from vlm_jax.integrity import MANIFEST
from vlm_jax.settings.groups import json_tree
from vlm_jax.training import checkpoint_manifest as manifests
from vlm_jax.training.step import TrainState
from vlm_jax.trees import Array, compare_trees
from vlm_jax.types import Json, Parameters

SCORE = "score"  # what the task chooses a checkpoint by, larger being better
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")
NEWEST = 2  # how many are kept beside the best
_logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run: the newest two and the best by validation are kept."""

    def __init__(
        self, folder: Path, *, config: Config | None = None, made_with: Mapping[str, Json] | None = None
    ) -> None:
        """With a config for writing, without one for reading.

        `made_with` is what `RunFolder.made_with` says: it is kept with each checkpoint that is written, and one that
        was written with something else is not used. Without it nothing is compared.
        """
        self._folder, self._config, self._made_with = folder.absolute(), config, made_with
        if config is None and not folder.is_dir():
            raise InputError(manifests.no_checkpoint(folder))
        if config is not None:
            self._clear()
        else:
            manifests.warn_unsealed(folder)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False,
            lightweight_initialize=True,  # it would read scores, which our manifests hold
            read_only=self._config is None,
            create=self._config is not None,
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in ("params", "opt_state", "ema")}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in ("data", "about")}
        return ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step, or None."""
        return max(self._steps(), default=None)

    def best(self) -> int | None:
        """The step with the best validation score; the newest where none was validated."""
        return next(iter(manifests.by_score(self._folder)), None)

    def save(self, state: TrainState, position: dict[str, Json], metrics: dict[str, float] | None) -> None:
        """Write the state at its step, newer than those there; a step that exists already is left as it is.

        `metrics` without a finite score do not take part in choosing the best.
        """
        step = int(state.step)
        if step in self._steps():
            return
        newest = self.latest()
        if newest is not None and step < newest:  # it would not be among the newest, and be deleted at once
            raise RuntimeError(f"the state of step {step} is older than the checkpoint of step {newest}")
        score = math.nan if metrics is None else float(metrics.get(SCORE, math.nan))
        versions = {name: version(name) for name in PACKAGES}
        about = {"step": step, "config": json_tree(self._config), "versions": versions}
        items = {name: ocp.args.StandardSave(jax.tree.map(_one_copy, tree)) for name, tree in _trees(state).items()}
        items |= {"data": ocp.args.JsonSave(position), "about": ocp.args.JsonSave(about)}
        arguments = ocp.args.Composite(**items)
        if not self._manager.save(step, args=arguments, force=True):
            raise RuntimeError(f"the checkpoint of step {step} was not written; the newest one is {self.latest()}")
        self._manager.wait_until_finished()
        manifests.seal(self._folder / str(step), score if math.isfinite(score) else None, self._made_with)
        self._remove_old()

    def restore(self, target: TrainState) -> tuple[TrainState, dict[str, Json]]:
        """The newest state whose files are intact, in the shapes and places of `target`, and its data position."""
        step = self._first_intact(self._steps()[::-1])
        trees = _trees(target)
        items = {name: ocp.args.StandardRestore(self._abstract(step, name, tree)) for name, tree in trees.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**items, data=ocp.args.JsonRestore()))
        state = target._replace(step=np.int32(step), **{name: restored[name] for name in trees})
        return jax.tree.map(jax.numpy.asarray, state), restored["data"]

    def restore_params(self, target: Parameters | None, *, which: str, ema: bool) -> tuple[Parameters, int]:
        """Parameters alone, or their moving average, of the `best` or `latest` checkpoint or a step, and their step.

        In the shapes and places of `target`; without one as they were saved, for a model that has only a part of them.
        Where that checkpoint is damaged, those of the next best or the newest intact one, with a warning.
        """
        step = self._first_intact(manifests.choices(self._folder, which))
        name = "ema" if ema else "params"
        if target is None:
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._saved(step, name))
        items = {name: ocp.args.StandardRestore(self._abstract(step, name, target))}
        return self._manager.restore(step, args=ocp.args.Composite(**items))[name], step

    def digest(self, step: int) -> str:
        """The SHA-256 of everything that a checkpoint holds."""
        return sha256(self._folder / str(step) / MANIFEST)  # which has those of all its files

    def _steps(self) -> list[int]:
        """The steps that are there, in order. Orbax counts any folder named as a number, such as an empty one, too."""
        return manifests.steps(self._folder)

    def _clear(self) -> None:
        """Take what is no checkpoint out of the way: Orbax would count it as a step."""
        for half in self._folder.parent.glob(".removed-*"):
            shutil.rmtree(half)
        unsealed_folders = manifests.unsealed(self._folder)
        lost = [place.name for place in unsealed_folders if manifests.committed(place)]
        if len(lost) > 1 and not self._steps():  # a kill leaves one at most
            raise InputError(
                f"none of the checkpoints {', '.join(lost)} in {self._folder} has a {MANIFEST}; put it back, or "
                "train again with another --workdir"
            )
        for place in unsealed_folders:
            if not any(place.iterdir()):
                place.rmdir()
                continue
            aside = place.rename(unused(self._folder.parent / f"damaged-{place.name}"))
            if place.name in lost:
                _logger.warning("checkpoint %s has no %s: it is now %s", place.name, MANIFEST, aside)

    def _remove_old(self) -> None:
        """Leave the newest ones and the best. Each goes as a whole: a kill leaves no half of it in its place."""
        scores = manifests.scores(self._folder)
        known = [step for step, score in scores.items() if not math.isnan(score)]  # of others nobody knows
        old = set(known) - {*known[-NEWEST:], self.best()}
        for step in old:
            half = (self._folder / str(step)).rename(self._folder.parent / f".removed-{step}")
            shutil.rmtree(half)
        if old:
            self._reopen()

    def _reopen(self) -> None:
        """Orbax remembers which steps there are."""
        self._manager.close()
        self._manager = self._open()

    def _abstract(self, step: int, name: str, target: PyTree) -> PyTree:
        """`target` as shapes with places, after comparing it with what was saved."""
        compare_trees(self._saved(step, name), target, what=f"{name} of checkpoint {step}")
        return jax.tree.map(_placed, target)

    def _saved(self, step: int, name: str) -> PyTree:
        """The tree that was saved, as shapes."""
        saved = self._manager.item_metadata(step).get(name)
        if saved is None:
            raise InputError(f"checkpoint {step} in {self._folder} holds no {name}")
        return saved.tree if hasattr(saved, "tree") else saved

    def _first_intact(self, steps: list[int]) -> int:
        """The first of these steps that can be used; those before it are named, and set aside where we write."""
        step, faults = manifests.first_intact(self._folder, steps, self._made_with)
        if self._config is not None and faults:  # so that their steps can be written again
            for bad in faults:
                (self._folder / str(bad)).rename(unused(self._folder.parent / f"damaged-{bad}"))
            self._reopen()
        return step


def _one_copy(leaf: Array) -> Array:
    """A leaf on one device: of copies on several, Orbax compiles a slice of each shape, to write them in parts."""
    shared = isinstance(leaf, jax.Array) and jax.process_count() == 1 and leaf.is_fully_replicated
    return leaf.addressable_data(0) if shared else leaf


def _trees(state: TrainState) -> dict[str, PyTree]:
    """What Orbax keeps of a state, by the names of its items."""
    trees = {"params": state.params, "opt_state": state.opt_state, "ema": state.ema}
    return {name: tree for name, tree in trees.items() if tree is not None}


def _placed(leaf: Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape, dtype and place of a leaf: without a place Orbax wants the very devices it was saved from."""
    place = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
