"""A report about runs made by hand: `python -m experiments.report runs/a runs/b --output runs/comparison`."""

import shlex
from pathlib import Path
from typing import Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group


class Report(Group):
    """Compare finished runs; those that differ in their seed alone are one variant, the first is the base."""

    examples: ClassVar[tuple[str, ...]] = ("runs/concat runs/cross", "runs/*-seed-* --output report --metrics accuracy")
    runs: Annotated[tuple[Path, ...], POSITIONAL]
    """Folders of runs of one task."""
    output: Path = Path("runs/report")
    """Folder that gets report.md and report.html."""
    metrics: tuple[str, ...] = ()
    """Scores to compare, by default the one that the best checkpoint is chosen by."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Report, prog=command_name("report"))
    if not arguments.runs:
        raise InputError("no run given; name one or more folders of runs")

    import jax

    from vlm_jax.ablation.study_report import write_report_of_runs

    jax.config.update("jax_platforms", "cpu")
    command = f"{command_name('report')} {shlex.join(argv)}"
    write_report_of_runs(arguments.runs, arguments.output, metrics=arguments.metrics, command=command)
    print(f"report: {arguments.output / 'report.md'} and report.html beside it")
    return 0


if __name__ == "__main__":
    run_command(main)
