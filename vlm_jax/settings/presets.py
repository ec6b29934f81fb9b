"""Configs and studies from Python files, and configs from a run's JSON."""

import ast
import dataclasses
import inspect
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from vlm_jax.errors import InputError, nearest, one_of
from vlm_jax.invocation import folder_of_presets
from vlm_jax.settings.changes import from_json
from vlm_jax.settings.errors import explained
from vlm_jax.settings.groups import Group

Config = TypeVar("Config", bound=Group)
Made = TypeVar("Made")


def load_preset(path: str | Path, tasks: Mapping[str, type[Config]], texts: Callable[[], str] | None = None) -> Config:
    """The config that `get_config()` of a Python file returns, or a run's `config.json` holds.

    `path` may be the name of a preset. A group of it that comes from `model_construct()` may lack required settings.
    `get_config(texts)` takes what `texts` returns, such as "questions", or without it its default.
    """
    path = preset_file(Path(path), folder_of_presets(), what="config")
    if path.suffix == ".json":
        try:
            return from_json(path.read_text(encoding="utf-8"), tasks)
        except ValueError as error:  # InputError among them, and what is not UTF-8
            raise InputError(f"{path} cannot be used: {error}") from None
    if path.suffix != ".py":
        raise InputError(f"{path}: expected a Python file such as configs/tiny.py, or the config.json of a run")
    return call_file(path, "get_config", tuple(tasks.values()), example="configs/tiny.py", argument=texts)


def call_file(
    path: Path,
    function: str,
    kinds: tuple[type[Made], ...],
    *,
    example: str,
    argument: Callable[[], object] | None = None,
) -> Made:
    """What a function in a Python file returns, such as a config from `get_config()`; one with a parameter takes
    what `argument` returns.

    Raises `InputError` where the file is not Python, lacks the function, names an unknown setting, or where the
    function returns none of `kinds`. Other exceptions keep their traceback.
    """
    try:
        make = runpy.run_path(str(path)).get(function)
        if make is None:
            raise InputError(f"{path} defines no {function}(); see {example}")
        made = make(argument()) if argument and inspect.signature(make).parameters else make()
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}; see {example}") from None
    except ValidationError as error:
        raise InputError(f"{_place(path, error)}: {error.title}: {explained(error, _class(error), {})}") from None
    except TypeError as error:
        _refuse_keyword(path, error, kinds)
        raise
    if type(made) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{function}() of {path} returns a {type(made).__name__}; expected {expected}")
    return made


def _place(path: Path, error: Exception) -> str:
    """The file and the line of it in which an error arose."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    line = next((frame.lineno for frame in frames if frame.filename == str(path)), None)
    return f"{path}, line {line}" if line else str(path)


def _class(error: ValidationError) -> type[Group]:
    """The group that pydantic could not make, by the name that its error has."""
    below: list[type[Group]] = [Group]
    for group in below:  # grows
        below += group.__subclasses__()
    return next((group for group in below if group.__name__ == error.title), Group)


def _refuse_keyword(path: Path, error: TypeError, kinds: tuple[type, ...]) -> None:
    """Raise `InputError` where a dataclass beside `kinds` has no field of a keyword's name."""
    unknown = re.fullmatch(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    for kind in kinds:
        group = getattr(sys.modules[kind.__module__], unknown[1], None) if unknown else None
        if unknown and dataclasses.is_dataclass(group):
            fields = [field.name for field in dataclasses.fields(group)]
            hint = nearest(unknown[2], fields)
            raise InputError(f"{path}: {unknown[1]} has no setting {unknown[2]!r}; {hint}") from None


def preset_file(path: Path, folder: Path, *, what: str) -> Path:
    """The file that a path means, or the name of a preset in `folder`; `InputError` names the nearest."""
    if path.is_file():
        return path
    if path.parent == Path():
        named = folder / f"{path.name}.py"
        if path.name and named.is_file():
            return named
        raise InputError(f"no {what} {str(path)!r}; {nearest(path.stem, presets_in(folder))}")
    beside = [str(path.parent / f"{name}.py") for name in presets_in(path.parent)]
    hint = nearest(str(path), beside) if beside else f"give a file or {one_of(presets_in(folder))}"
    raise InputError(f"no {what} file {str(path)!r}; {hint}")


def descriptions(folder: Path) -> dict[str, str]:
    """The first line that each preset in a folder says of itself, by its name; none of them is run."""
    files = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in presets_in(folder)}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in files.items()}


def presets_in(folder: Path) -> list[str]:
    """The names of the presets in a folder, sorted."""
    return sorted(entry.stem for entry in folder.glob("[!_]*.py"))
