"""Runs as a table: the settings that differ among them, and their scores."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.errors import InputError
from vlm_jax.run_folder import CONFIG, RunFolder
from vlm_jax.settings.groups import flat, json_tree
from vlm_jax.training.checkpoint_manifest import steps
from vlm_jax.types import Json

if TYPE_CHECKING:
    import pandas

UNSHOWN = ("name", "seed")
"""Settings that the index and the column `seed` have."""


def results(pattern: str | Path) -> "pandas.DataFrame":
    """A table with one row a run directory that fits a pattern such as `runs/*`, by the path of the run.

    Columns: `seed`, `finished`, `step` (of the best checkpoint; of the newest before the run has ended), the settings
    in which the runs differ, and the metrics. Raises `InputError` without pandas, and where there is no run.
    """
    try:
        import pandas
    except ImportError:
        raise InputError("vlm_jax.results needs the package pandas; pip install pandas") from None
    rows = run_rows(pattern)
    return pandas.DataFrame(list(rows.values()), index=pandas.Index(list(rows), name="run"))


def run_rows(pattern: str | Path) -> dict[str, dict[str, Json | tuple[Json, ...]]]:
    """The rows of `results` by the path of the run."""
    path = Path(pattern).expanduser()
    below = str(path.relative_to(path.anchor))
    paths = sorted(Path(path.anchor).glob(below)) if path.name else []
    folders = [RunFolder(path) for path in paths if (path / CONFIG).is_file()]
    if not folders:
        raise InputError(f"no run directory fits {str(pattern)!r}; expected a pattern such as 'runs/*'")
    settings = {str(folder.path): flat(json_tree(folder.config())) for folder in folders}
    names = dict.fromkeys(name for run in settings.values() for name in run)
    differing = [name for name in names if len({repr(run.get(name)) for run in settings.values()}) > 1]
    shown = [name for name in differing if name not in UNSHOWN]
    rows = {}
    for folder, (path, run) in zip(folders, settings.items(), strict=True):
        result = folder.result() if folder.finished else {}
        step = result.get("checkpoint_step", max(steps(folder.checkpoints), default=None))
        row = {"seed": run["seed"], "finished": folder.finished, "step": step}
        rows[path] = row | {name: _hashable(run.get(name)) for name in shown} | result.get("metrics", {})
    return rows


def _hashable(value: Json) -> Json | tuple[Json, ...]:
    """A value that pandas can group rows by."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
