"""The loop's own arithmetic, and a run that cannot take its first step."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import train
from vlm_jax.training.interval import Interval
from vlm_jax.training.loop import Trainer

TINY = str(Path(__file__).parent.parent.parent / "configs" / "tiny.py")


def step(loss, weight):
    return {
        "loss": loss,
        "weight": weight,
        "correct": weight / 2,
        "examples": weight,
        "gradient_norm": 1.0,
        "learning_rate": 0.1,
    }


def test_an_interval_reports_means_of_sums():
    interval = Interval()
    interval.add(step(9.0, 3.0), 0.0)  # compiled: does not count towards the speed
    interval.add(step(1.0, 1.0), 0.5)
    report = interval.close()
    assert (report["loss"], report["accuracy"], report["examples_per_second"]) == (10 / 4, 0.5, 2.0)
    interval.add(step(2.0, 1.0), 1.0)
    assert interval.close()["loss"] == 2.0


def test_an_interval_in_which_a_run_was_stopped_is_reported_whole():
    uninterrupted, before, after = Interval(), Interval(), Interval()
    uninterrupted.add(step(9.0, 3.0), 1.0)
    before.add(step(9.0, 3.0), 1.0)
    after.restore(json.loads(json.dumps(before.sums())))
    for interval in (uninterrupted, after):
        interval.add(step(1.0, 1.0), 1.0)
    a, b = uninterrupted.close(), after.close()
    assert (a["loss"], a["accuracy"]) == (b["loss"], b["accuracy"])


def test_a_first_step_that_is_not_finite_promises_no_state(data_directory, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--workdir", str(folder), "--data.directory", str(data_directory)]
    assert train.main([TINY, *options, "--image.std", "1e-30", "1e-30", "1e-30"]) == 1
    assert "not finite at optimizer step 1; nothing was trained before it; texts" in capsys.readouterr().err
    assert not list((folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("saved", "finished", "line"),
    [
        (0, False, "nothing was trained or saved"),
        (4, True, "saved is optimizer step 4; the same command resumes there"),  # a longer training of a run that ended
        (8, False, "trained to the end and saved, and not scored yet; the same command scores it"),
        (8, True, "trained and scored"),
    ],
)
def test_who_interrupts_is_told_what_is_kept(saved, finished, line):
    config = SimpleNamespace(training=SimpleNamespace(steps=8))
    trainer = SimpleNamespace(config=config, folder=SimpleNamespace(finished=finished), _saved=saved)
    assert Trainer._stands(trainer) == line
