"""Runs of a study in processes of their own: skipped, resumed, failed, stopped and killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from vlm_jax.ablation import running
from vlm_jax.ablation.running import StudyFolder, Workers, execute
from vlm_jax.ablation.study import Planned, Run, Table
from vlm_jax.config.captioning import Beam, Captioning
from vlm_jax.config.run import TextTraining
from vlm_jax.config.vqa import VQA
from vlm_jax.data.datasets.shape_scenes import SceneCaptions
from vlm_jax.data.digests import digest_split
from vlm_jax.data.sources import open_split
from vlm_jax.data.user_files.table import TableQuestions
from vlm_jax.errors import InputError
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.training.evaluation import code, processor, versions

# In place of a training: as many steps as the config says, each written down, so that a killed one goes on.
FAKE = """
import json, os, pathlib, signal, sys, time
config, _, workdir = sys.argv[1:]
settings = json.loads(pathlib.Path(config).read_text())
folder = pathlib.Path(workdir)
folder.mkdir(parents=True, exist_ok=True)
print("cores", sorted(os.sched_getaffinity(0)), "device", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if settings["seed"] == 13 and not (folder / "mended").exists():
    sys.exit("error: thirteen")
if settings["seed"] in (129, 130, 143):
    sys.exit(settings["seed"])
if settings["seed"] in (9, 6):
    os.kill(os.getpid(), settings["seed"])
requested = []
signal.signal(signal.SIGTERM, lambda *_: requested.append(1))
steps = folder / "steps"
while (done := len(steps.read_text()) if steps.exists() else 0) < settings["training"]["steps"]:
    time.sleep(0.05)
    with steps.open("a") as file:
        file.write(".")
    if requested:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as a training does, which then closes its files
        time.sleep(0.3)
        sys.exit(143)
(folder / "result.json").write_text(json.dumps({"metrics": {"accuracy": 1.0}}))
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "fake.py").write_text(FAKE)
    return (sys.executable, str(tmp_path / "fake.py"))


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path / "study")


def run(seed, *, steps=2):
    return Run(f"seed={seed}", VQA(seed=seed, training=TextTraining(steps=steps)))


def test_every_run_gets_a_folder_a_config_and_a_log(command, folder):
    lines = []
    assert execute([run(0), run(1)], folder, Workers(command), write_line=lines.append)
    for entry in (run(0), run(1)):
        assert folder.run(entry).finished
        assert (folder.path / "configs" / f"{entry.name}.json").read_text() == to_json(entry.config)
        assert "cores" in folder.log(entry).read_text()
    assert [line.split(":")[0] for line in lines] == ["1/2  seed=0", "2/2  seed=1"]
    assert "finished" in lines[0] and "ETA" in lines[0] and "ETA" not in lines[1]


def test_finished_runs_are_skipped(command, folder):
    execute([run(0)], folder, Workers(command), write_line=print)
    before = folder.log(run(0)).read_text()
    lines = []
    assert execute([run(0), run(1)], folder, Workers(command), write_line=lines.append)
    assert folder.log(run(0)).read_text() == before and lines[0].startswith("2/2  seed=1: finished")


def test_a_failed_run_stops_no_other_and_is_tried_again_on_request(command, folder):
    runs, lines = [run(13), run(0)], []
    assert execute(runs, folder, Workers(command), write_line=lines.append)
    assert folder.run(run(0)).finished and not folder.run(run(13)).finished
    assert lines[0].startswith("1/2  seed=13: failed (error: thirteen)")
    assert folder.error(run(13)).splitlines()[::2] == [
        "error: thirteen",
        folder.log(run(13)).read_text().splitlines()[0],
    ]
    lines.clear()
    execute(runs, folder, Workers(command), write_line=lines.append)
    assert not lines, "left alone"
    (folder.run(run(13)).path / "mended").touch()
    execute(runs, folder, Workers(command), retry=True, write_line=lines.append)
    assert folder.run(run(13)).finished and folder.error(run(13)) is None


def test_a_killed_run_is_no_failure(command, folder):
    lines = []
    execute([run(9)], folder, Workers(command), write_line=lines.append)
    assert "killed by SIGKILL" in lines[0] and folder.error(run(9)) is None
    execute([run(6)], folder, Workers(command), write_line=lines.append)
    assert "failed" in lines[1] and "ended with code -6" in folder.error(run(6)), "one that aborts is one"


