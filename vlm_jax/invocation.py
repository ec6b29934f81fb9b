"""Where commands and presets lie, and the name of a command in the form in which the user started this process."""

import sys
from importlib.util import find_spec
from pathlib import Path

FOLDERS = ("vlm_jax.commands", "experiments")
"""Where the commands are: in an installed package, and in sources that are not installed."""
PROGRAM = "vlm-jax"


def command_name(name: str) -> str:
    """`vlm-jax NAME` or `python -m experiments.NAME` where the user typed it so, otherwise `python -m vlm_jax NAME`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    folder = spec.name.rpartition(".")[0] if spec else ""
    if folder in FOLDERS:
        return f"python -m {folder}.{name}"
    program = PROGRAM if Path(sys.argv[0]).stem == PROGRAM else "python -m vlm_jax"
    return f"{program} {name.replace('_', '-')}"


def folder_of_commands() -> str:
    """The package in which this process finds the commands."""
    return FOLDERS[0] if find_spec(FOLDERS[0]) else FOLDERS[1]


def folder_of_presets() -> Path:
    """The folder with the presets: of the installed package, or of sources that are not installed."""
    spec = find_spec("vlm_jax.presets")
    return Path(spec.submodule_search_locations[0]) if spec else Path(__file__).parent.parent / "configs"
