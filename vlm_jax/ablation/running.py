"""The runs of a study: each in a process and a folder of its own, several at a time, resumed where they stopped."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vlm_jax.ablation.run_identity import begin_trained, is_requested, training
from vlm_jax.ablation.study import Run, Table
from vlm_jax.config.run import Config
from vlm_jax.errors import InputError
from vlm_jax.interrupts import CODES, SIGNALS, print_line
from vlm_jax.run_folder import CONFIG, RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.settings.effects import Effect
from vlm_jax.text_lines import read_lines, split_lines
from vlm_jax.training.checkpoint_manifest import fault
from vlm_jax.training.evaluation import code, processor, versions
from vlm_jax.training.logging import duration

LAST_LINES = 20
POLL_SECONDS = 0.1
PART = ".part"
CACHE_AFTER_SECONDS = 0.2  # programs that took longer to compile are kept for the next seed
KERNEL_COUNTS = Path("/proc/vmstat")  # Documentation/filesystems/proc.rst
KERNEL_KILL_SECONDS = 30  # a process that the kernel ended is gone within so many, its memory given back
KILLED = {signal.SIGKILL, *SIGNALS}  # by others: nothing is wrong with the run


@dataclass(frozen=True)
class StudyFolder:
    """Where a study's runs, their configs, logs and errors are; the report lies directly in it."""

    path: Path

    def check(self) -> None:
        """Raises `InputError` where this is a file, or the folder of a run."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; give a folder as --workdir")
        if (self.path / CONFIG).exists():
            raise InputError(f"{self.path} is the folder of a run; give a study another --workdir")

    def known(self, runs: Sequence[Run]) -> list[Run]:
        """The runs by the names of the folders that have them already, whatever they are called by now."""
        folders = self._folders()
        return [run._replace(name=_first_of(run.config, folders) or run.name) for run in runs]

    def trained_alike(self, config: Config, *, cores: int) -> RunFolder | None:
        """A finished run that `config` would have trained just so, here, now and on so many cores; None without one."""
        if training(config) is None:
            return None
        alike = (
            folder
            for folder, config_of_run in self._folders()
            if folder.finished
            and training(config_of_run) is not None
            and is_requested(folder, config_of_run, config, Effect.DECODING)
        )
        trained = (folder for folder in alike if folder.trained_as() is None)
        return next((folder for folder in trained if _of_here_and_now(folder, config.training.steps, cores)), None)

    def seeds(self, tables: Iterable[Table]) -> set[int]:
        """The seeds that variants of these comparisons have finished runs with."""
        return {
            config.seed
            for folder, config in self._folders()
            if folder.finished
            for variant in {variant.config for table in tables for variant in table.variants}
            if is_requested(folder, config, with_changes(variant, {"seed": config.seed}))
        }

    def finished(self) -> Callable[[Config], bool]:
        """Whether a run with this config is."""
        runs = [(folder, config) for folder, config in self._folders() if folder.finished]
        return lambda config: _first_of(config, runs) is not None

    def unreadable(self) -> list[str]:
        """Why runs that are there cannot be used: they are of another version, or damaged."""
        return [str(config) for _, config in self._read() if isinstance(config, InputError)]

    def _folders(self) -> list[tuple[RunFolder, Config]]:
        """Those whose configs can be read, finished ones first, by name."""
        readable = [(folder, config) for folder, config in self._read() if isinstance(config, Config)]
        return sorted(readable, key=lambda pair: (not pair[0].finished, pair[0].path.name))

    def _read(self) -> Iterator[tuple[RunFolder, Config | InputError]]:
        for file in sorted((self.path / "runs").glob(f"*/{CONFIG}")):
            try:
                yield RunFolder(file.parent), RunFolder(file.parent).config()
            except InputError as error:
                yield RunFolder(file.parent), error

    def run(self, run: Run) -> RunFolder:
        """The folder of a run, which need not be there yet."""
        return RunFolder(self.path / "runs" / run.name)

    def log(self, run: Run) -> Path:
        """What a run has printed, over all its starts."""
        return self.path / "logs" / f"{run.name}.log"

    def error(self, run: Run) -> str | None:
        """Why a run failed, in its first line, and what it said last; None where it has not."""
        file = self._failed(run)
        failed = file.is_file() and not self.run(run).finished
        return file.read_text(encoding="utf-8", errors="replace").strip() if failed else None

    def write_error(self, run: Run, text: str | None) -> None:
        """Remember why a run failed, or forget it."""
        file = self._failed(run)
        if text is None:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        RunFolder(file.parent).write_text(file.name, text + "\n")

    def write_config(self, run: Run) -> Path:
        """Write the config that a run starts from."""
        file = self.path / "configs" / f"{run.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        RunFolder(file.parent).write_text(file.name, to_json(run.config))
        return file

    def _failed(self, run: Run) -> Path:
        return self.path / "failed" / f"{run.name}.txt"


def _first_of(requested: Config, runs: Sequence[tuple[RunFolder, Config]]) -> str | None:
    """The name of the first run that is the one asked for: with its very config, or with what may change changed."""
    exact = (folder.path.name for folder, config in runs if config == requested)
    moved = (folder.path.name for folder, config in runs if is_requested(folder, config, requested))
    return next(exact, None) or next(moved, None)


def _of_here_and_now(folder: RunFolder, step: int, cores: int) -> bool:
    """Whether a run's bits are those that this code has on this machine, and its last state is there and intact."""
    try:
        result, made_with = folder.result(), folder.made_with()
    except InputError:  # damaged, and the report says so
        return False
    if result.get("code") != code() or result.get("versions") != versions():
        return False
    made = result.get("machine") or {}
    if (made.get("processor"), made.get("cpu_cores")) != (processor(), cores):
        return False
    return fault(folder.checkpoints / str(step), made_with) is None


