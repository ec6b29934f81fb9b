"""Score a trained model: `python -m experiments.evaluate runs/quickstart`.

The test split is scored once, when training ends; asked again, this shows that result. Other splits can be scored at
any time, with any checkpoint: choose by them, not by the test.
"""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group

CHANGED = {"captioning": "decoding", "image_generation": "generation"}
CHANGEABLE = ("generation.mask_schedule",)  # of what is learned with: an image may be drawn with another one
MASKED_ONLY = tuple(f"generation.{name}" for name in ("mask_schedule", "num_decoding_steps", "choice_temperature"))


class Evaluate(Group):
    """Score a trained model on a split, with baselines; write predictions, a sheet of images and the result."""

    run: Annotated[Path, POSITIONAL]
    """Folder of a run."""
    split: str = "test"
    """Split of the run's data set; `test` is scored once."""
    checkpoint: str = "best"
    """`best` by the validation score, `latest`, or an optimizer step that was kept."""
    change: tuple[str, ...] = ()
    """What is otherwise than in the run: how texts are said or images drawn (`generation.num_decoding_steps=4
    decoding.num_beams=3`), where the data is (`data.files.images=FOLDER`). Not for the test split."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Evaluate, prog="python -m experiments.evaluate")

    from vlm_jax.run_folder import open_run

    folder = open_run(arguments.run)
    if arguments.split == "test":
        result = _test_result(folder, arguments.checkpoint, arguments.change)
    else:
        result = _evaluate(folder, arguments.split, arguments.checkpoint, arguments.change)
    for name, value in result["metrics"].items():
        print(f"{name:28s} {'missing' if value is None else f'{value:.4f}'}")
    for warning in result.get("warnings", ()):
        print(f"warning: {warning}")
    return 0


def _test_result(folder, checkpoint, changes):
    """What a run scored at its end; nothing else scores the test split."""
    from vlm_jax.training.setup import saved_steps

    if changes:
        raise InputError("the test split is scored once, as the run says; give --change with another split")
    if checkpoint != "best":
        raise InputError(f"the test split is scored with the best checkpoint, not {checkpoint!r}; leave it out")
    if not folder.finished:
        steps = folder.config().training.steps
        raise InputError(
            f"{folder.path} stands at optimizer step {saved_steps(folder)} of {steps}, and the "
            "test split is scored once, at the end; finish it with experiments.train, or give --split validation"
        )
    print("the test split is scored once; this is its result")
    return folder.result()


def _changed(config, changes):
    """The config with what `--change` says of places, speed, scoring, decoding and generation."""
    from vlm_jax.config_checks import check
    from vlm_jax.config_json import with_overrides

    overrides = [_override(config, change) for change in changes]
    return check(with_overrides(config, overrides))


def _override(config, change):
    """(setting, value) of one change."""
    from vlm_jax.config import leaves

    setting, sign, value = change.partition("=")
    if setting in MASKED_ONLY and config.model.attention_pattern == "autoregressive":
        raise InputError(
            f"--change is {change!r}, and an autoregressive run draws one code after the other; leave it out"
        )
    if not sign or not _may_change(config, setting):
        raise InputError(
            f"--change is {change!r}; it looks like decoding.num_beams=3 (captioning) or "
            f"generation.num_decoding_steps=4 "
            "(image_generation), data.directory=FOLDER or data.threads=4, and is about nothing that was learned"
        )
    with contextlib.suppress(ValueError):  # a text without its quotes
        value = json.loads(value)
    if isinstance(value, str) and isinstance(leaves(config).get(setting), tuple):
        value = [value]  # one file where there may be several
    return setting, value


def _may_change(config, setting):
    from vlm_jax.setting_kinds import Kind

    from vlm_jax.config import KINDS

    group = setting.split(".")[0]
    if group in CHANGED.values() and group != CHANGED.get(config.task):
        return False
    if setting not in KINDS:
        return True  # which names the nearest one
    return KINDS[setting] in (Kind.PLACE, Kind.SPEED, Kind.USE) or setting in CHANGEABLE


def _named(changes):
    """Those of the changes that can change a score: they name the files of the result."""
    from vlm_jax.setting_kinds import Kind

    from vlm_jax.config import KINDS

    return [change for change in changes if KINDS[change.partition("=")[0]] not in (Kind.PLACE, Kind.SPEED)]


def _spelled(split, changes):
    """A name for files; where a change holds what none can, its digest tells it apart."""
    text = ",".join([split, *changes])
    plain = re.sub(r"[^A-Za-z0-9=.+,_-]+", "-", text)[:100]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _evaluate(folder, split, checkpoint, changes):
    from vlm_jax.data.sources import open_split
    from vlm_jax.training.continuation import check_data
    from vlm_jax.training.evaluation import commit, evaluate_run, result_files
    from vlm_jax.training.setup import load_trained, make_encoder

    config = _changed(folder.config(), changes)
    task, params, step = load_trained(config, folder, make_encoder(config, folder), which=checkpoint)
    splits = {name: open_split(config.data, name) for name in dict.fromkeys((split, "train"))}
    digests = check_data(config, folder, splits)
    examples, train = (task.prepare(splits[name]) for name in (split, "train"))
    metadata = {"checkpoint_step": step, "wall_seconds": 0.0, "commit": commit()}
    metadata |= {"data": {name: digest.sha256 for name, digest in digests.items()}, "history": folder.history()}
    changes = _named(changes)
    name = _spelled(split, changes if checkpoint == "best" else [f"checkpoint={checkpoint}", *changes])
    result = evaluate_run(task, params, examples, train, split=split, name=name, folder=folder, metadata=metadata)
    print(f"checkpoint of step {step}; saved in {folder.path}: {', '.join(result_files(name))}")
    return result


if __name__ == "__main__":
    run_command(main)
