"""Train a model: `python -m experiments.train quickstart --optimizer.learning-rate 3e-4`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.failures import check_writable_name
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_config
from vlm_jax.settings.groups import Group

if TYPE_CHECKING:
    import jax


class TrainOptions(Group):
    """What this command takes besides settings."""

    examples: ClassVar[tuple[str, ...]] = ("quickstart", "easy_vqa --model.image.kind resnet --workdir runs/resnet")
    workdir: Path | None = None
    """Folder of the run (default: runs/NAME)."""


def parse_train(argv: list[str]) -> tuple[Config, Path]:
    """`configs/NAME.py --setting value ... --workdir DIR` to a checked config and the run's folder."""
    description = "Train, evaluate and save. CONFIG is a preset's name or a file; every setting in it is an option."
    config, options = parse_config(argv, TrainOptions(), TASKS, prog=command_name("train"), description=description)
    workdir = (options.workdir or Path("runs") / config.name).expanduser()
    check_writable_name(workdir, "--workdir")
    check_writable_name(config.data.directory.expanduser(), "data.directory")
    return config, workdir


def main(argv: list[str]) -> int:
    config, workdir = parse_train(argv)

    from vlm_jax.allocator import tune_malloc
    from vlm_jax.compilation_cache import keep_programs
    from vlm_jax.identity import changes
    from vlm_jax.interrupts import on_interrupt, print_line
    from vlm_jax.run_claim import claim
    from vlm_jax.training.evaluation import score_lines
    from vlm_jax.training.loop import Interrupted, NotFinite, Trainer
    from vlm_jax.training.parallel import choose_devices

    tune_malloc()
    if config.compute.compilation_cache:
        keep_programs(config.data.directory)
    devices = choose_devices(config)  # refuses before anything is written
    with claim(workdir, config) as folder:
        before = folder.config()
        if folder.finished and config.training.steps <= before.training.steps:
            print(f"{folder.path} is finished: nothing to do. Look at result.json and predictions.png in it")
            for change in changes(before, config):
                print(
                    f"note: it stays as it was, without the change of {change}; "
                    f"{command_name('evaluate')} takes --change"
                )
            return 0
        print_line(_described(devices))
        with on_interrupt(line=lambda: "training had not begun"):
            trainer = Trainer(config, folder)
        try:
            result = trainer.run()
        except Interrupted as stop:
            print_line(str(stop))
            return 128 + stop.number
        except NotFinite as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print("\n".join(score_lines(result)))
    print(f"saved in {folder.path}: result.json, predictions.jsonl, predictions.png")
    return 0


def _described(devices: "list[jax.Device]") -> str:
    """What a run computes on, such as `device: cpu, 2 cores` or `device: 2 x NVIDIA H200`."""
    kind = devices[0].device_kind if len(devices) == 1 else f"{len(devices)} x {devices[0].device_kind}"
    cores = len(os.sched_getaffinity(0))
    counted = f", {cores} core{'s' if cores > 1 else ''}" if devices[0].platform == "cpu" else ""
    return f"device: {kind}{counted}"


if __name__ == "__main__":
    run_command(main)
