"""The project as others install it: a wheel, used from a directory that is not its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_an_installed_wheel_trains_predicts_and_compares(tmp_path, data_directory):
    install, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"  # a build leaves files behind
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, source], check=True)
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run([*pip, *wheel], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", install, *tmp_path.glob("*.whl")], check=True)
    environment = os.environ | {"PYTHONPATH": str(install)}

    def run(*arguments, program=(sys.executable, "-m", "vlm_jax")):
        command = [*program, *map(str, arguments)]
        result = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr
        return result.stdout

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