def test_a_run_that_a_signal_stopped_is_no_failure(command, folder):
    """Each of Ctrl-C, SIGTERM and a closed terminal has its exit code."""
    lines, runs = [], [run(code) for code in (129, 130, 143)]
    execute(runs, folder, Workers(command), write_line=lines.append)
    assert ["stopped; the next call goes on" in line for line in lines] == [True] * 3
    assert [folder.error(entry) for entry in runs] == [None] * 3


def test_a_run_that_the_kernel_killed_has_failed(command, folder, tmp_path, monkeypatch):
    counts = tmp_path / "vmstat"
    counts.write_text("nr_free_pages 5\noom_kill 3\n")
    monkeypatch.setattr(running, "KERNEL_COUNTS", counts)
    fake, lines = Path(command[1]), []
    fake.write_text(FAKE.replace("os.kill(", f"pathlib.Path({str(counts)!r}).write_text('oom_kill 4'); os.kill("))
    execute([run(9)], folder, Workers(command), write_line=lines.append)
    assert "failed (killed, it seems for lack of memory)" in lines[0] and "memory" in folder.error(run(9))
    execute([run(9)], folder, Workers(command), write_line=lines.append)
    assert len(lines) == 1, "left alone until requested to retry"


def test_a_run_is_known_by_its_config_whatever_it_is_called(command, folder):
    execute([run(0)], folder, Workers(command), write_line=print)
    (folder.run(run(0)).path / "config.json").write_text(to_json(run(0).config))
    (folder.path / "runs" / "old").mkdir()
    (folder.path / "runs" / "old" / "config.json").write_text('{"gone": 1}')
    renamed = [Run("another", run(0).config), Run("new", run(1).config)]
    assert [entry.name for entry in folder.known(renamed)] == ["seed=0", "new"]
    assert folder.finished()(run(0).config) and not folder.finished()(run(1).config)
    (reason,) = folder.unreadable()
    assert "old/config.json cannot be used: " in reason


@pytest.fixture
def own(tmp_path):
    """Makes data of a person's own in a place, one image a split, and gives the settings of a run on it."""

    def make(place, answer="yes", **changes):
        place.mkdir(exist_ok=True)
        row = {"image": "a.png", "question": "is it?", "answers": [answer]}
        for split in ("train", "validation", "test"):
            (place / f"{split}.jsonl").write_text(json.dumps(row), encoding="utf-8")
        Image.new("RGB", (8, 8), "red").save(place / "a.png")
        files = {split: (place / f"{split}.jsonl",) for split in ("train", "validation", "test")}
        data = TableQuestions(images=place, directory=tmp_path / "kept", **files, **changes)
        return VQA(data=data, training=TextTraining(steps=2))

    return make


def finish(folder, name, config, *, digests=True):
    """What a run that has ended leaves of what a study looks at."""
    run = RunFolder(folder.path / "runs" / name)
    run.path.mkdir(parents=True)
    run.write_text("config.json", to_json(config))
    run.write_json("result.json", {"metrics": {"accuracy": 1.0}})
    if digests:
        splits = {
            split: digest_split(open_split(config.data, split), config.data, split) for split in ("train", "test")
        }
        run.write_json("data.json", {split: digest._asdict() for split, digest in splits.items()})


def test_a_run_is_known_when_its_data_has_moved_and_its_threads_are_others(folder, own, tmp_path):
    finish(folder, "one", own(tmp_path / "here"))
    shutil.rmtree(tmp_path / "here")
    moved = own(tmp_path / "there", threads=1)
    assert [run.name for run in folder.known([Run("requested", moved)])] == ["one"]
    assert folder.finished()(moved)
    table = Table("", "", "steps", (), (Planned("", (), moved, ""),))
    assert folder.seeds([table]) == {0}


