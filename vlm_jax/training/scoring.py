"""Scoring a trained run again: its own splits under other settings, or images and texts from elsewhere."""

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from vlm_jax.compilation_cache import keep_programs
from vlm_jax.config.run import Config
from vlm_jax.config.use import ImageScoring
from vlm_jax.data.digests import digest_split
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.placement import on_every
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import Words, change, checked, with_changes
from vlm_jax.settings.effects import Effect, effects
from vlm_jax.settings.groups import tree_of
from vlm_jax.settings.short_names import long_names
from vlm_jax.training.caching import cache, check_features, reads_features
from vlm_jax.training.continuation import check_data
from vlm_jax.training.devices import evaluation_devices
from vlm_jax.training.evaluation import SplitExamples, commit, evaluate_run, result_files
from vlm_jax.training.setup import load_trained, make_encoder, saved_steps
from vlm_jax.types import Json

CHANGEABLE = (Effect.PLACE, Effect.SPEED, Effect.USE, Effect.DECODING)
LEARNED = ("generation.mask_schedule",)  # of what is learned with: images may be generated with another one
OWN_FILES = ("data.train", "data.validation", "data.test")


class Scored(NamedTuple):
    """A config to score a run by."""

    config: Config
    changes: list[str]
    """Settings other than the run's that can change a score, as texts; they name the files of the result."""
    elsewhere: bool = False
    """Whether the images and texts are others than the run's."""


def test_result(folder: RunFolder) -> dict[str, Json]:
    """What a run scored at its end; nothing else scores its test split."""
    if not folder.finished:
        steps = folder.config().training.steps
        raise InputError(
            f"{folder.path} stands at optimizer step {saved_steps(folder)} of {steps}, and the "
            f"test split is scored once, at the end; finish it with {command_name('train')}, or give --split validation"
        )
    return folder.result()


def with_settings(config: Config, words: Mapping[str, Words]) -> Scored:
    """The run's config with other settings; `InputError` for one that the model was trained with."""
    changed = with_changes(config, words)
    marks = effects(changed)
    for name in words:
        if marks[name] not in CHANGEABLE and name not in LEARNED:
            raise InputError(f"--change is {name}, which the model was trained with; train another run with it")
    scoring = [name for name in words if marks[name] not in (Effect.PLACE, Effect.SPEED)]
    return Scored(changed, [f"{name}={' '.join(words[name].words)}" for name in scoring])


def with_data(config: Config, words: Mapping[str, Words]) -> Scored:
    """The run's config with images and texts from elsewhere.

    Where only `data.train` is given, every split is that: all of it is scored, and its own answers make the baselines.
    """
    tree = tree_of(config)
    named = long_names(words, type(config), tree)
    tree["data"] = {name: value for name, value in tree["data"].items() if f"data.{name}" not in OWN_FILES}
    tree["data"].pop("images", None)
    tree["data"] |= {"limit": None, "evaluation_limit": None}
    if {*OWN_FILES} & named.keys() == {"data.train"}:
        named |= dict.fromkeys(OWN_FILES, named["data.train"])
    change(type(config), tree, named)
    changes = [f"{name}={' '.join(value.words)}" for name, value in words.items()]
    return Scored(checked(type(config), tree, strict=False), changes, elsewhere=True)


def rescore(
    folder: RunFolder, scored: Scored, *, split: str, checkpoint: str, scoring: ImageScoring
) -> dict[str, Json]:
    """Score a split with the baselines of its data set; the files of the result are named for the changes."""
    config, changes = scored.config, list(scored.changes)
    changes += [f"{name}={value}" for name, value in scoring if value != ImageScoring.model_fields[name].default]
    if scoring != ImageScoring() and not config.generates_images:
        raise InputError(f"{changes[-1]} is for a task that generates images; {folder.path} is a run of {config.task}")
    if config.compute.compilation_cache:
        keep_programs(config.data.directory)
    where = on_every(evaluation_devices(config))
    encode = make_encoder(config, folder)
    model = load_trained(config, folder, encode, which=checkpoint, scoring=scoring, where=where)
    splits = {split: open_split(config.data, split)}
    if model.task.can_score(splits[split]):
        splits["train"] = splits.get("train") or open_split(config.data, "train")
    if scored.elsewhere:
        digests = {name: digest_split(examples, config.data, name) for name, examples in splits.items()}
    else:
        check_features(config, folder)
        digests = check_data(config, folder, splits)
    read = splits if reads_features(config) else {split: splits[split]}
    cache(model.task, model.params, config, read, trains=False)
    examples = SplitExamples(split, *(model.task.prepare(splits.get(name, ())) for name in (split, "train")))
    if scored.elsewhere and "train" in splits:
        print("\n".join(model.task.reach(examples.train, examples.examples)))
    metadata = {"wall_seconds": 0.0, "commit": commit()}
    metadata |= {"data": {name: digest.sha256 for name, digest in digests.items()}, "history": folder.history()}
    name = _spelled(split, changes if checkpoint == "best" else [f"checkpoint={checkpoint}", *changes])
    result = evaluate_run(model, examples, name=name, folder=folder, metadata=metadata)
    print(f"checkpoint of step {model.step}; saved in {folder.path}: {', '.join(result_files(name))}")
    return result


def _spelled(split: str, changes: list[str]) -> str:
    """A name for files; where a change holds what none can, its digest tells it apart."""
    text = ",".join([split, *changes])
    plain = re.sub(r"[^A-Za-z0-9=.+,_-]+", "-", text)[:100]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
