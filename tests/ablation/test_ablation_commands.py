"""The commands `ablate`, `report` and `compare` on real runs."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from experiments import ablate, accept, compare, report
from vlm_jax.ablation.plan import plan, power
from vlm_jax.ablation.probe import Probe
from vlm_jax.ablation.run_identity import begin_trained
from vlm_jax.ablation.running import StudyFolder
from vlm_jax.ablation.study import Planned, Run, Table, load_study, resolve, runs
from vlm_jax.config.captioning import Captioning, Model
from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.run import TextTraining
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.user_files.table import TableCaptions
from vlm_jax.errors import InputError
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.training.loop import Trainer

STUDY = """
from pathlib import Path

from vlm_jax.ablation.study import Comparison, Study, vary


def get_study():
    return Study(
        question="Does depth matter?",
        comparisons=(
            Comparison(
                title="Depth",
                base="{base}",
                variants=vary({{"model.num_layers": {layers}}}),
                common={{"data.directory": Path("{data}"), "data.limit": 8, "training.steps": 6,
                        "training.evaluate_every": 2,
                        "model.image.widths": (16,), "model.image.blocks": (0,), "model.image.stem_width": 4,
                        "training.batch_images": 2, "training.evaluation_batch_images": 4, "training.log_every": 1}},
                metrics=("accuracy", "accuracy/open"),
            ),
        ),
        seeds={seeds},
    )
