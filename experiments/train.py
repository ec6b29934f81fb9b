"""Train a model: `python -m experiments.train quickstart --optimizer.learning-rate 3e-4`."""

import sys
from pathlib import Path
from typing import ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.config.run import Config
from vlm_jax.failures import check_writable_name
from vlm_jax.training.command_config import ConfigOptions, parse_command


class TrainOptions(ConfigOptions):
    """What this command takes besides settings."""

    examples: ClassVar[tuple[str, ...]] = ("quickstart", "easy_vqa --model.image.kind resnet --workdir runs/resnet")
    workdir: Path | None = None
    """Folder of the run (default: runs/NAME)."""


def parse_train(argv: list[str]) -> tuple[Config, Path]:
    """`configs/NAME.py --setting value ... --workdir DIR` to a checked config and the run's folder."""
    description = "Train, evaluate and save. CONFIG is a preset's name or a file; every setting in it is an option."
    config, options = parse_command(argv, TrainOptions(), command="train", description=description)
    workdir = (options.workdir or Path("runs") / config.name).expanduser()
    check_writable_name(workdir, "--workdir")
    check_writable_name(config.data.directory.expanduser(), "data.directory")
    return config, workdir


def main(argv: list[str]) -> int:
    config, workdir = parse_train(argv)

    from vlm_jax.interrupts import print_line
    from vlm_jax.training.loop import Interrupted, NotFinite
    from vlm_jax.training.run import train

    try:
        train(config, workdir)
    except Interrupted as stop:
        print_line(str(stop))
        return 128 + stop.number
    except NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_command(main)
