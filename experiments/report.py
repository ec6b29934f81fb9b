"""A report about runs made by hand: `python -m experiments.report runs/a runs/b --output runs/comparison`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import parse, run_command
from vlm_jax.errors import InputError


def main(argv: list[str]) -> int:
    import tyro

    @dataclass(frozen=True)
    class Report:
        """Compare finished runs; those that differ in their seed alone are one variant, the first is the base."""

        runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
        """Folders of runs of one task."""
        output: Path = Path("runs/report")
        """Folder that gets report.md and report.html."""
        metrics: tuple[str, ...] = ()
        """Scores to compare, by default the one that the best checkpoint is chosen by."""

    arguments = parse(Report, argv, prog="python -m experiments.report")
    if not arguments.runs:
        raise InputError("no run given; name one or more folders of runs")

    import jax

    from vlm_jax.ablation.study_report import write_report_of_runs

    jax.config.update("jax_platforms", "cpu")
    command = shlex.join(["python", "-m", "experiments.report", *argv])
    write_report_of_runs(arguments.runs, arguments.output, metrics=arguments.metrics, command=command)
    print(f"report: {arguments.output / 'report.md'} and report.html beside it")
    return 0


if __name__ == "__main__":
    run_command(main)