def test_a_run_on_other_data_or_on_data_of_which_nothing_is_known_is_another(folder, own, tmp_path):
    finish(folder, "one", own(tmp_path / "here"))
    for other in (own(tmp_path / "changed", answer="no"), with_changes(own(tmp_path / "there"), {"seed": 1})):
        assert not folder.finished()(other) and folder.known([Run("requested", other)])[0].name == "requested"
    gone = own(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    assert not folder.finished()(gone), "nobody can look"
    bare = StudyFolder(tmp_path / "bare")
    finish(bare, "one", own(tmp_path / "here"), digests=False)
    assert not bare.finished()(own(tmp_path / "there")) and bare.finished()(own(tmp_path / "here"))
    assert bare.finished()(own(tmp_path / "here", threads=7))


def test_a_run_of_the_very_same_config_comes_first(folder, own, tmp_path):
    first, second = own(tmp_path / "here"), own(tmp_path / "here", threads=7)
    finish(folder, "a", first)
    finish(folder, "b", second)
    assert [run.name for run in folder.known([Run("x", second), Run("y", first)])] == ["b", "a"]


def test_a_study_is_not_put_into_a_run_or_a_file(folder):
    folder.path.mkdir()
    (folder.path / "config.json").touch()
    for path, message in ((folder.path, "is the folder of a run"), (folder.path / "config.json", "is a file")):
        with pytest.raises(InputError, match=message):
            StudyFolder(path).check()


def test_several_at_a_time_share_the_cores(command, folder, monkeypatch):
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core")
    began = time.monotonic()
    execute([run(0, steps=10), run(1, steps=10)], folder, Workers(command, 2, ("0", "3")), write_line=print)
    assert time.monotonic() - began < 10
    logs = [folder.log(run(seed)).read_text().splitlines()[0] for seed in (0, 1)]
    core_sets = [set(json.loads(line.split(" device")[0].removeprefix("cores "))) for line in logs]
    assert core_sets[0] and not core_sets[0] & core_sets[1] and core_sets[0] | core_sets[1] <= cores
    assert [line.split("device ")[1] for line in logs] == ["0", "3"]


# It leaves behind what a training does: a config, a checkpoint, which its steps are, and their manifests.
FAKE_CHECKPOINTS = (
    FAKE.replace('steps = folder / "steps"', 'steps = folder / "checkpoints/10/steps"')
    .replace(
        "requested = []",
        "(folder / 'checkpoints/10').mkdir(parents=True, exist_ok=True)\n"
        "(folder / 'config.json').write_text(json.dumps(settings))\n"
        "requested = []",
    )
    .replace(
        '(folder / "result.json").write_text(json.dumps({"metrics": {"accuracy": 1.0}}))',
        "from vlm_jax.run_folder import RESULTS, SETUP, RunFolder\n"
        "from vlm_jax.training.checkpoint_manifest import seal\n"
        "RunFolder(folder).seal(*SETUP)\n"
        "seal(folder / 'checkpoints/10', 0.5, RunFolder(folder).made_with())\n"
        f"result = {dict(code=code(), versions=versions(), machine={'processor': processor()})}\n"
        "result['machine']['cpu_cores'] = len(os.sched_getaffinity(0))\n"
        "(folder / 'result.json').write_text(json.dumps(result | {'metrics': {'accuracy': 1.0}}))\n"
        "RunFolder(folder).seal(*RESULTS)",
    )
)


def decoding_with(beams, seed=0, *, validations=1, threads=2):
    """A run of captions, found by a search of so many `beams`; 10 steps."""
    training = TextTraining(steps=10, evaluate_every=10 // validations)
    data, decoding = SceneCaptions(threads=threads), Beam(num_beams=beams)
    config = Captioning(seed=seed, data=data, training=training, decoding=decoding)
    return Run(f"num_beams={beams},seed={seed}", config)


def trained_alone(command, folder, runs, **options):
    Path(command[1]).write_text(FAKE_CHECKPOINTS)
    for entry in runs:  # which a training writes
        assert not folder.run(entry).finished
    assert execute(runs, folder, Workers(command, **options), write_line=print)
    assert all(folder.run(entry).finished for entry in runs)
    return [entry.name for entry in runs if "scored alone" not in folder.log(entry).read_text()]


def test_runs_that_train_alike_are_trained_once(command, folder):
    runs = [decoding_with(1), decoding_with(5), decoding_with(5, seed=1)]
    assert trained_alone(command, folder, runs) == ["num_beams=1,seed=0", "num_beams=5,seed=1"]
    assert folder.log(runs[1]).read_text().splitlines()[0] == "trained as num_beams=1,seed=0: scored alone"
    assert folder.run(runs[1]).config() == runs[1].config
    assert (folder.run(runs[1]).path / "checkpoints/10/steps").read_text() == "." * 10
    assert not [path for path in folder.path.iterdir() if path.name.endswith(".part")]


def test_runs_that_train_alike_with_other_threads_are_trained_once(command, folder):
    trained_alone(command, folder, [decoding_with(1)])
    assert trained_alone(command, folder, [decoding_with(5, threads=3)]) == []


def test_a_run_that_was_scored_alone_gives_no_training_on(command, folder):
    trained_alone(command, folder, [decoding_with(7), decoding_with(1)])
    assert trained_alone(command, folder, [decoding_with(5)]) == []
    assert folder.run(decoding_with(5)).trained_as() == "num_beams=7,seed=0", "which comes after num_beams=1 by name"


def test_a_training_that_is_just_being_done_is_waited_for(command, folder):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    runs = [decoding_with(1), decoding_with(5), decoding_with(7), decoding_with(1, seed=1)]
    assert trained_alone(command, folder, runs, jobs=2) == ["num_beams=1,seed=0", "num_beams=1,seed=1"]


def test_runs_with_several_validations_are_trained_separately(command, folder):
    runs = [decoding_with(1, validations=2), decoding_with(5, validations=2)]
    assert len(trained_alone(command, folder, runs)) == 2


@pytest.mark.parametrize("how", ["code", "versions", "processor", "cpu_cores", "damaged", "gone", "edited"])
def test_a_training_of_elsewhere_or_a_damaged_one_is_done_again(command, folder, how):
    first, second = decoding_with(1), decoding_with(5)
    trained_alone(command, folder, [first])
    result, steps = folder.run(first).path / "result.json", folder.run(first).path / "checkpoints/10/steps"
    if how == "damaged":
        steps.write_text("." * 9 + ",")
    elif how == "gone":
        steps.unlink()
    elif how == "edited":
        result.write_text(result.read_text().replace("1.0", "0.5"))
    else:
        made = json.loads(result.read_text())
        place = made if how in made else made["machine"]
        place[how] = "another"
        result.write_text(json.dumps(made))
        folder.run(first).seal("result.json")
    assert trained_alone(command, folder, [second]) == [second.name]


def test_a_training_that_cannot_be_copied_is_done_again(command, folder, monkeypatch):
    first, second = decoding_with(1), decoding_with(5)
    trained_alone(command, folder, [first])

    def full(*_, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert trained_alone(command, folder, [second]) == [second.name]
    assert "cannot be copied: " in folder.log(second).read_text() and "No space left" in folder.log(second).read_text()
    assert not [path for path in folder.path.iterdir() if path.name.endswith(".part")]


def test_half_a_copy_of_a_training_is_made_anew(command, folder):
    first, second = decoding_with(1), decoding_with(5)
    trained_alone(command, folder, [first])
    part = folder.path / f".{second.name}.part" / "checkpoints"
    part.mkdir(parents=True)
    (part / "half").touch()
    assert trained_alone(command, folder, [second]) == []
    assert not (folder.run(second).path / "checkpoints" / "half").exists() and not part.parent.exists()


def test_impossible_numbers_of_jobs_are_refused():
    for jobs, devices, message in (
        (0, (), "--jobs is 0"),
        (10_000, (), "cores for 1 to"),
        (2, ("0",), "a device of its"),
    ):
        if jobs == 2 and len(os.sched_getaffinity(0)) < 2:
            continue
        with pytest.raises(InputError, match=message):
            running.Workers((), jobs, devices).check()


STUDY = """
import sys
from vlm_jax.ablation.running import StudyFolder, Workers, execute
from vlm_jax.ablation.study import Run
from vlm_jax.config.run import TextTraining
from vlm_jax.config.vqa import VQA
from vlm_jax.interrupts import stop_requests
from pathlib import Path
run = Run("long", VQA(training=TextTraining(steps=int(sys.argv[3]))))
with stop_requests() as stopped:
    command = (sys.executable, sys.argv[2])
    print("ended", execute([run], StudyFolder(Path(sys.argv[1])), Workers(command), stopped=stopped), flush=True)
"""


def start_study(folder, command, *, steps):
    arguments = [sys.executable, "-c", STUDY, str(folder.path), command[1], str(steps)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_study_leaves_no_process_behind_and_goes_on(command, folder):
    steps = folder.path / "runs" / "long" / "steps"
    process = start_study(folder, command, steps=40)
    wait_for(lambda: steps.exists() and steps.read_text())
    process.kill()
    process.communicate()
    time.sleep(0.2)
    done = len(steps.read_text())
    time.sleep(0.3)
    assert len(steps.read_text()) == done < 40, "its run lives on"
    process = start_study(folder, command, steps=40)
    assert "ended True" in process.communicate(timeout=60)[0] and len(steps.read_text()) == 40


def test_a_stopped_study_lets_its_runs_save(command, folder):
    steps = folder.path / "runs" / "long" / "steps"
    process = start_study(folder, command, steps=400)
    wait_for(lambda: steps.exists() and steps.read_text())
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert "long: stopped; the next call goes on with it" in output and "ended False" in output