"""


@pytest.fixture
def study(tmp_path, pytestconfig, data_directory):
    """Writes a study of depths; its file."""

    def write(*, layers=(1,), seeds=(0, 1)):
        base = pytestconfig.rootpath / "configs" / "tiny.py"
        file = tmp_path / "depth.py"
        file.write_text(STUDY.format(base=base, data=data_directory, layers=list(layers), seeds=tuple(seeds)))
        return file

    return write


@pytest.fixture
def copies(trained, tmp_path):
    """Three runs as three seeds of one config would leave them: a finished one, copied, its result changed."""
    folders = []
    for seed in (0, 1, 2):
        folder = tmp_path / f"run-{seed}"
        shutil.copytree(trained, folder)
        config = with_changes(RunFolder(trained).config(), {"seed": seed})
        (folder / "config.json").write_text(to_json(config), encoding="utf-8")
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        result["metrics"]["accuracy"] += 0.01 * seed
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        RunFolder(folder).seal("config.json", "result.json")
        folders.append(folder)
    return folders


def test_a_study_trains_reports_and_is_not_done_twice(study, tmp_path, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    options = [str(study()), "--workdir", str(tmp_path / "study")]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "cache").symlink_to(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert ablate.main([*options, "--seeds", "0"]) == 0
    output = capsys.readouterr().out
    assert output.count("finished, ") == 2 and "report.html" in output
    text = (tmp_path / "study" / "report.md").read_text(encoding="utf-8")
    assert "Does depth matter?" in text and "one seed" in text and "accuracy/open" in text and "1 of 2" in text
    assert "Alike: optimizer steps and batches, data." in text
    assert (tmp_path / "study" / "report.html").read_text(encoding="utf-8").count("data:image/svg+xml") >= 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "runs").rglob("*") if path.is_file()}
    assert ablate.main([*options, "--seeds", "0"]) == 0
    assert "2 of 2 runs are finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(InputError, match="no run has 'depth=7' in its name"):
        ablate.main([*options, "--only", "depth=7"])


@pytest.mark.slow
def test_a_study_that_is_interrupted_stops_its_runs_and_exits_as_they_do(study, tmp_path, pytestconfig):
    folder = tmp_path / "study"
    command = [sys.executable, "-m", "experiments.ablate", str(study()), "--workdir", str(folder)]
    process = subprocess.Popen(command, cwd=pytestconfig.rootpath, stdout=subprocess.PIPE, text=True)
    while not list(folder.glob("logs/*.log")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and "stopped; the same command goes on from there" in output
    assert not (folder / "failed").exists()


def test_finished_runs_decide_how_many_seeds_are_needed(copies, tmp_path, data_directory, pytestconfig, capsys):
    """Three seeds of the base are there, one of them twice, once unfinished; none of the variant is."""
    folder = tmp_path / "study"
    for number, copy in enumerate(copies):
        shutil.copytree(copy, folder / "runs" / f"copy-{number}")
    shutil.copytree(copies[0], folder / "runs" / "a")
    (folder / "runs" / "a" / "result.json").unlink()
    file = tmp_path / "copied.py"
    text = STUDY.format(base=pytestconfig.rootpath / "configs" / "tiny.py", data=data_directory, layers=[1], seeds=(0,))
    settings = re.search(r"common=(\{.*?\})", text, re.DOTALL)[1]
    file.write_text(text.replace(settings, f'{{"data.directory": Path("{data_directory}")}}'), encoding="utf-8")
    tables = resolve(load_study(file), file)
    study_folder = StudyFolder(folder)
    assert study_folder.seeds(tables) == {0, 1, 2}
    known = study_folder.known(runs(tables, (0, 1, 2)))
    assert sorted(run.name for run in known if study_folder.run(run).finished) == ["copy-0", "copy-1", "copy-2"]
    assert ablate.main([str(file), "--workdir", str(folder), "--power", "0.02"]) == 0
    output = capsys.readouterr().out
    assert "accuracy: standard deviation 0.01 between seeds, by 3 runs" in output
    assert "a difference of 0.02 (2 points) is found 8 times in 10 with 6 seeds a variant (1 comparisons" in output
    assert ablate.main([str(file), "--workdir", str(folder), "--power", "0.00001"]) == 0
    assert "needs more than 10,000 seeds" in capsys.readouterr().out
    with pytest.raises(InputError, match="no variant with two finished runs"):
        ablate.main([str(file), "--workdir", str(tmp_path / "empty"), "--power", "0.02"])


def test_a_variant_that_cannot_work_stops_the_study_before_it_starts(study, tmp_path):
    with pytest.raises(InputError, match=r"depth.py, Depth, num_layers=0: .*num_layers is 0"):
        ablate.main([str(study(layers=(1, 0))), "--workdir", str(tmp_path / "study")])
    assert not (tmp_path / "study").exists()


def test_a_dry_run_shows_what_it_would_take(study, tmp_path):
    from vlm_jax.ablation.costs import cost

    file = study()
    tables = resolve(load_study(file), file)
    todo = runs(tables, (0, 1))
    text = plan(
        tables,
        todo,
        StudyFolder(tmp_path),
        jobs=2,
        measure=lambda config: Probe(1.0, 0.1, 60.0 * config.model.num_layers, 2**30),
    )
    lines = text.splitlines()
    assert len(lines) == 1 + 4 + 1 and lines[-1].startswith("4 runs to do, 3:00 with 2 at a time")
    assert f"{cost(todo[0].config).parameters:,}" in lines[1] and "1,024 MiB" in lines[1] and "to do" in lines[1]


def test_a_dry_run_marks_unknown_costs_and_skips_failed_runs(study, tmp_path):
    file = study()
    tables = resolve(load_study(file), file)
    todo, folder = runs(tables, (0, 1)), StudyFolder(tmp_path / "study")
    folder.write_error(todo[0], "it broke")

    def measure(config):
        if config.model.num_layers == 1:
            raise InputError("no memory for it")
        return Probe(1.0, 0.1, 60.0, 2**30)

    deep = sum(run.config.model.num_layers != 1 for run in todo[1:])
    last = plan(tables, todo, folder, jobs=1, measure=measure).splitlines()[-1]
    assert (
        last.startswith(f"3 runs to do, at least {deep}:00 with 1 at a time") and f"of {3 - deep} nobody knows" in last
    )
    assert plan(tables, todo, folder, jobs=1, retry=True, measure=measure).splitlines()[-1].startswith("4 runs to do")


@pytest.mark.slow
def test_a_probe_takes_two_steps(study, tmp_path):
    from vlm_jax.ablation.probe import probe

    file = study()
    (table,) = resolve(load_study(file), file)
    estimate = probe(table.variants[0].config)
    assert (
        0 < estimate.step_seconds < estimate.compile_seconds < estimate.total_seconds and estimate.peak_memory > 2**26
    )
    gone = {"data.kind": "table", "data.images": tmp_path / "gone", "data.train": (tmp_path / "gone.jsonl",)}
    broken = with_changes(table.variants[0].config, gone)
    with pytest.raises(InputError, match="two steps of it failed: "):
        probe(broken)


def test_runs_made_by_hand_are_grouped_by_seed(copies, tmp_path, capsys):
    assert report.main([*map(str, copies), "--output", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| all | 3 |")]
    assert re.search(r"\| all \| 3 \| \d+\.\d \[", row), row
    with pytest.raises(InputError, match="one config and one seed"):
        report.main([str(copies[0]), str(copies[0])])
    with pytest.raises(InputError, match=r"no run has the score 'acuracy'; choose one of: .*accuracy"):
        report.main([*map(str, copies), "--metrics", "acuracy"])


def test_two_checkpoints_are_compared_item_by_item(trained, copies, tmp_path, capsys):
    other = copies[1] / "predictions.jsonl"
    lines = [json.loads(line) for line in other.read_text(encoding="utf-8").splitlines()]
    for line in lines[::2]:
        line["score"] = 0.0
    other.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(InputError, match=r"predictions\.jsonl .* vlm_jax accept"):
        compare.main([str(trained), str(copies[1])])
    assert accept.main([str(copies[1]), "--yes"]) == 0 and "predictions.jsonl" in capsys.readouterr().out
    assert compare.main([str(trained), str(copies[1])]) == 0
    output = capsys.readouterr().out
    assert "all: a 0." in output and "these checkpoints differ" in output and "another seed" in output
    assert compare.main([str(trained), str(copies[0])]) == 0
    assert "not distinguishable" in capsys.readouterr().out
    other.write_text("\n".join(map(json.dumps, lines[:100])) + "\n{", encoding="utf-8")
    RunFolder(copies[1]).seal("predictions.jsonl")
    with pytest.raises(InputError, match=r"predictions\.jsonl cannot be used"):
        compare.main([str(trained), str(copies[1])])
    config = RunFolder(copies[0]).config()
    files = {
        "data.kind": "table",
        "data.images": tmp_path,
        "data.train": (tmp_path / "rows.jsonl",),
        "data.accuracy": "vqa",
    }
    (copies[0] / "config.json").write_text(to_json(with_changes(config, files)), encoding="utf-8")
    RunFolder(copies[0]).seal("config.json")
    with pytest.raises(InputError, match=r"measure by other scales \(data\.accuracy\)"):
        compare.main([str(trained), str(copies[0])])


def test_a_run_that_begins_with_the_training_of_another_is_scored_as_if_it_had_trained(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), np.uint8)
    lines = []
    for number, array in enumerate(pixels):
        Image.fromarray(array).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "captions": [f"an image with the number {number}"]}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    splits = dict.fromkeys(("train", "validation", "test"), (tmp_path / "captions.jsonl",))
    config = Captioning(
        data=TableCaptions(images=tmp_path, directory=tmp_path / "prepared", **splits),
        image=AugmentedImages(size=(16, 16)),
        model=Model(
            hidden_size=16,
            num_attention_heads=2,
            num_layers=1,
            intermediate_size=16,
            image=SmallCNN(stem_width=4, widths=(8,), blocks=(0,)),
        ),
        optimizer=AdamW(warmup_steps=1, learning_rate=1e-2, ema=0.9),
        training=TextTraining(
            steps=6, batch_images=4, texts_per_image=10, evaluate_every=6, log_every=3, evaluation_batch_images=4
        ),
    )
    beams = with_changes(config, {"decoding.kind": "beam", "decoding.num_beams": 3})

    def run(config, folder):
        with claim(folder, config) as claimed:
            return Trainer(config, claimed, write_line=lambda text: None).run()

    run(config, tmp_path / "greedy")
    begin_trained(RunFolder(tmp_path / "shared"), beams, RunFolder(tmp_path / "greedy"), tmp_path / ".shared.part")
    shared, alone = run(beams, tmp_path / "shared"), run(beams, tmp_path / "alone")
    assert shared["metrics"] == alone["metrics"] and (shared["trained_as"], alone.get("trained_as")) == ("greedy", None)
    assert shared["wall_seconds"] > 0 and shared["examples_per_second"] is None is shared["compile_seconds"]
    for name in ("predictions.jsonl", "captions.json", "tokenizer.json"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    greedy = (tmp_path / "greedy" / "predictions.jsonl").read_bytes()
    assert greedy != (tmp_path / "alone" / "predictions.jsonl").read_bytes(), "the way it is said matters"
    metrics = tmp_path / "shared" / "metrics.jsonl"
    assert not metrics.exists() or "validation" not in metrics.read_text(), "those would be of the other way"


@pytest.mark.parametrize("differs", ["decoding", "layers"])
def test_power_notes_paired_comparisons(tmp_path, differs):
    base = Captioning(training=TextTraining(steps=10, evaluate_every=10))
    changes = {"decoding": {"decoding.kind": "beam"}, "layers": {"model.num_layers": 3}}
    variants = {"base": base, "other": with_changes(base, changes[differs])}
    todo, folder = [], StudyFolder(tmp_path)
    for label, config in variants.items():
        for seed, score in enumerate((0.5, 0.6, 0.8)):
            run = Run(f"{label},seed={seed}", with_changes(config, {"seed": seed}))
            folder.run(run).path.mkdir(parents=True)
            (folder.run(run).path / "config.json").write_text(to_json(run.config))
            (folder.run(run).path / "result.json").write_text(json.dumps({"metrics": {"rule_accuracy": score}}))
            todo.append(run)
    planned = tuple(Planned(label, (), config, "") for label, config in variants.items())
    table = Table("Ways", "base.py", "steps", ("rule_accuracy",), planned)
    assert ("of separate trainings" in power([table], todo, folder, 0.1)) == (differs == "decoding")


def test_a_dry_run_counts_a_training_once(tmp_path):
    base = Captioning(training=TextTraining(steps=10, evaluate_every=10))
    configs = [with_changes(base, {"decoding.kind": "beam", "decoding.num_beams": beams}) for beams in (5, 3)]
    todo = [Run(f"num_beams={config.decoding.num_beams}", config) for config in configs]
    output = plan((), todo, StudyFolder(tmp_path), jobs=1, measure=lambda config: Probe(1.0, 2.0, 30.0, 2**20))
    lines = [line.split() for line in output.splitlines()]
    assert lines[1][1:3] == ["to", "do"] and lines[1][-1] == "30s"
    assert lines[2][1:3] == ["to", "score"] and lines[2][-1] == "9s"
    assert "2 runs to do, 39s with 1 at a time" in output


@pytest.mark.slow
def test_a_study_killed_five_times_ends_with_the_same_bits(study, tmp_path, pytestconfig):
    file = study(seeds=(0, 1))

    def start(workdir):
        command = [sys.executable, "-m", "experiments.ablate", str(file), "--workdir", str(workdir)]
        return subprocess.Popen(command, cwd=pytestconfig.rootpath, stdout=subprocess.DEVNULL, env=os.environ)

    def metrics(workdir):
        results = sorted((workdir / "runs").glob("*/result.json"))
        return {path.parent.name: json.loads(path.read_text(encoding="utf-8"))["metrics"] for path in results}

    began = time.monotonic()
    assert start(tmp_path / "calm").wait() == 0
    took = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(5):
        process = start(tmp_path / "killed")
        time.sleep(moments.uniform(0.1, 0.3) * took)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it had ended before"
    assert start(tmp_path / "killed").wait() == 0
    assert metrics(tmp_path / "calm") == metrics(tmp_path / "killed") and len(metrics(tmp_path / "calm")) == 4
