"""Every command of the README and of the pages it leads to runs, installation apart: at a tiny size."""

import importlib
import importlib.util
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

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
INSTALL = (r"python3 -m venv \.venv", r"\. \.venv/bin/activate", r'pip install -e (\.|"\.\[test\]")')


def commands(*pages):
    """What stands in the pages' shell blocks, in order and each once, `&&` taken apart, installation left out."""
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in pages]
    blocks = [block for text in texts for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    lines = [command.strip() for block in blocks for command in re.split(r"&&|\n", block.strip())]
    return [
        command for command in dict.fromkeys(lines) if not any(re.fullmatch(pattern, command) for pattern in INSTALL)
    ]


def run(command, folder, data_directory):
    """The command's exit code; its run folders lie below `folder`, and so do one's own images."""
    program, *words = shlex.split(command)
    assert program == "vlm-jax" or words[0] == "-m", command
    name, *arguments = words if program == "vlm-jax" else [words[1].removeprefix("experiments."), *words[2:]]
    module = f"experiments.{name.replace('-', '_')}"
    written = r"^runs/|^(?=ports/|handed-back$)"
    arguments = [re.sub(written, f"{folder}/", argument) for argument in arguments]
    if module == "experiments.train":
        arguments += ["--data.directory", str(data_directory), *TRAIN]
        if arguments[0] == "quickstart":
            arguments += SHALLOW
        if "--workdir" not in arguments:
            arguments += ["--workdir", f"{folder}/{arguments[0]}"]
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


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        (("README.md", "docs/start.md"), ("list", "train", "predict", "evaluate")),
        pytest.param(("docs/tasks.md",), ("train", "predict"), marks=pytest.mark.slow),
        pytest.param(("docs/fusions.md",), ("train", "inspect-model", "ablate", "compare"), marks=pytest.mark.slow),
        pytest.param(("docs/models.md",), ("inspect-model",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_commands_run(pages, expected, data_directory, trained, tmp_path, monkeypatch):
    """Those of a page one after the other, after a quickstart."""
    monkeypatch.chdir(ROOT)
    if "README.md" not in pages:
        shutil.copytree(trained, tmp_path / "quickstart")
    # The runs of a study find their data where a person's are.
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "vlm_jax").symlink_to(data_directory)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ran = set()
    for command in commands(*pages):
        if command.startswith("pytest ") or ("benchmark" in command and importlib.util.find_spec("torch") is None):
            continue
        if command == "vlm-jax train quickstart" and "README.md" not in pages:
            continue
        assert run(command, tmp_path, data_directory) == 0, command
        ran.add(command.split()[1])
    assert {*expected} <= ran


def test_the_lines_of_python_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(lines, {})
    text, probability = capsys.readouterr().out.splitlines()[0].split()
    assert text == "blue" and float(probability) > 0.9  # the colour of docs/triangle.png


def test_the_test_command_is_the_one_that_ci_calls():
    tests = [command for command in commands("README.md") if command.startswith("pytest ")]
    assert len(tests) == 1
    assert tests[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_file_and_command_it_names_exists():
    for path in re.findall(r"(?<![\w/.])(?:configs|experiments|docs|vlm_jax|tests)/[\w./]*\w\.\w+", README):
        assert (ROOT / path).exists(), path
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES if "CHANGELOG" not in page)
    for name in re.findall(r"experiments\.(\w+)|(?<=[`\n ]vlm-jax )([a-z][a-z-]+)", pages):
        assert importlib.util.find_spec(f"experiments.{''.join(name).replace('-', '_')}"), name
    presets = {path.stem for path in (ROOT / "configs").glob("[!_]*.py")}
    table = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert presets <= set(re.findall(r"`(\w+)`", table)), "a preset is missing from the table"


def test_the_extras_it_names_exist():
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    named = set(re.findall(r"\.\[([\w,]+)\]", "".join(pages)))
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
