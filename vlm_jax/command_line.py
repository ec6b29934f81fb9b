"""What every command shares: presets, settings as options, errors as one line."""

import logging
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from vlm_jax.config import Config, check
from vlm_jax.errors import InputError, nearest

Arguments = TypeVar("Arguments")


def load_preset(path: Path) -> Config:
    """The config that a file such as `configs/tiny.py` gives; `InputError` names the nearest preset."""
    if not path.is_file():
        folder = path.parent if path.parent != Path() else Path("configs")
        presets = [str(entry) for entry in folder.glob("*.py")] if folder.is_dir() else []
        hint = nearest(str(folder / path.with_suffix(".py").name), presets) if presets else "give a file in configs/"
        raise InputError(f"no config file {str(path)!r}; {hint}")
    get_config = runpy.run_path(str(path)).get("get_config")
    if get_config is None:
        raise InputError(f"{path} defines no get_config(); see configs/tiny.py")
    return get_config()


def parse_train(argv: list[str]) -> tuple[Config, Path]:
    """`configs/NAME.py --setting value ... --workdir DIR` to a checked config and the run's folder.

    tyro prints help, or what is wrong with an option and the nearest ones, and exits (code 2 for an error).
    """
    preset = load_preset(Path(argv[0])) if argv and not argv[0].startswith("-") else None
    default = preset or Config()

    import tyro

    def train(
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
        workdir: Annotated[Path | None, tyro.conf.arg(help="Folder of the run (default: runs/NAME).")] = None,
    ) -> tuple[Config, Path | None]:
        return config, workdir

    usage = "python -m experiments.train configs/NAME.py"
    description = "Train, evaluate and save. The first argument is a config file; every setting in it is an option."
    config, workdir = tyro.cli(train, args=argv[preset is not None :], prog=usage, description=description)
    if preset is None:
        raise InputError("no config file; give one first, such as configs/quickstart.py")
    return check(config), workdir or Path("runs") / config.name


def parse(arguments: Callable[..., Arguments], argv: list[str], *, prog: str) -> Arguments:
    """Options and positional arguments by the signature of a dataclass."""
    import tyro

    return tyro.cli(arguments, args=argv, prog=prog)


def run_command(main: Callable[[list[str]], int | None], argv: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 2 with one line where the input is wrong, 130 where it was interrupted."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax and tfds warn of what is as it should be
    try:
        code: Any = main(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