class _Active(NamedTuple):
    run: Run
    slot: int
    process: subprocess.Popen
    began: float
    log_begins: int
    """Where in its log this start begins, in bytes."""
    scored_alone: bool


@dataclass(frozen=True)
class Workers:
    """What trains the runs of a study, `jobs` at a time, each with its share of the cores."""

    command: Sequence[str]
    """Followed by a config file, `--workdir` and a folder it is a training."""
    jobs: int = 1
    devices: Sequence[str] = ()
    """CUDA devices, one for each job."""

    def check(self) -> None:
        """Raises `InputError` where there is not a core, or a named device, for each job."""
        cores = len(os.sched_getaffinity(0))
        if not 1 <= self.jobs <= cores:
            raise InputError(f"--jobs is {self.jobs}; this machine has cores for 1 to {cores}")
        if self.devices and self.jobs > len(self.devices):
            count = len(self.devices)
            raise InputError(f"--jobs is {self.jobs}, and --devices names {count}; give each job a device of its own")


def execute(
    runs: Sequence[Run],
    folder: StudyFolder,
    workers: Workers,
    *,
    retry: bool = False,
    write_line: Callable[[str], None] = print_line,
    stopped: Callable[[], int] = lambda: 0,
) -> bool:
    """Do what is left of the runs; whether it came to an end, which it has not where `stopped` (`stop_requests`) did.

    Finished runs are skipped, those that were stopped or killed go on, those that failed are left alone unless `retry`.
    A run that fails stops no other. Each job has its share of the cores, so that what one run computes does not depend
    on the others. Runs that train alike are trained once (`run_identity`).
    """
    waiting = [run for run in runs if not folder.run(run).finished and (retry or folder.error(run) is None)]
    done, total, seconds = len(runs) - len(waiting), len(runs), []
    active: list[_Active] = []
    for half in folder.path.glob(f".*{PART}"):  # a copy in which a study was killed
        shutil.rmtree(half, ignore_errors=True)
    stop_sent, counted, out_of_memory_at = False, _out_of_memory_kills(), -math.inf
    try:
        while (waiting and not stopped()) or active:
            while not stopped() and len(active) < workers.jobs and (run := _next(waiting, active)) is not None:
                slot = min(set(range(workers.jobs)) - {job.slot for job in active})
                waiting.remove(run)
                active.append(_start(run, slot, folder, workers))
            if stopped() and not stop_sent:  # once: a second one would end a run that is closing its files
                stop_sent = True
                for job in active:
                    job.process.send_signal(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
            before, counted = counted, _out_of_memory_kills()
            out_of_memory_at = time.monotonic() if counted > before else out_of_memory_at
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                took = time.monotonic() - job.began
                short = time.monotonic() - out_of_memory_at < KERNEL_KILL_SECONDS
                ended = _ended(job, folder, out_of_memory=short)
                if folder.run(job.run).finished:
                    seconds.append(took)
                done += 1
                left = (len(waiting) + len(active)) / workers.jobs
                eta = f"  ETA {duration(left * sum(seconds) / len(seconds))}" if left and seconds else ""
                write_line(f"{done}/{total}  {job.run.name}: {ended}, {duration(took)}{eta}")
    finally:
        for job in active:  # after an error; where this process dies, they die with it (`child`)
            job.process.kill()
    return not stopped()


def _next(waiting: Sequence[Run], active: Sequence[_Active]) -> Run | None:
    """The first whose training is not just being done for another run."""
    busy = {training(job.run.config) for job in active if not job.scored_alone} - {None}
    return next((run for run in waiting if training(run.config) not in busy), None)


def _start(run: Run, slot: int, folder: StudyFolder, workers: Workers) -> _Active:
    folder.write_error(run, None)
    config = folder.write_config(run)
    log = folder.log(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // workers.jobs
    if not folder.run(run).path.exists() and (trained := folder.trained_alike(run.config, cores=share)) is not None:
        note, part = f"trained as {trained.path.name}: scored alone", folder.path / f".{run.name}{PART}"
        try:
            begin_trained(folder.run(run), run.config, trained, part)
        except (OSError, InputError) as error:  # then it is trained
            shutil.rmtree(part, ignore_errors=True)
            reason = getattr(error, "strerror", None) or error
            note = f"the training of {trained.path.name} cannot be copied: {reason}"
        with log.open("a", encoding="utf-8") as output:
            output.write(f"{note}\n")
    settings = [
        f"JAX_COMPILATION_CACHE_DIR={folder.path / 'cache'}",
        f"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS={CACHE_AFTER_SECONDS}",
        *([f"CUDA_VISIBLE_DEVICES={workers.devices[slot]}"] if workers.devices else []),
    ]
    own_cores = cores[slot * share : (slot + 1) * share] if workers.jobs > 1 else []
    child = [sys.executable, "-m", "vlm_jax.ablation.child", str(os.getpid()), ",".join(map(str, own_cores))]
    train = [*workers.command, str(config), "--workdir", str(folder.run(run).path)]
    with log.open("ab") as output:
        begins = output.tell()
        # A session of its own: Ctrl-C reaches this process alone, which then asks each run to stop.
        process = subprocess.Popen(
            [*child, shutil.which("env") or "env", *settings, *train],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    scored_alone = folder.run(run).trained_as() is not None
    return _Active(run, slot, process, time.monotonic(), begins, scored_alone)


def _ended(job: _Active, folder: StudyFolder, *, out_of_memory: bool) -> str:
    """How a run ended, in words; what went wrong is kept.

    `out_of_memory`: whether the kernel has just ended some process for lack of memory, which may have been this one.
    """
    code, run = job.process.returncode, job.run
    if folder.run(run).finished:
        return "finished"
    if code in CODES:
        return "stopped; the next call goes on with it"
    if -code == signal.SIGKILL and out_of_memory:
        reason = "killed, it seems for lack of memory"
        folder.write_error(run, reason)  # it would end so again
        return f"failed ({reason})"
    if -code in KILLED:
        perhaps = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{perhaps}; the next call goes on with it"
    output = folder.log(run).read_bytes()[job.log_begins :].decode(errors="replace")
    lines = split_lines(output.strip())[-LAST_LINES:] or ["it said nothing"]
    folder.write_error(run, "\n".join([lines[-1], f"(ended with code {code}; its last lines follow)", *lines]))
    return f"failed ({lines[-1]})"


def _out_of_memory_kills() -> int:
    """How many processes the kernel has ended for lack of memory since it began; 0 where it does not count them."""
    with suppress(OSError):
        for line in read_lines(KERNEL_COUNTS):
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
