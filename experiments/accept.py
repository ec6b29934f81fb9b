"""Take a run whose files were changed on purpose as it is now: `python -m experiments.accept runs/a`.

Each file is held against the run's `manifest.json` where it is read, and a run with another one is refused. This shows
what differs; with `--yes` the manifests say afterwards what is there. `--data` does the same for the images and texts.
"""

from pathlib import Path
from typing import Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group


class Accept(Group):
    """Show which files of a run are not as they were written, and with --yes take them as they are."""

    examples: ClassVar[tuple[str, ...]] = ("runs/quickstart", "runs/quickstart --yes")
    run: Annotated[Path, POSITIONAL]
    """Folder of a run."""
    data: bool = False
    """The images, texts and answers that it is trained on, too: those in the places that its config names."""
    yes: bool = False
    """Take them; the checkpoints become those of the run as it is now."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Accept, prog=command_name("accept"))

    from vlm_jax.run_claim import locked
    from vlm_jax.run_folder import open_run
    from vlm_jax.training.acceptance import accept, differing
    from vlm_jax.training.checkpoint_manifest import damaged
    from vlm_jax.training.continuation import changed_data, current_data, record_data

    folder = open_run(arguments.run)
    with locked(folder.path):
        lines = [f"{name} {why}" for name, why in differing(folder).items()]
        if arguments.yes:
            lines += accept(folder)
        if arguments.data and lines and not arguments.yes:
            lines.append("the data was not looked at: one of these files says where it is")
        elif arguments.data:
            digests = current_data(folder)
            lines += [f"{split} split: {what}" for split, what in changed_data(folder, digests).items()]
            if arguments.yes:
                record_data(folder, digests)
        lines += damaged(folder.checkpoints)
    for line in lines or ["everything is as it was written"]:
        print(line)
    if arguments.yes:
        print(f"{folder.path} is taken as it is")
    elif lines:
        print(f"nothing was changed; to take {folder.path} as it is, add --yes")
    return 0


if __name__ == "__main__":
    run_command(main)
