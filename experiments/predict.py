"""Use a trained model: `python -m experiments.predict runs/quickstart --image cat.png --question "what colour is it?"`.

Every question is answered about every image. A captioning run takes images: `--image photos/ --decoding.kind beam`.
An image generation run takes prompts: `--prompt "a small red circle left of a blue square" --output contact_sheet.png`.
"""

import json
import os
import sys
from pathlib import Path

from vlm_jax.command_line import run_command
from vlm_jax.config.use import Predict, scoring_of
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.command_line import first_path, parse_for_run
from vlm_jax.settings.effects import Effect

DESCRIPTION = "Answer questions about images, write captions of images, or generate images, as the run's task is."


def main(argv: list[str]) -> int:
    from vlm_jax.run_folder import open_run

    prog = command_name("predict")
    folder = open_run(first_path(argv, Predict, prog=prog, description=DESCRIPTION))
    config = folder.config()
    if config.predict_options is None:
        raise InputError(f"{folder.path} is a run of the task {config.task!r}, which has nothing to predict")
    options, config = parse_for_run(argv, config.predict_options, config, (Effect.DECODING,), prog=prog)
    if options.output is not None:
        _check_output(options.output)
    if (seed := getattr(options, "seed", None)) is not None:
        config = with_changes(config, {"seed": seed})

    from vlm_jax.compilation_cache import keep_programs
    from vlm_jax.inference.runs import load_run

    if config.compute.compilation_cache:
        keep_programs(config.data.directory)
    model = load_run(folder, checkpoint=options.checkpoint, config=config, scoring=scoring_of(options))
    shown = model.show(options)
    for note in dict.fromkeys(note for line in shown.lines for note in line["notes"]):
        print(f"note: {note}", file=sys.stderr)
    if options.output is not None:
        from vlm_jax.figures import plot_contact_sheet

        plot_contact_sheet(shown.cards, options.output, title=config.name)
    if options.json_:
        for line in shown.lines:
            print(json.dumps(line, ensure_ascii=False))
    else:
        print(shown.text)
    return 0


def _check_output(output: Path) -> None:
    writable = output.parent.is_dir() and os.access(output.parent, os.W_OK) and not output.is_dir()
    if output.suffix.lower() != ".png" or not writable:
        raise InputError(f"--output {output} must be a PNG file in a folder that exists and can be written to")


if __name__ == "__main__":
    run_command(main)
