"""Runs as a table of what differs among them, and training from Python."""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

import vlm_jax
from vlm_jax.ablation.run_table import run_rows
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.run_folder import CONFIG, RESULT, RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.settings.presets import load_preset


@pytest.fixture
def runs(trained, tmp_path):
    """A finished run, one that has not ended with other settings, and a folder that is no run."""
    shutil.copytree(trained, tmp_path / "a")
    folder = RunFolder(Path(shutil.copytree(trained, tmp_path / "b")))
    (folder.path / RESULT).unlink()
    changed = with_changes(folder.config(), {"seed": 3, "name": "other", "optimizer.betas": (0.8, 0.9)})
    (folder.path / CONFIG).write_text(to_json(changed))
    folder.seal(CONFIG)
    (tmp_path / "c").mkdir()
    return tmp_path


def test_a_row_has_seed_step_what_differs_and_scores(runs, trained):
    rows = run_rows(f"{runs}/*")
    first, second = (rows[str(runs / name)] for name in "ab")
    metrics = RunFolder(trained).result()["metrics"]
    assert len(rows) == 2 and {name: first[name] for name in metrics} == metrics
    assert first.keys() - metrics.keys() == {"seed", "finished", "step", "optimizer.betas"} == second.keys()
    assert (first["seed"], first["finished"], first["optimizer.betas"]) == (0, True, (0.9, 0.98))
    assert (second["seed"], second["finished"], second["step"]) == (3, False, 40)
    assert "optimizer.betas" not in run_rows(runs / "a")[str(runs / "a")]


def test_paths_may_be_relative(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert list(run_rows("*")) == ["a", "b"]


def test_without_pandas_or_runs_one_line_says_so(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        vlm_jax.results(f"{runs}/*")
    monkeypatch.setitem(sys.modules, "pandas", ModuleType("pandas"))
    with pytest.raises(InputError, match=r"no run directory fits .*nowhere/\*"):
        vlm_jax.results(f"{runs}/nowhere/*")


def test_the_table_is_a_data_frame(runs):
    pandas = pytest.importorskip("pandas")
    table = vlm_jax.results(f"{runs}/*")
    assert table["seed"].tolist() == [0, 3]
    assert isinstance(table, pandas.DataFrame) and table.index.name == "run"
    assert table["accuracy"].isna().tolist() == [False, True]


def test_a_finished_run_is_returned_as_it_is(trained, capsys):
    result = vlm_jax.train(RunFolder(trained).config(), trained)
    assert result == RunFolder(trained).result() and "nothing to do" in capsys.readouterr().out


def test_training_takes_a_name_and_prints_plain_lines(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    changes = {"name": "short", "training.steps": 2, "training.evaluate_every": 2, "optimizer.warmup_steps": 1}
    result = vlm_jax.train(with_changes(load_preset("tiny", TASKS), changes | {"data.limit": 8}))
    lines = capsys.readouterr().out.splitlines()
    assert result == RunFolder(Path("runs/short")).result()
    assert lines[0].startswith("device: ") and any(line.startswith("step 2/2") for line in lines)
    assert not any("\r" in line or "\x1b" in line for line in lines)
    with pytest.raises(InputError, match=r"no config 'tinny'.*tiny"):
        vlm_jax.train("tinny", "elsewhere")
    assert not Path("elsewhere").exists()
