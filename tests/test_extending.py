"""The recipe of docs/extending.md is followed to the letter: two files change, and the new fusion trains."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def follow(folder):
    """Make the changes of the page's diff in a copy of the tree; the names of the files that it changed."""
    (diff,) = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)
    changed = []
    for part in re.split(r"^--- a/.*\n\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition("\n")
        path = folder / name
        text = path.read_text(encoding="utf-8")
        for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines()
            before = "\n".join(line[1:] for line in lines if line[:1] in (" ", "-"))
            after = "\n".join(line[1:] for line in lines if line[:1] in (" ", "+"))
            assert text.count(before) == 1, f"{name} no longer holds: {before}"
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")
        changed.append(name)
    return changed


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended")
    for name in ("vlm_jax", "experiments", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert follow(folder) == ["vlm_jax/config/vqa.py", "vlm_jax/models/fusion.py"]
    return folder


def command(folder, module, *arguments):
    line = [sys.executable, "-m", f"experiments.{module}", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_fifth_fusion_takes_two_files(extended, data_directory):
    shown = command(extended, "inspect_model", "configs/tiny.py", "--model.fusion.kind", "pooled", "--depth", "3")
    assert "tiny: pooled, image_to_text, cls" in shown.stdout, shown.stderr
    assert "trunk/concat/layer_1" in shown.stdout
    sizes = ("--training.steps", "2", "--training.batch-images", "2", "--training.evaluation-batch-images", "2")
    options = ("--model.fusion.kind", "pooled", "--data.limit", "2", "--data.directory", str(data_directory), *sizes)
    trained = command(extended, "train", "configs/tiny.py", *options)
    assert trained.returncode == 0, trained.stderr
    assert (extended / "runs" / "tiny" / "result.json").exists()


def test_what_it_cannot_do_is_still_refused(extended):
    options = ("--model.fusion.kind", "pooled", "--model.fusion.join", "product")
    refused = command(extended, "train", "configs/tiny.py", *options)
    assert refused.returncode == 2
    assert "model.fusion.join belongs to model.fusion.kind=late" in refused.stderr


def test_every_name_on_the_page_exists():
    for path in re.findall(r"`((?:vlm_jax|tests|configs)/[\w./]*)`", PAGE):
        assert (ROOT / path).exists(), path
    files = [path for folder in ("vlm_jax", "experiments") for path in (ROOT / folder).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for name in re.findall(r"`([A-Za-z_]{4,})(?:\(\w+\))?`", PAGE):
        assert re.search(rf"\b{name}\b", code), name
