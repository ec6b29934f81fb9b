"""What every command shares: exit codes, and errors as one line."""

import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from vlm_jax.errors import InputError
from vlm_jax.failures import explained, quiet_end, quiet_libraries
from vlm_jax.interrupts import discard, exit_with, installed


def run_command(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 2 with one line where the input is wrong, 130 where it was interrupted (`interrupts`)."""
    with installed():
        exit_with(_exit_code(main, sys.argv[1:] if argv is None else argv))


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
