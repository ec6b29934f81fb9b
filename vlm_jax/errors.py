"""The exceptions that mean "the input is wrong" and "the machine failed", and how their single line is worded."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong; the message is one line a person can act on.

    Commands print it without a traceback and exit with code 2.
    """


class MachineError(Exception):
    """The machine failed, not the input: a full disk, a file system without locks. The message is one line.

    Commands print it without a traceback and exit with code 1.
    """


def one_of(choices: Iterable[str]) -> str:
    """All valid choices, in their order, and no guess: for every choice that decides numbers."""
    return f"choose one of: {', '.join(choices)}"


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint that names the valid choice closest to `name`, or all of them where none is close.

    Only for names of settings, files and commands. Where a wrong guess could change a number: `one_of`.
    """
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else one_of(choices)
