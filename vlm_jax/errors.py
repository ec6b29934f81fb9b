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


def shown(value: object) -> str:
    """A value as a message can show it: short, on one line, nothing a terminal would act on."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}..."
    return {"None": "null", "True": "true", "False": "false"}.get(text := repr(value), text[:60])


def counted(count: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
