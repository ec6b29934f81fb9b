"""What every command shares: presets, settings as options, errors as one line."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.failures import check_writable_name, explained, quiet_end, quiet_libraries
from vlm_jax.interrupts import discard, installed
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_config
from vlm_jax.settings.groups import Group


class TrainOptions(Group):
    """What `experiments.train` takes besides settings."""

    workdir: Path | None = None
    """Folder of the run (default: runs/NAME)."""


def parse_train(argv: list[str]) -> tuple[Config, Path]:
    """`configs/NAME.py --setting value ... --workdir DIR` to a checked config and the run's folder."""
    description = "Train, evaluate and save. The first argument is a config file; every setting in it is an option."
    config, options = parse_config(argv, TrainOptions(), TASKS, prog=command_name("train"), description=description)
    workdir = (options.workdir or Path("runs") / config.name).expanduser()
    check_writable_name(workdir, "--workdir")
    check_writable_name(config.data.directory.expanduser(), "data.directory")
    return config, workdir


def run_command(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 2 with one line where the input is wrong, 130 where it was interrupted (`interrupts`)."""
    with installed():
        sys.exit(_exit_code(main, sys.argv[1:] if argv is None else argv))


def _exit_code(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # arguments can hold what the terminal's encoding cannot
    logging.basicConfig(format="%(levelname)s: %(message)s")
    quiet_libraries()
    code = 0
    try:
        code = main(argv) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away, as in `--help | head`: what is still in the buffer has nowhere to go.
        discard(sys.stdout.fileno())
        code = code or 141
    except Exception as error:
        cause = explained(error)
        if cause is None:
            raise
        quiet_end()
        print(f"error: {' '.join(str(cause).split())}", file=sys.stderr)
        code = 2 if isinstance(cause, InputError) else 1
        try:
            sys.stdout.flush()
        except OSError:  # what it holds cannot be written; Python would try again, and end with another code
            discard(sys.stdout.fileno())
    return code
