"""Files that installed Python packages carry: `package:NAME/folder`."""

import importlib.util
import os
from pathlib import Path

from vlm_jax.errors import InputError

PREFIX = "package:"


def in_package(name: str) -> Path:
    """The folder or file at `package:NAME/folder` inside an installed package, which is not imported."""
    package, _, inside = name.removeprefix(PREFIX).partition("/")
    if not package.isidentifier() or ".." in Path(inside).parts or Path(inside).is_absolute():
        raise InputError(f"{name!r} is no place in a package; expected package:NAME/folder")
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # __main__ has none
        spec = None
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if not roots:
        raise InputError(f"{name!r} needs the Python package {package!r}, which is not installed; pip install it")
    path = Path(roots[0]) / inside
    if not os.access(path, os.F_OK):  # also where the name is too long
        raise InputError(f"the package {package!r} holds no {inside!r}")
    return path
