"""Score a trained model: `python -m experiments.evaluate runs/quickstart`.

The test split is scored once, when training ends; this shows that result. Other splits can be scored at
any time, with any checkpoint: choose by them, not by the test. `--data FILE --images DIR` scores the model on other
images and texts, and `--predictions FILE --references FILE` scores what somebody else's model predicted.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from vlm_jax.command_line import run_command
from vlm_jax.config.use import ImageScoring, scoring_of
from vlm_jax.errors import InputError, counted
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import Words
from vlm_jax.settings.command_line import parse_changes, parse_with_settings
from vlm_jax.settings.groups import POSITIONAL


class Evaluate(ImageScoring):
    """Score a trained model on a split, or on other data: `--data FILE --images DIR`, and other settings `--data.*`.

    With baselines; predictions, a contact sheet and the result are written into the run's folder. `--predictions` and
    `--references` score files of predictions without a model.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "runs/quickstart --split validation --checkpoint latest",
        "runs/quickstart --data questions.csv --images photos/",
        "--predictions results.json --references val.json",
    )
    run: Annotated[Path | None, POSITIONAL] = None
    """Directory of a run."""
    split: str = "test"
    """Split of the data set; `test` of the run's own is scored once."""
    checkpoint: str = "best"
    """`best` by the validation score, `latest`, or an optimizer step that was kept."""
    change: tuple[str, ...] = ()
    """Settings other than the run's: decoding (`generation.num_decoding_steps=4 decoding.kind=beam`) and where the
    data is (`data.images=FOLDER`). Not for the test split."""
    predictions: Path | None = None
    """Predicted captions or answers: COCO's or VQA's format of results, a table, or `predictions.jsonl` of a run."""
    references: tuple[Path, ...] = ()
    """What people wrote: COCO's or VQA v2's annotations, or tables."""
    accuracy: Literal["vqa", "soft"] = "vqa"
    """Of predicted answers: the official VQA accuracy, or the share of people who gave the answer."""


def main(argv: list[str]) -> int:
    options, data = parse_with_settings(argv, Evaluate, "data", prog=command_name("evaluate"))
    if options.predictions is not None or options.references:
        return _score_files(options, data)
    if options.run is None:
        raise InputError("no run; its directory comes first, then options (or give --predictions and --references)")

    from vlm_jax.run_folder import open_run
    from vlm_jax.training.evaluation import score_lines
    from vlm_jax.training.scoring import rescore, test_result, with_data, with_settings

    folder, changes, scoring = open_run(options.run), parse_changes(options.change), scoring_of(options)
    if data:
        scored = with_data(with_settings(folder.config(), changes).config, data)
        scored = scored._replace(changes=[*options.change, *scored.changes])
    elif options.split != "test":
        scored = with_settings(folder.config(), changes)
    else:
        _check_untouched(options, scoring)
        result = test_result(folder)
        print("\n".join(["the test split is scored once; this is its result", *score_lines(result)]))
        return 0
    result = rescore(folder, scored, split=options.split, checkpoint=options.checkpoint, scoring=scoring)
    print("\n".join(score_lines(result)))
    return 0


def _check_untouched(options: Evaluate, scoring: ImageScoring) -> None:
    """Raise `InputError` where options ask for other scores of the test split than those that the run ended with."""
    if options.change or scoring != ImageScoring():
        raise InputError("the test split is scored once, as the run says; give other settings with another split")
    if options.checkpoint != "best":
        raise InputError(f"the test split is scored with the best checkpoint, not {options.checkpoint!r}; leave it out")


def _score_files(options: Evaluate, data: dict[str, Words]) -> int:
    if options.predictions is None or not options.references:
        raise InputError("--predictions and --references belong together; give both")
    if options.run is not None or data:
        raise InputError(f"--predictions are scored without a run and without --data; leave out {options.run or data}")

    from vlm_jax.data.user_files.prediction_files import match
    from vlm_jax.training.evaluation import score_lines

    matched = match(options.predictions, options.references)
    if matched.missing:
        print(f"note: {counted(matched.missing, 'reference')} without prediction, not scored")
    print(f"{len(matched.predictions):,} predicted {matched.texts}")
    print("\n".join(score_lines({"metrics": matched.scores(options.accuracy)})))
    return 0


if __name__ == "__main__":
    run_command(main)
