"""Score a trained model: `python -m experiments.evaluate runs/quickstart`.

The test split is scored once, when training ends; asked again, this shows that result. Other splits can be scored at
any time, with any checkpoint: choose by them, not by the test.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import parse, run_command
from vlm_jax.errors import InputError


def main(argv: list[str]) -> int:
    import tyro

    @dataclass(frozen=True)
    class Evaluate:
        """Score a trained model on a split, with controls; write predictions, a sheet of pictures and the result."""

        run: Annotated[Path, tyro.conf.Positional]
        """Folder of a run."""
        split: str = "test"
        """Split of the run's data set; `test` is scored once."""
        checkpoint: str = "best"
        """`best` by the validation score, `latest`, or an optimizer step that was kept."""

    arguments = parse(Evaluate, argv, prog="python -m experiments.evaluate")

    from vlm_jax.run_folder import open_run

    folder = open_run(arguments.run)
    if arguments.split == "test" and folder.finished:
        print("the test split is scored once; this is its result")
        result = folder.result()
    else:
        result = _evaluate(folder, arguments.split, arguments.checkpoint)
    for name, value in result["metrics"].items():
        print(f"{name:28s} {value:.4f}")
    return 0


def _evaluate(folder, split, checkpoint):
    from vlm_jax.data.sources import open_split
    from vlm_jax.training.evaluation import evaluate_run, result_files
    from vlm_jax.training.setup import load_trained, make_encoder, saved_steps

    config = folder.config()
    if split == "test":
        steps = saved_steps(folder)
        if steps < config.training.steps:
            raise InputError(
                f"{folder.path} stands at optimizer step {steps} of {config.training.steps}, and the test split is "
                "scored once, at the end; finish it with experiments.train, or give --split validation"
            )
        if checkpoint != "best":
            raise InputError(f"the test split is scored with the best checkpoint, not {checkpoint!r}; leave it out")
    task, params, step = load_trained(config, folder, make_encoder(config, folder), which=checkpoint)
    examples, train = (task.prepare(open_split(config.data, name)) for name in (split, "train"))
    facts = {"checkpoint_step": step, "wall_seconds": 0.0}
    result = evaluate_run(task, params, examples, train, split=split, folder=folder, facts=facts)
    print(f"checkpoint of step {step}; saved in {folder.path}: {', '.join(result_files(split))}")
    return result


if __name__ == "__main__":
    run_command(main)
