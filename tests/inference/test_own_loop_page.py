"""The code of docs/own-loop.md, in a process of its own: the eight lines, the NNX line, the tutorial, the table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.weights import own

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "own-loop.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EIGHT = next(block for block in BLOCKS if "TrainState.create" in block)

pytest.importorskip("torch", reason="the page loads a model in transformers")
pytestmark = pytest.mark.parity

BEFORE = """
import jax
import vlm_jax
start = vlm_jax.from_pretrained("downloads/classifier")
"""
AFTER = """
import json
import shutil
from vlm_jax.trees import flatten

results = {"relative": float(relative), "losses": losses, "nnx_losses": nnx_losses}
loss_of = lambda params: float(cross_entropy(start(texts, pairs=pairs, params=params).logits, labels).mean())
results["eight"] = [loss_of(start.params), loss_of(state.params)]
untrained = vlm_jax.from_pretrained("downloads/bert")
results["nnx"] = float(abs(untrained.to_nnx()(**inputs).pooler_output - untrained(texts).pooler_output).max())
results["nnx_paths"] = sorted(flatten(nnx_params)) == sorted(flatten(model.params))
moved = {path: float(abs(leaf - flatten(untrained.params)[path]).max()) for path, leaf in flatten(model.params).items()}
results["still"] = [path for path, distance in moved.items() if distance == 0]
results["again"] = float(abs(again(questions).last_hidden_state - model(questions).last_hidden_state).max())

name, folder, inputs = "downloads/bert", "exported", model.encode(texts, pairs=pairs)
ids, mask, types = (inputs[key] for key in ("input_ids", "text_mask", "segments"))
params, key = model.params, jax.random.key(3)
for line in TABLE:
    exec(line)
print(json.dumps(results))
"""


def table():
    """The code of the right column."""
    rows = [
        line.split("|")[2].strip() for line in PAGE.split("## From FlaxBertModel")[1].split("\n") if line[:3] == "| `"
    ]
    return [cell.strip("`") for cell in rows]


def write_classifier(folder):
    random = np.random.default_rng(1)
    weights = {f"bert.{name}": x for name, x in own.tensors().items()}
    weights["classifier.weight"] = random.normal(0, 0.2, (2, 16)).astype(np.float32)
    weights["classifier.bias"] = random.normal(0, 0.2, 2).astype(np.float32)
    own.write(folder, weights, architectures=["BertForSequenceClassification"])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    own.write(folder / "downloads" / "bert")
    write_classifier(folder / "downloads" / "classifier")
    code = "\n".join([BEFORE, *BLOCKS, f"TABLE = {table()!r}", AFTER])
    (folder / "page.py").write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "page.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().split("\n")[-1]) | {"folder": str(folder)}


def test_eight_lines_train_a_port(results):
    _, program = EIGHT.split("classifier = ", 1)
    assert len([line for line in program.split("\n") if line]) == 8
    before, after = results["eight"]
    assert after < 0.7 * before


def test_a_port_is_an_nnx_module_in_one_line(results):
    assert "\nnnx_encoder = model.to_nnx()\n" in PAGE
    assert results["nnx"] < 2e-6 and results["nnx_paths"]
    assert results["nnx_losses"][-1] < results["nnx_losses"][0]


def test_a_port_trained_in_ones_own_loop_is_that_model_in_transformers(results):
    assert results["relative"] <= 1e-6
    assert results["losses"][-1] < 0.5 * results["losses"][0]
    assert results["again"] < 2e-6
    card = (Path(results["folder"]) / "trained" / "README.md").read_text(encoding="utf-8")
    assert "PASS" in card


def test_every_layer_was_trained(results):
    """All but the pooler and the token type that nothing reads."""
    assert all(path.startswith("head/pooler/") for path in results["still"])


def test_every_call_of_the_table_is_made():
    rows = table()
    assert len(rows) >= 15 and "model(texts, pairs=pairs)" in rows
