"""Compare variants over seeds: `python -m experiments.ablate configs/ablations/tiny.py`.

Trains every variant with every seed, or scores it where another trained alike, each in a folder of its own, and writes
`report.md` and `report.html`. The same command again goes on where it was stopped or killed, and does only what is
missing.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.failures import check_writable_name
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group
from vlm_jax.text_lines import split_lines

if TYPE_CHECKING:
    from vlm_jax.ablation.running import StudyFolder
    from vlm_jax.ablation.study import Run

TRAIN = (sys.executable, "-m", "vlm_jax", "train")


class Ablate(Group):
    """Train the variants of a study over seeds, then write report.md and report.html."""

    examples: ClassVar[tuple[str, ...]] = ("tiny --jobs 2", "fusion --dry-run")
    study: Annotated[Path, POSITIONAL]
    """The name of a study, or its file."""
    workdir: Path | None = None
    """Folder of the study (default: runs/NAME-study)."""
    seeds: tuple[int, ...] = ()
    """Train with these seeds, be they the study's or others; the report has all of both."""
    only: tuple[str, ...] = ()
    """Do only the runs whose name has one of these in it, such as `fusion=cross`."""
    jobs: int = 1
    """Runs at a time, each with its share of the cores."""
    devices: tuple[str, ...] = ()
    """CUDA devices by number, one for each job at a time."""
    retry: bool = False
    """Start runs that failed again."""
    dry_run: bool = False
    """Show every run with parameters, FLOPs, memory and time, from two steps of each variant; train nothing."""
    power: float | None = None
    """Train nothing: how many seeds a difference of this size needs, by the spread of the runs that are there."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Ablate, prog=command_name("ablate"))

    from dataclasses import replace

    import jax

    from vlm_jax.ablation import running
    from vlm_jax.ablation import study as studies
    from vlm_jax.ablation.plan import plan, power
    from vlm_jax.ablation.study_report import write_report
    from vlm_jax.interrupts import print_line, stop_requests
    from vlm_jax.run_claim import locked

    jax.config.update("jax_platforms", "cpu")  # the runs have the accelerators; this process only counts
    file = studies.study_file(arguments.study)
    study = studies.load_study(file)
    seeds = arguments.seeds or study.seeds
    studies.check_seeds(seeds, file)
    workers = running.Workers(TRAIN, arguments.jobs, arguments.devices)
    workers.check()
    folder = running.StudyFolder((arguments.workdir or Path("runs") / f"{file.stem}-study").expanduser())
    check_writable_name(folder.path, "--workdir")
    folder.check()
    tables = studies.resolve(replace(study, seeds=tuple(seeds)), file, folder.finished())
    study = replace(study, seeds=tuple(dict.fromkeys((*study.seeds, *seeds, *sorted(folder.seeds(tables))))))
    every = folder.known(studies.runs(tables, study.seeds))
    runs = studies.named([run for run in every if run.config.seed in seeds], arguments.only)
    if arguments.dry_run:
        print(plan(tables, runs, folder, jobs=arguments.jobs, retry=arguments.retry))
        return 0
    if arguments.power is not None:
        print(power(tables, every, folder, arguments.power))
        return 0

    folder.path.mkdir(parents=True, exist_ok=True)
    with locked(folder.path):
        _print_state(runs, folder, retry=arguments.retry)
        with stop_requests() as stopped:
            running.execute(runs, folder, workers, retry=arguments.retry, stopped=stopped)
            number = stopped()
        write_report(study, tables, every, folder, command=f"{command_name('ablate')} {shlex.join(argv)}")
    print_line(f"report: {folder.path / 'report.md'} and report.html beside it")
    if number:
        print_line("stopped; the same command goes on from there")
        return 128 + number
    return 0 if all(folder.run(run).finished for run in runs) else 1


def _print_state(runs: "list[Run]", folder: "StudyFolder", *, retry: bool) -> None:
    for reason in folder.unreadable():
        print(f"note: left aside: {reason}", flush=True)
    finished = sum(folder.run(run).finished for run in runs)
    if finished:
        print(f"{finished} of {len(runs)} runs are finished", flush=True)
    if finished < len(runs):
        print(f"what a run is at is in {folder.path / 'logs'}; a line here says how each ended", flush=True)
    for run in runs:
        error = folder.error(run)
        if error is not None:
            print(f"{run.name} failed: {split_lines(error)[0]}; {'tried again' if retry else '--retry tries it again'}")


if __name__ == "__main__":
    run_command(main)
