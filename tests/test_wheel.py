"""The project as others install it: a wheel, used from a directory that is not its own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.inference.test_python_page import blocks, prepare
from tests.tasks.conftest import captioning_run, directory, generation_run, tokenizer_run  # noqa: F401  fixtures

ROOT = Path(__file__).parent.parent
STUDY = """
from pathlib import Path

from vlm_jax.ablation.study import Comparison, Study, vary


def get_study():
    few = {{"data.directory": Path("{data}"), "data.limit": 8, "training.steps": 2, "training.evaluate_every": 2,
           "optimizer.warmup_steps": 1, "training.log_every": 1}}
    variants = vary({{"model.num_layers": [1]}})
    comparison = Comparison(title="Depth", base="{base}", variants=variants, common=few, metrics=("accuracy",))
    return Study(question="Does depth matter?", comparisons=(comparison,), seeds=(0,))
"""


@pytest.fixture(scope="module")
def install(tmp_path_factory):
    """The folder of a wheel that was built and installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"  # a build leaves files behind
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, source], check=True)
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([*pip, *wheel], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "installed", *folder.glob("*.whl")], check=True)
    return folder / "installed"


@pytest.fixture
def run(install, tmp_path):
    """Runs a program of the wheel in `tmp_path`; its output."""
    environment = os.environ | {"PYTHONPATH": str(install)}

    def run_program(*arguments, program=(sys.executable, "-m", "vlm_jax"), **variables):
        command, environ = [*program, *map(str, arguments)], environment | variables
        result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run_program


@pytest.mark.slow
def test_an_installed_wheel_trains_predicts_and_compares(install, run, tmp_path, data_directory):
    elsewhere = tmp_path
    short = (
        "--training.steps",
        2,
        "--training.evaluate-every",
        2,
        "--data.limit",
        8,
        "--data.directory",
        data_directory,
    )
    program = install / "bin" / "vlm-jax"
    assert "usage: vlm-jax COMMAND" in run(program=(sys.executable, program))
    run("train", "tiny", *short, "--optimizer.warmup-steps", 1)
    assert "not finished" not in run("list") and "finished" in run("list")
    image = ROOT / "docs" / "triangle.png"
    assert "blue" in run("predict", "runs/tiny", "--image", image, "--question", "is it blue?", "--json")
    code = "import vlm_jax; print(vlm_jax.__file__)"
    assert Path(run(program=(sys.executable, "-c", code)).strip()).is_relative_to(install)
    study = elsewhere / "study.py"
    study.write_text(STUDY.format(data=data_directory, base=install / "vlm_jax" / "presets" / "tiny.py"))
    run("ablate", study, "--workdir", "study")
    assert len(list((elsewhere / "study").rglob("result.json"))) == 2
    assert (elsewhere / "study" / "report.html").is_file()


@pytest.mark.slow
def test_the_code_of_the_python_page_runs_elsewhere(
    install,
    run,
    tmp_path,
    data_directory,
    captioning_run,  # noqa: F811
    generation_run,  # noqa: F811
):
    prepare(tmp_path, captioning_run.path, generation_run.path)
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "vlm_jax").symlink_to(data_directory)
    code = [block for block in blocks() if "vlm_jax.results(" not in block or find_spec("pandas")]
    (tmp_path / "page.py").write_text("\n".join([*code, "print(vlm_jax.__file__)"]), encoding="utf-8")
    output = run("page.py", program=(sys.executable,), HOME=str(tmp_path / "home"))
    assert output.startswith("blue ") and Path(output.splitlines()[-1]).is_relative_to(install)
    assert (tmp_path / "my_model" / "model.safetensors").is_file()
