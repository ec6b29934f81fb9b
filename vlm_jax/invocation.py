"""The name of a command, in the form in which the user started this process."""

import sys
from importlib.util import find_spec

FOLDERS = ("vlm_jax.commands", "experiments")
"""Where the commands are: in an installed package, and in sources that are not installed."""


def command_name(name: str) -> str:
    """`python -m experiments.NAME` where the process was started so, otherwise `python -m vlm_jax NAME`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    folder = spec.name.rpartition(".")[0] if spec else ""
    return f"python -m {folder}.{name}" if folder in FOLDERS else f"python -m vlm_jax {name}"


def folder_of_commands() -> str:
    """The package in which this process finds the commands."""
    return FOLDERS[0] if find_spec(FOLDERS[0]) else FOLDERS[1]
