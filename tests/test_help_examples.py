"""Every example that a `--help` shows runs: all of them in one process, in one directory, at a tiny size."""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from experiments import port, train
from tests.data.user_files.packages import write_packages
from tests.weights import fixtures, own
from vlm_jax.errors import InputError
from vlm_jax.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(path.stem for path in (ROOT / "experiments").glob("[a-z]*.py") if "benchmark" not in path.stem)
SUBCOMMANDS = {"port": ("import", "verify", "convert"), "cache": ("list", "clear")}
FEW = (
    "--training.steps", "2", "--training.batch-images", "2", "--training.evaluation-batch-images", "2",
    "--data.limit", "2", "--optimizer.warmup-steps", "1",
)  # fmt: skip
SHALLOW = ("--model.num-layers", "1", "--model.hidden-size", "16", "--model.intermediate-size", "16")
SMALL_CNN = (
    "--model.image.stem-width", "8", "--model.image.widths", "8", "8", "8", "--model.image.blocks", "0", "0", "0",
)  # fmt: skip


def examples(name):
    """The arguments of every example of a command."""
    module = importlib.import_module(f"experiments.{name}")
    for words in [(), *((part,) for part in SUBCOMMANDS.get(name, ()))]:
        page = io.StringIO()
        with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
            module.main([*words, "--help"])
        for line in re.findall(r"^  python -m vlm_jax (.*)$", page.getvalue(), re.MULTILINE):
            yield shlex.split(line)[1:]


def write_world(world, trained):
    """What the examples name, beside the runs that they train themselves: runs, ports, images, tables, packages."""
    for place in ("runs/quickstart", "other/quickstart", "runs/concat", "runs/a-seed-0"):
        shutil.copytree(trained, world / place)
    tiny = ("--data.directory", str(RunFolder(trained).config().data.directory))
    for place in ("runs/cross", "runs/a-seed-1"):
        assert train.main(["tiny", *FEW, *tiny, "--seed", "1", "--workdir", str(world / place)]) == 0
    captioning = ("shape_scenes_captioning", *FEW, *SHALLOW, *SMALL_CNN, "--data.directory", str(world / "prepared"))
    assert train.main([*captioning, "--workdir", str(world / "runs" / "captioning")]) == 0
    for place in ("MiniLM", "google-bert/bert-base-uncased"):
        own.write(world / place)
    own.save_run(world / "runs" / "easy_vqa", own.config(world / "MiniLM"))
    resnet = fixtures.publish(fixtures.BY_NAME["resnet50"].fixtures[0], world / "microsoft" / "resnet-50")
    for source, place in ((resnet, "resnet50"), (world / "MiniLM", "bert")):
        assert port.main(["import", str(source), "--output", str(world / "imports" / place)]) == 0
    (world / "photos").mkdir()
    for name in ("cat.png", "cat.jpg", *(f"photos/{number}.png" for number in range(30))):
        Image.new("RGB", (40, 30), "red").save(world / name)
    rows = [{"image": f"{number}.png", "question": "is it red?", "answers": ["yes"]} for number in range(30)]
    (world / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (world / "questions.csv").write_text("image,question,answer\n0.png,is it red?,yes\n")
    (world / "results.json").write_text(json.dumps([{"image_id": 1, "caption": "a red image"}]))
    (world / "val.json").write_text(json.dumps([{"image_id": 1, "captions": ["a red image", "red"]}]))
    write_packages(world / "node_modules")
    if find_spec("torch"):
        import torch

        for name in ("bert.bin", "a.pth"):
            torch.save({name: torch.tensor(value) for name, value in own.tensors().items()}, world / name)


def arguments_of(name, example, world):
    """An example at a tiny size; None where it needs what is not installed."""
    if name == "port" and example[0] in ("verify", "convert") and not find_spec("torch"):
        return None
    packages = [word.partition(":")[2].partition("/")[0] for word in example if word.startswith("package:")]
    if any(find_spec(package) is None for package in packages):
        return None
    example = [file for word in example for file in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    match name:
        case "train" | "extract_features":
            small = (*SHALLOW, *(() if "resnet" in example else SMALL_CNN)) if name == "train" else ()
            few = (*FEW, "--workdir", f"runs/{example[0]}-tiny") if name == "train" else FEW[-4:-2]
            return [*example, *few, *small]
        case "ablate":
            return [*example, "--seeds", "0", "--only", "fusion=late"]
        case "prove_ports":
            return ["--only", "DistilBertModel"] if find_spec("torch") else None
        case "list" if "~" in example[0]:
            return [str(world / "runs")]
        case "inspect_data" if "quickstart" in example:
            return [*example, "--data.limit", "2"]
    return example


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_example_runs(tmp_path, trained, data_directory, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vlm_jax"])
    home = tmp_path / "home"
    (home / ".cache").mkdir(parents=True)
    (home / ".cache" / "vlm_jax").symlink_to(data_directory)
    monkeypatch.setenv("HOME", str(home))
    world = tmp_path / "world"
    write_world(world, trained)
    monkeypatch.chdir(world)
    ran, failures = [], []
    for name in COMMANDS:
        module = importlib.import_module(f"experiments.{name}")
        for example in list(examples(name)):
            arguments = arguments_of(name, example, world)
            if arguments is None:
                continue
            for index, word in enumerate(arguments):  # what an earlier example wrote is in the way of a later one
                if word == "--output" and Path(arguments[index + 1]).exists():
                    shutil.rmtree(arguments[index + 1])
            try:
                code = module.main(arguments)
            except InputError as error:
                code = str(error)
            if code:
                failures.append((name, arguments, code, capsys.readouterr()))
            ran.append((name, *example))
    assert not failures
    assert {name for name, *_ in ran} == {*COMMANDS}
