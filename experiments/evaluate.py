"""Score a trained model: `python -m experiments.evaluate runs/quickstart`.

The test split is scored once, when training ends; this shows that result. Other splits can be scored at
any time, with any checkpoint: choose by them, not by the test.
"""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.config.use import ImageScoring, scoring_of
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.command_line import parse_changes, parse_options
from vlm_jax.settings.effects import Effect, effects
from vlm_jax.settings.groups import POSITIONAL

if TYPE_CHECKING:
    from vlm_jax.config.run import Config
    from vlm_jax.run_folder import RunFolder

CHANGEABLE = (Effect.PLACE, Effect.SPEED, Effect.USE, Effect.DECODING)
LEARNED = ("generation.mask_schedule",)  # of what is learned with: images may be generated with another one


class Evaluate(ImageScoring):
    """Score a trained model on a split, with baselines; write predictions, a contact sheet and the result."""

    examples: ClassVar[tuple[str, ...]] = ("runs/quickstart", "runs/quickstart --split validation --checkpoint latest")
    run: Annotated[Path, POSITIONAL]
    """Folder of a run."""
    split: str = "test"
    """Split of the run's data set; `test` is scored once."""
    checkpoint: str = "best"
    """`best` by the validation score, `latest`, or an optimizer step that was kept."""
    change: tuple[str, ...] = ()
    """Settings other than the run's: decoding (`generation.num_decoding_steps=4 decoding.kind=beam`) and where the
    data is (`data.images=FOLDER`). Not for the test split."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Evaluate, prog=command_name("evaluate"))

    from vlm_jax.run_folder import open_run
    from vlm_jax.training.evaluation import score_lines

    folder = open_run(arguments.run)
    result = (_test_result if arguments.split == "test" else _evaluate)(folder, arguments)
    print("\n".join(score_lines(result)))
    return 0


def _test_result(folder: "RunFolder", options: Evaluate) -> dict[str, Any]:
    """What a run scored at its end; nothing else scores the test split."""
    from vlm_jax.training.setup import saved_steps

    if options.change or scoring_of(options) != ImageScoring():
        raise InputError("the test split is scored once, as the run says; give other settings with another split")
    if options.checkpoint != "best":
        raise InputError(f"the test split is scored with the best checkpoint, not {options.checkpoint!r}; leave it out")
    if not folder.finished:
        steps = folder.config().training.steps
        raise InputError(
            f"{folder.path} stands at optimizer step {saved_steps(folder)} of {steps}, and the "
            f"test split is scored once, at the end; finish it with {command_name('train')}, or give --split validation"
        )
    print("the test split is scored once; this is its result")
    return folder.result()


def _changed(config: "Config", texts: tuple[str, ...]) -> tuple["Config", list[str]]:
    """The config with what `--change` says, and those of the changes that can change a score."""
    changes = parse_changes(texts)
    changed = with_changes(config, changes)
    marks = effects(changed)
    for name in changes:
        if marks[name] not in CHANGEABLE and name not in LEARNED:
            raise InputError(f"--change is {name}, which the model was trained with; train another run with it")
    scored = [text for text in texts if marks[next(iter(parse_changes((text,))))] not in (Effect.PLACE, Effect.SPEED)]
    return changed, scored


def _spelled(split, changes):
    """A name for files; where a change holds what none can, its digest tells it apart."""
    text = ",".join([split, *changes])
    plain = re.sub(r"[^A-Za-z0-9=.+,_-]+", "-", text)[:100]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _evaluate(folder: "RunFolder", options: Evaluate) -> dict[str, Any]:
    from vlm_jax.compilation_cache import keep_programs
    from vlm_jax.data.sources import open_split
    from vlm_jax.training.caching import cache
    from vlm_jax.training.continuation import check_data
    from vlm_jax.training.evaluation import SplitExamples, commit, evaluate_run, result_files
    from vlm_jax.training.setup import load_trained, make_encoder

    config, changes = _changed(folder.config(), options.change)
    scoring, split, checkpoint = scoring_of(options), options.split, options.checkpoint
    changes += [f"{name}={value}" for name, value in scoring if value != ImageScoring.model_fields[name].default]
    if scoring != ImageScoring() and not config.generates_images:
        raise InputError(f"{changes[-1]} is for a task that generates images; {folder.path} is a run of {config.task}")
    if config.compute.compilation_cache:
        keep_programs(config.data.directory)
    encode = make_encoder(config, folder)
    model = load_trained(config, folder, encode, which=checkpoint, scoring=scoring)
    splits = {name: open_split(config.data, name) for name in dict.fromkeys((split, "train"))}
    digests = check_data(config, folder, splits)
    cache(model.task, config, [splits[split]])
    scored = SplitExamples(split, *(model.task.prepare(splits[name]) for name in (split, "train")))
    metadata = {"wall_seconds": 0.0, "commit": commit()}
    metadata |= {"data": {name: digest.sha256 for name, digest in digests.items()}, "history": folder.history()}
    name = _spelled(split, changes if checkpoint == "best" else [f"checkpoint={checkpoint}", *changes])
    result = evaluate_run(model, scored, name=name, folder=folder, metadata=metadata)
    print(f"checkpoint of step {model.step}; saved in {folder.path}: {', '.join(result_files(name))}")
    return result


if __name__ == "__main__":
    run_command(main)
