"""The folder of a run: what it holds, and how its files are read and written."""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError, nearest
from vlm_jax.failures import check_writable_name
from vlm_jax.files import replaced
from vlm_jax.identity import Change, changes
from vlm_jax.integrity import MANIFEST, change, file_entry, read_manifest, write_manifest
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import from_json, to_json
from vlm_jax.settings.effects import Effect, effects
from vlm_jax.settings.groups import flat, json_tree
from vlm_jax.types import Json

CONFIG, RESULT, WEIGHTS = "config.json", "result.json", "weights.json"
TRAINED_AS, IMAGE_FEATURES = "trained_as.json", "image_features.json"
DATA, HISTORY = "data.json", "history.json"
TEXT_TOKENIZER, ANSWERS, IMAGE_TOKENIZER = "tokenizer.json", "answers.json", "image_tokenizer.safetensors"
MODEL = "model.safetensors"  # of a model directory, which has no checkpoints
PREDICTIONS, CONTACT_SHEET, METRICS = "predictions.jsonl", "predictions.png", "metrics.jsonl"
# Without these the numbers of a checkpoint mean something else, and they never change.
VOCABULARIES = (TEXT_TOKENIZER, ANSWERS, IMAGE_TOKENIZER)
# What the manifest lists before the first step and while the run goes on, and what it lists when it has ended.
SETUP = (CONFIG, *VOCABULARIES, DATA, WEIGHTS, IMAGE_FEATURES, TRAINED_AS, HISTORY)
RESULTS = (RESULT, PREDICTIONS, METRICS)
# Groups of settings by which the numbers of a checkpoint mean something.
_GROUPS = ("task", "image", "image_tokenizer", "model", "compute", "generation")
REPEAT = "remove it, and the command that trained the run makes it again"


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run: `config.json`, tokenizer, answers, checkpoints, logs and, when done, results."""

    path: Path

    @property
    def finished(self) -> bool:
        """Whether the run trained to its end and was scored; not where its manifest is damaged or lost."""
        try:
            listed = self.manifest()
        except InputError:
            return False
        return (self.path / RESULT).exists() and (listed is None or RESULT in listed)

    @property
    def sealed(self) -> bool:
        """Whether the manifest is there: a run was set up to the end, and its first step may have begun."""
        return self.manifest() is not None

    @property
    def checkpoints(self) -> Path:
        """Where Orbax writes."""
        return self.path / "checkpoints"

    def manifest(self) -> dict[str, dict[str, Json]] | None:
        """What the manifest says of each file; None where no step was trained, or of the record of a run.

        A record is a config and a result that somebody kept without checkpoints. Raises `InputError` where the
        manifest is damaged, or not there although checkpoints are.
        """
        file = self.path / MANIFEST
        if file.is_file():
            try:
                return read_manifest(file)["files"]
            except InputError as error:
                raise InputError(f"{error}; {_way_out(self.path)}") from None
        if any(self.checkpoints.glob("[0-9]*/_CHECKPOINT_METADATA")):
            raise InputError(f"{self.path} holds checkpoints and no {MANIFEST}; {_way_out(self.path)}, or train again")
        return None

    def file(self, name: str) -> Path:
        """Where a file lies; `InputError` where it is not as the manifest says. Every reader asks here."""
        path, listed = self.path / name, self.manifest()
        if listed is None:
            return path
        if name in listed:
            why = change(path, listed[name])
        else:  # the log is written before it is listed
            known = name in (*SETUP, *RESULTS) and name != METRICS
            why = f"is not in {MANIFEST}: it was not written to the end" if known and path.exists() else None
        if why is not None:
            raise InputError(f"{path} {why}; {_way_out(self.path)}")
        return path

    def seal(self, *names: str) -> None:
        """List files as they are now in the manifest, those that are there; and no longer those that are not."""
        file = self.path / MANIFEST
        listed = read_manifest(file)["files"] if file.is_file() else {}
        remaining = {name: entry for name, entry in listed.items() if name not in names}
        new = {name: file_entry(self.path / name) for name in names if (self.path / name).is_file()}
        write_manifest(file, {"files": remaining | new})

    def unseal(self, *names: str) -> None:
        """List files no longer: what they say is about to be no more."""
        listed = self.manifest() or {}
        remaining = {name: entry for name, entry in listed.items() if name not in names}
        if len(remaining) < len(listed):
            write_manifest(self.path / MANIFEST, {"files": remaining})

    def made_with(self) -> dict[str, Json]:
        """What the numbers of a checkpoint of this run mean something by: vocabularies by their SHA-256, settings."""
        listed = self.manifest() or {}
        config = self.config()
        marks = effects(config)
        settings = {
            name: value
            for name, value in flat(json_tree(config)).items()
            if name.partition(".")[0] in _GROUPS and marks[name] is Effect.IDENTITY
        }
        return {name: listed[name]["sha256"] for name in VOCABULARIES if name in listed} | settings

    def summary(self) -> str:
        """Task, data set and state of the run in one line."""
        try:
            config = self.config()
        except InputError:
            return "not readable by this version"
        state = "finished" if self.finished else "not finished"
        return f"{config.task}, {config.data.kind}, {config.training.steps:,} steps, {state}"

    def config(self) -> Config:
        """The resolved config that the run has now; `InputError` names the file where it is not readable."""
        return read_config(self.file(CONFIG))

    def read_json(self, name: str, kind: type = dict) -> Json:
        """What a file holds, as the manifest knows it; `InputError` where it is no JSON, or another `kind` of value."""
        file = self.file(name)
        again = f"; {REPEAT}" if name == RESULT else ""
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is damaged: it is not JSON ({error}){again}") from None
        if not isinstance(value, kind):
            raise InputError(f"{file} is damaged: it holds no JSON {'list' if kind is list else 'object'}{again}")
        return value

    def result(self) -> dict[str, Json]:
        """What `result.json` holds; `InputError` names the file where it is damaged."""
        result = self.read_json(RESULT)
        scores = result.get("metrics")
        numbers = (int, float, type(None))
        if not isinstance(scores, dict) or not all(type(score) in numbers for score in scores.values()):
            raise InputError(f"{self.path / RESULT} is damaged: its metrics are no scores by name; {REPEAT}")
        return result

    def weights(self) -> dict[str, Json] | None:
        """What `weights.json` says of the pretrained weights that the run started from; None where it has none."""
        return self.read_json(WEIGHTS) if self.file(WEIGHTS).is_file() else None

    def trained_as(self) -> str | None:
        """The run whose training this one began with, to be scored alone; None where it was trained itself."""
        return self.read_json(TRAINED_AS).get("run") if self.file(TRAINED_AS).is_file() else None

    def data(self) -> dict[str, Json]:
        """What `data.json` says of each split's images and texts; empty until it is written."""
        return self.read_json(DATA) if self.file(DATA).is_file() else {}

    def history(self) -> list[dict[str, Json]]:
        """What has changed since the run began, a row a change: the optimizer step, what, before and after."""
        return self.read_json(HISTORY, list) if self.file(HISTORY).is_file() else []

    def adopt(self, config: Config, step: int, circumstances: Iterable[Change] = ()) -> list[Change]:
        """Go on after an optimizer step with a config that `claim` allowed; what is not as it was, all of it recorded.

        `circumstances` are changes of what no setting says. The result of a shorter training is set aside.
        """
        before = self.config()
        changed = [*changes(before, config), *circumstances]
        if not changed:
            return []
        rows = [{"step": step, "setting": row[0], "before": row[1], "after": row[2]} for row in changed]
        history = self.history()
        if history[-len(rows) :] != rows:  # else a process that was killed here has written them
            self.write_json(HISTORY, history + rows)
        if self.finished:
            for name in (PREDICTIONS, CONTACT_SHEET, RESULT):  # the result last: killed in between, the rest follows
                stem, _, ending = name.rpartition(".")
                if (self.path / name).exists():
                    (self.path / name).replace(self.path / f"{stem}-step-{before.training.steps}.{ending}")
        self.write_text(CONFIG, to_json(config))
        return changed

    def write_text(self, name: str, text: str) -> None:
        """Write a file so that it is there whole or not at all.

        One that the manifest lists or should, it lists as it is now. Killed in between, the manifest knows both.
        """
        with replaced(self.path / name) as part:
            # Half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes JSON's own escape for it.
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
            listed = self.manifest()
            if listed is not None and name in listed:
                both = listed[name] | {"or": file_entry(part)}
                write_manifest(self.path / MANIFEST, {"files": listed | {name: both}})
        if listed is not None and name in (*listed, *SETUP):
            self.seal(name)

    def write_json(self, name: str, value: object) -> None:
        """Write a value as indented JSON, whole or not at all; numbers that are not finite become null."""
        self.write_text(name, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def read_config(file: Path) -> Config:
    """The config in a run's `config.json`; `InputError` where this version did not write it."""
    try:
        return from_json(file.read_text(encoding="utf-8"), TASKS)
    except (ValueError, OSError) as error:  # not UTF-8, not JSON, or settings of another version
        raise InputError(f"{file} cannot be used: {error}; train again") from None


def _way_out(path: Path) -> str:
    return f"put back what was there, or take it as it is with {command_name('accept')} {path} --yes"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def runs_in(folder: Path) -> list[RunFolder]:
    """Every run directly in a folder, by name."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return [RunFolder(entry) for entry in entries if os.access(entry, os.X_OK) and (entry / CONFIG).is_file()]


def open_run(path: Path) -> RunFolder:
    """A run's folder for reading; `InputError` names the nearest run beside it where this is none."""
    check_writable_name(path, "the run")
    if (path / CONFIG).is_file():
        return RunFolder(path)
    inside = next((parent for parent in path.parents if (parent / CONFIG).is_file()), None)
    if inside is not None:
        hint = f"did you mean {str(inside)!r}?"
    else:
        beside = path.parent if path.parent.is_dir() else Path()
        runs = {entry.name for entry in beside.iterdir() if (entry / CONFIG).is_file()}
        hint = nearest(path.name, runs) if runs else f"train one with {command_name('train')}"
    raise InputError(f"{path} is no run folder (it has no {CONFIG}); {hint}")
