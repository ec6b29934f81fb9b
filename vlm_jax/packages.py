"""Files that installed Python packages carry: `package:NAME/folder`."""

import base64
import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from vlm_jax.errors import InputError

PREFIX = "package:"


class RecordedFile(NamedTuple):
    """What pip recorded of a file when it installed the package."""

    version: str
    """Of the package."""
    size: int
    """In bytes."""
    sha256: str
    """In hexadecimal digits."""


def in_package(name: str) -> Path:
    """The folder or file at `package:NAME/folder` inside an installed package, which is not imported.

    NAME is the package's folder, which need not be a Python identifier, or the name that pip installed it under.
    """
    package, _, inside = name.removeprefix(PREFIX).partition("/")
    if not re.fullmatch(r"\w[\w-]*", package) or ".." in Path(inside).parts or Path(inside).is_absolute():
        raise InputError(f"{name!r} is no place in a package; expected package:NAME/folder")
    root = package_folder(package)
    if root is None:
        raise InputError(f"{name!r} needs the Python package {package!r}, which is not installed: {install(package)}")
    path = root / inside
    if not os.access(path, os.F_OK):  # also where the name is too long
        raise InputError(f"the package {package!r} holds no {inside!r}")
    return path


def package_folder(package: str) -> Path | None:
    """The folder of an installed package; None where it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # __main__ has none
        spec = None
    roots = list(spec.submodule_search_locations or ()) if spec else []
    if roots:
        return Path(roots[0])
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    folders = {file.parts[0] for file in distribution.files or () if len(file.parts) > 1}
    folders = {folder for folder in folders if normalised(folder) == normalised(package)}
    return Path(distribution.locate_file(folders.pop())) if len(folders) == 1 else None


def normalised(name: str) -> str:
    """A package's name as pip writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def install(*packages: str) -> str:
    """The command that installs packages, without what they depend on."""
    return f"pip install --no-deps {' '.join(map(normalised, packages))}"


def _distribution_of(folder: Path) -> importlib.metadata.Distribution | None:
    """What pip installed a package's `folder` with: of the same name, or the only one that has such a folder."""
    try:
        return importlib.metadata.distribution(normalised(folder.name))
    except importlib.metadata.PackageNotFoundError:
        installed = importlib.metadata.distributions(path=[str(folder.parent)])
        owners = [owner for owner in installed if any(file.parts[0] == folder.name for file in owner.files or ())]
        return owners[0] if len(owners) == 1 else None


def recorded_file(folder: Path, file: Path) -> RecordedFile:
    """What pip recorded of a file below a package's `folder`; `InputError` where it recorded nothing."""
    again = f"{install(folder.name)} --force-reinstall"
    distribution = _distribution_of(folder)
    if distribution is None:
        raise InputError(f"{file}: no package {normalised(folder.name)!r} is installed: {again}")
    inside = Path(folder.name, file.relative_to(folder)).as_posix()
    entries = [entry for entry in distribution.files or () if str(entry) == inside]
    if not entries or entries[0].hash is None or entries[0].hash.mode != "sha256" or entries[0].size is None:
        raise InputError(f"{file}: its package's RECORD has no sha256 of it: {again}")
    (entry,) = entries[:1]
    digest = base64.urlsafe_b64decode(entry.hash.value + "=" * (-len(entry.hash.value) % 4)).hex()
    return RecordedFile(distribution.version, entry.size, digest)
