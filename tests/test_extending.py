"""Each recipe of docs/extending.md, applied to a copy of the tree, trains two steps; the code is read from the page."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SMALL = (
    *("--model.hidden-size", "16", "--model.num-attention-heads", "2", "--model.num-layers", "1"),
    *("--model.image.stem-width", "8", "--model.image.widths", "16", "--model.image.blocks", "0"),
    *("--model.intermediate-size", "16", "--image.size", "16", "16", "--model.text.vocab-size", "64"),
    *("--training.steps", "2", "--training.batch-images", "2", "--training.evaluation-batch-images", "4"),
)


def recipe(heading):
    """The code blocks of a section: (language, code)."""
    (section,) = [part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE) if part.startswith(heading)]
    return re.findall(r"```(python|diff)\n(.*?)```", section, re.DOTALL)


def apply(folder, heading):
    """Make the changes of a recipe in a copy of the tree; the files that it wrote, and those that it changed."""
    new, changed = [], []
    for language, code in recipe(heading):
        if language == "python":
            name, _, text = code.removeprefix("# ").partition("\n")
            assert not (folder / name).exists(), name
            (folder / name).write_text(text, encoding="utf-8")
            new.append(name)
            continue
        for part in re.split(r"^--- a/.*\n\+\+\+ b/", code, flags=re.MULTILINE)[1:]:
            name, _, hunks = part.partition("\n")
            patch(folder / name, hunks)
            changed.append(name)
    return new, changed


def patch(path, hunks):
    """Replace the lines of each hunk of a diff, which stand once in the file."""
    text = path.read_text(encoding="utf-8")
    for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines()
        before = "\n".join(line[1:] for line in lines if line[:1] in (" ", "-"))
        after = "\n".join(line[1:] for line in lines if line[:1] in (" ", "+"))
        assert text.count(before) == 1, f"{path.name} does not have {before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def tree(tmp_path):
    for name in ("vlm_jax", "experiments", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


RUNNER = """
import contextlib, importlib, io, json, sys
from vlm_jax.command_line import run_command
for module, *arguments in json.loads(sys.argv[1]):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            run_command(importlib.import_module(f"experiments.{module}").main, arguments)
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, *(stream.buffer.getvalue().decode() for stream in streams)]))
"""


def commands(tree, *lines):
    """Exit code, output and errors of each command, run in one process, which imports the copy."""
    line = [sys.executable, "-c", RUNNER, json.dumps([[str(word) for word in line] for line in lines])]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(line, cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(answer) for answer in done.stdout.splitlines()]


def training(*arguments):
    """The command that trains two steps."""
    return ("train", *arguments, "--name", "new", *SMALL)


def result(tree):
    return json.loads((tree / "runs" / "new" / "result.json").read_text(encoding="utf-8"))


def test_a_fusion_takes_two_places(tree, data_directory):
    assert apply(tree, "A fusion") == ([], ["vlm_jax/config/vqa.py", "vlm_jax/models/fusion.py"])
    options = ("--model.fusion.kind", "pooled")
    (_, shown, errors), (code, _, refused), trained = commands(
        tree,
        ("inspect_model", "configs/tiny.py", *options, "--depth", "3"),
        ("train", "configs/tiny.py", *options, "--model.fusion.join", "product"),
        training("vqa", *options, "--data.limit", "2", "--data.directory", data_directory),
    )
    assert "tiny: pooled, image_to_text, cls" in shown and "trunk/concat/layer_1" in shown, errors
    assert code == 2 and "model.fusion.join belongs to model.fusion.kind=late" in refused
    assert trained[0] == 0, trained
    assert result(tree)["config"]["model"]["fusion"]["kind"] == "pooled"


def test_a_task_takes_a_file_its_config_and_a_line(tree):
    new, changed = apply(tree, "A task")
    assert (new, changed) == (["vlm_jax/tasks/matching.py", "vlm_jax/config/matching.py"], ["vlm_jax/config/tasks.py"])
    for number in range(12):
        Image.fromarray(np.full((16, 16, 3), 20 * number, np.uint8)).save(tree / f"{number}.png")
    rows = [{"image": f"{number}.png", "captions": [f"level {number % 3}"]} for number in range(12)]
    (tree / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = ("--data.kind", "table", "--data.images", tree, "--data.train", tree / "rows.jsonl")
    trained, (_, shown, errors), compared = commands(
        tree,
        training("matching", *data),
        ("inspect_model", "matching", *data, *SMALL),
        ("compare", "runs/new", "runs/new"),
    )
    assert trained[0] == 0, trained
    metrics = result(tree)["metrics"]
    assert 0 <= metrics["accuracy"] <= 1 and metrics["baseline/chance"] == 0.5
    assert "captions: 1 of" in shown, errors
    assert compared[0] == 0, compared


def test_a_data_set_takes_a_file_and_a_line(tree):
    assert apply(tree, "A data set") == (["vlm_jax/data/datasets/brightness.py"], ["vlm_jax/data/data_sets.py"])
    (line,) = [line for line in re.findall(r"^\+(?!\+)(.*)", recipe("A data set")[1][1], re.MULTILINE)]
    assert line == '    "datasets.brightness",'
    data = ("--data.kind", "brightness", "--data.directory", tree / "prepared")
    (trained,) = commands(tree, training("vqa", *data))
    assert trained[0] == 0, trained
    assert set(result(tree)["metrics"]) >= {"accuracy", "accuracy/open", "baseline/majority"}


def identifiers(path):
    """The names in a file that code defines or uses, and its strings that are one name; no word of a comment."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name", "value"):
            value = getattr(node, field, None)
            if isinstance(value, str) and value.isidentifier():
                yield value


def test_every_name_on_the_page_exists():
    written = re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    for path in re.findall(r"`((?:vlm_jax|tests|configs)/[\w./]*)`", written):
        assert (ROOT / path).exists(), path
    files = [path for folder in ("vlm_jax", "experiments") for path in (ROOT / folder).rglob("*.py")]
    names = {name for path in files for name in identifiers(path)} | {path.stem for path in files}
    for name in re.findall(r"`([A-Za-z_]{4,})(?:\(\w+\))?`", written):
        assert name in names, name
