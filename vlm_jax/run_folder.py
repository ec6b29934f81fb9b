"""The folder of a run: whose it is, what it holds, and who may write to it."""

import fcntl
import json
import math
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_jax.config import Config
from vlm_jax.config_checks import check
from vlm_jax.config_json import difference, from_json, to_json
from vlm_jax.errors import InputError, nearest
from vlm_jax.failures import os_failure
from vlm_jax.interrupts import on_interrupt

CONFIG, RESULT, WEIGHTS, LOCK = "config.json", "result.json", "weights.json", "lock"
TRAINED_AS = "trained_as.json"
REPEAT = "remove it, and the command that trained the run makes it again"


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run: `config.json`, tokenizer, answers, checkpoints, logs and, when done, results."""

    path: Path

    @property
    def finished(self) -> bool:
        """Whether the run trained to its end and was scored."""
        return (self.path / RESULT).exists()

    @property
    def checkpoints(self) -> Path:
        """Where Orbax writes."""
        return self.path / "checkpoints"

    def config(self) -> Config:
        """The resolved config that the run was started with; `InputError` names the file where it is not readable."""
        file = self.path / CONFIG
        try:
            return from_json(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:  # not JSON, or settings of another version
            raise InputError(f"{file} cannot be used: {error}") from None

    def result(self) -> dict[str, Any]:
        """What `result.json` holds; `InputError` names the file where it is damaged."""
        result = self._read_json(RESULT, f"; {REPEAT}")
        scores = result.get("metrics")
        if not isinstance(scores, dict) or not all(_is_score(score) for score in scores.values()):
            raise InputError(f"{self.path / RESULT} is damaged: its metrics are no scores by name; {REPEAT}")
        return result

    def weights(self) -> dict[str, Any] | None:
        """What `weights.json` says of the pretrained weights that the run started from; None where it has none."""
        return self._read_json(WEIGHTS) if (self.path / WEIGHTS).is_file() else None

    def trained_as(self) -> str | None:
        """The run whose training this one began with, to be scored alone; None where it was trained itself."""
        return self._read_json(TRAINED_AS).get("run") if (self.path / TRAINED_AS).is_file() else None

    def _read_json(self, name: str, remedy: str = "") -> dict[str, Any]:
        file = self.path / name
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(f"{file} is damaged: {error}{remedy}") from None
        if not isinstance(value, dict):
            raise InputError(f"{file} is damaged: it holds no object{remedy}")
        return value

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is there whole or not at all."""
        part = self.path / f".{name}.{os.getpid()}.part"
        try:
            # Half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes JSON's own escape for it.
            with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path / name)
        finally:
            part.unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, whole or not at all; numbers that are not finite become null."""
        self.write_text(name, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def claim(workdir: Path, config: Config) -> Iterator[RunFolder]:
    """The folder, locked for this process: new, or holding a run of the very same config.

    Raises `InputError`, and changes nothing, where the config is wrong, where another process holds the folder, where
    it holds a run of another config or something that is no run. A new folder in which nothing could be set up, or
    whose set-up a signal interrupted, is emptied again.
    """
    folder, config = RunFolder(workdir), check(config)
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
            raise InputError(f"{path} is not empty and holds no run; give another --workdir")
        return
    changed = difference(folder.config(), config)
    if changed:
        raise InputError(
            f"{path} holds a run with other settings ({'; '.join(changed)}); give another folder, such as "
            f"--workdir {_unused(path)}"
        )


def _clear(workdir: Path) -> None:
    """Remove what a failed start left."""
    for entry in workdir.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _unused(path: Path) -> Path:
    number = 2
    while path.with_name(f"{path.name}-{number}").exists():
        number += 1
    return path.with_name(f"{path.name}-{number}")


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


def open_run(path: Path) -> RunFolder:
    """A run's folder for reading; `InputError` names the nearest run beside it where this is none."""
    if (path / CONFIG).is_file():
        return RunFolder(path)
    inside = next((parent for parent in path.parents if (parent / CONFIG).is_file()), None)
    if inside is not None:
        hint = f"did you mean {str(inside)!r}?"
    else:
        beside = path.parent if path.parent.is_dir() else Path()
        runs = {entry.name for entry in beside.iterdir() if (entry / CONFIG).is_file()}
        hint = nearest(path.name, runs) if runs else "train one with python -m experiments.train"
    raise InputError(f"{path} is no run folder (it has no {CONFIG}); {hint}")
