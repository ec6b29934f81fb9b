"""What every command shares: presets, settings as options, errors as one line."""

import dataclasses
import json
import logging
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from vlm_jax.config import Config
from vlm_jax.config_checks import check
from vlm_jax.config_json import from_dict, to_dict
from vlm_jax.errors import InputError, nearest
from vlm_jax.failures import check_writable_name, explained, quiet_end, quiet_libraries
from vlm_jax.interrupts import discard, installed

Arguments = TypeVar("Arguments")
Made = TypeVar("Made")
PRESETS = Path("configs")


def load_preset(path: Path) -> Config:
    """The config that a file such as `configs/tiny.py` gives, or a run's `config.json`, its types checked.

    Raises `InputError` with the nearest preset where there is no such file, or the nearest setting where a name in
    it is wrong.
    """
    if not path.is_file():
        folder = path.parent if path.parent != Path() else PRESETS
        presets = _presets(folder)
        hint = nearest(str(folder / path.with_suffix(".py").name), presets) if presets else "give a file in configs/"
        raise InputError(f"no config file {str(path)!r}; {hint}")
    if path.suffix == ".json":
        return _load_json(path)
    if path.suffix != ".py":
        raise InputError(f"{path} is no Python file and no config.json of a run; a config looks like configs/tiny.py")
    config = call_file(path, "get_config", Config, example="configs/tiny.py")
    try:
        return from_dict(to_dict(config))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def call_file(path: Path, function: str, kind: type[Made], *, example: str) -> Made:
    """What a function without arguments in a Python file makes, such as `get_config()` a `Config`.

    Raises `InputError` where the file is no Python, has no such function or it makes something else, and with the
    nearest setting where a name in it is wrong; what else goes wrong in it keeps its traceback.
    """
    try:
        make = runpy.run_path(str(path)).get(function)
        if make is None:
            raise InputError(f"{path} defines no {function}(); see {example}")
        made = make()
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}; see {example}") from None
    except TypeError as error:
        unknown = re.fullmatch(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
        group = getattr(sys.modules[kind.__module__], unknown[1], None) if unknown else None
        if not dataclasses.is_dataclass(group):
            raise
        known = [field.name for field in dataclasses.fields(group)]
        raise InputError(f"{path}: {unknown[1]} has no setting {unknown[2]!r}; {nearest(unknown[2], known)}") from None
    if not isinstance(made, kind):
        raise InputError(f"{function}() of {path} gives a {type(made).__name__}; it must give a {kind.__name__}")
    return made


def _load_json(path: Path) -> Config:
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # not JSON, or no config of this version
        raise InputError(f"{path} cannot be used: {error}") from None


def _presets(folder: Path) -> list[str]:
    return sorted(str(entry) for entry in folder.glob("*.py")) if folder.is_dir() else []


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What `experiments.train` takes besides settings."""

    workdir: Path | None = None
    """Folder of the run (default: runs/NAME)."""


def parse_train(argv: list[str]) -> tuple[Config, Path]:
    """`configs/NAME.py --setting value ... --workdir DIR` to a checked config and the run's folder."""
    description = "Train, evaluate and save. The first argument is a config file; every setting in it is an option."
    config, options = parse_config(argv, TrainOptions(), prog="python -m experiments.train", description=description)
    workdir = (options.workdir or Path("runs") / config.name).expanduser()
    check_writable_name(workdir, "--workdir")
    check_writable_name(Path(config.data.directory).expanduser(), "data.directory")
    return config, workdir


def parse_config(argv: list[str], options: Arguments, *, prog: str, description: str) -> tuple[Config, Arguments]:
    """`configs/NAME.py --setting value ...` to a checked config, and `options` with what the command line says of them.

    `options` is a dataclass with the command's own options, beside the settings, at their defaults.

    tyro prints help, or what is wrong with an option and the nearest ones, and exits (code 2 for an error).
    """
    place = _preset_place(argv)
    preset = None if place is None else load_preset(Path(argv[place]))
    default = preset or Config()

    import tyro

    def command(
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
        options: Annotated[type(options), tyro.conf.arg(name="")] = options,
    ) -> tuple[Config, Any]:
        return config, options

    name = "configs/NAME.py" if place is None else argv[place]
    rest = argv if place is None else argv[:place] + argv[place + 1 :]
    config, options = tyro.cli(command, args=rest, prog=f"{prog} {name}", description=description)
    if preset is None:
        raise InputError(f"no config file; give one first: {', '.join(_presets(PRESETS)) or 'configs/NAME.py'}")
    return check(config), options


def _preset_place(argv: list[str]) -> int | None:
    """The preset comes first; after options it is known by its ending, since an option's values may precede it."""
    if argv and not argv[0].startswith("-"):
        return 0
    return next((place for place, argument in enumerate(argv) if argument.endswith((".py", ".json"))), None)


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
        _flush()
    return code


def _flush() -> None:
    """What stdout still holds may be what could not be written; Python would try again, and end with another code."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout.fileno())
