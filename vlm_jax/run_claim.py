"""Who may write to the folder of a run: one process at a time, and one run for ever."""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vlm_jax.config.run import Config
from vlm_jax.errors import InputError
from vlm_jax.failures import os_failure
from vlm_jax.files import unused
from vlm_jax.identity import forbidden, same_schedule
from vlm_jax.integrity import MANIFEST
from vlm_jax.interrupts import on_interrupt
from vlm_jax.run_folder import CONFIG, RunFolder
from vlm_jax.settings.changes import to_json

LOCK = "lock"


@contextmanager
def claim(workdir: Path, config: Config) -> Iterator[RunFolder]:
    """The folder, locked for this process: new, or holding this run, under settings that it may have (`identity`).

    Raises `InputError`, and changes nothing, where another process holds the folder, or where it holds another run or
    something that is no run. A new folder in which nothing could be set up, or whose set-up a signal interrupted, is
    emptied again.
    """
    folder = RunFolder(workdir)
    made = [path for path in (workdir, *workdir.parents) if not path.exists()]
    _check_content(folder, config)
    fresh = False

    def undo() -> None:
        if fresh and not (folder.checkpoints.is_dir() and any(folder.checkpoints.iterdir())):
            _clear(workdir)
        for path in made:  # what another process has put there stays
            with suppress(OSError):
                path.rmdir()

    with on_interrupt(undo=undo):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise os_failure(error, f"cannot make the folder {workdir}") from None
        with locked(workdir):
            _check_content(folder, config)  # a run may have begun and ended since the first look
            fresh = not (workdir / CONFIG).exists()
            if fresh:
                folder.write_text(CONFIG, to_json(config))
            try:
                yield folder
            except Exception:
                if fresh and not folder.checkpoints.exists():
                    undo()
                raise


def _check_content(folder: RunFolder, config: Config) -> None:
    path = folder.path
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file; give a folder as --workdir")
    if not (path / CONFIG).exists():
        # A process killed while it wrote the config leaves the lock and half a config, which is still no run.
        if any(entry.name != LOCK and not entry.name.startswith(f".{CONFIG}.") for entry in path.iterdir()):
            if (path / MANIFEST).exists():
                raise InputError(f"{path} has lost its {CONFIG}; put it back, or give another --workdir")
            raise InputError(f"{path} is not empty and holds no run; give another --workdir")
        return
    _check_identity(folder, folder.config(), config)


def _check_identity(folder: RunFolder, before: Config, config: Config) -> None:
    path = folder.path
    if changed := forbidden(before, config):
        raise InputError(
            f"{path} holds a run with other settings ({'; '.join(map(str, changed))}); give another folder, such as "
            f"--workdir {unused(path)}"
        )
    steps, wanted = before.training.steps, config.training.steps
    if not same_schedule(before, config):
        raise InputError(
            f"{path} holds a run of training.steps {steps}, on which its learning rates depend (optimizer.schedule "
            f"{config.optimizer.schedule!r}, optimizer.warmup_steps {config.optimizer.warmup_steps}); to train its "
            f"weights further, begin a run with --init.kind model --init.model {path} --workdir {unused(path)}; to "
            "leave the end open, begin one with --optimizer.schedule constant, whose training.steps may grow"
        )
    if folder.finished and wanted < steps:
        raise InputError(f"{path} has taken {steps} optimizer steps; training.steps {wanted} must be at least that")


def _clear(workdir: Path) -> None:
    """Remove what a failed start left."""
    for entry in workdir.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Hold a folder for this process alone; `InputError` names the process that has it."""
    try:
        file = (workdir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise os_failure(error, f"cannot write in --workdir {workdir}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise InputError(f"{workdir} is in use by {owner}; wait for it or give another --workdir") from None
        except OSError as error:
            raise os_failure(error, f"cannot lock --workdir {workdir}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
