"""Take a run whose files were changed on purpose as it is now: `python -m experiments.accept runs/a`.

Each file is held against the run's `manifest.json` where it is read, and a run with another one is refused. This shows
what differs; with `--yes` the manifests say afterwards what is there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import parse, run_command


def main(argv: list[str]) -> int:
    import tyro

    @dataclass(frozen=True)
    class Accept:
        """Show which files of a run are not as they were written, and with --yes take them as they are."""

        run: Annotated[Path, tyro.conf.Positional]
        """Folder of a run."""
        yes: bool = False
        """Take them; the checkpoints become those of the run as it is now."""

    arguments = parse(Accept, argv, prog="python -m experiments.accept")

    from vlm_jax.run_claim import locked
    from vlm_jax.run_folder import open_run
    from vlm_jax.training.acceptance import accept, differing

    folder = open_run(arguments.run)
    with locked(folder.path):
        for name, why in differing(folder).items():
            print(f"{name} {why}")
        if not arguments.yes:
            print(f"nothing was changed; to take {folder.path} as it is, add --yes")
            return 0
        for line in accept(folder):
            print(line)
    print(f"{folder.path} is taken as it is")
    return 0


if __name__ == "__main__":
    run_command(main)
