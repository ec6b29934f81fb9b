"""The code of docs/python.md and of docs/start.ipynb runs, in order, in one namespace each."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.weights import fixtures, own
from vlm_jax.weights.import_folder import read, write_import

DOCS = Path(__file__).parent.parent.parent / "docs"


def blocks():
    """The Python code of the page, block by block."""
    return re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), re.DOTALL)


def prepare(folder, captions, generation):
    """The files that the page names: an image, runs, an import and published weights."""
    shutil.copyfile(DOCS / "triangle.png", folder / "triangle.png")
    shutil.copytree(captions, folder / "runs" / "captions")
    shutil.copytree(generation, folder / "runs" / "generation")
    (folder / "imports").mkdir()
    write_import(read(str(own.write(folder / "downloads" / "bert"))), folder / "imports" / "bert")
    own.write(folder / "downloads" / "bert_masked", own.masked_tensors(), architectures=["BertForMaskedLM"])
    fixtures.publish(fixtures.BY_NAME["torchvision_resnet18"].fixtures[0], folder / "downloads" / "resnet18")


def test_the_code_of_the_page_runs(captioning_run, generation_run, home, tmp_path, monkeypatch, capsys):
    prepare(tmp_path, captioning_run.path, generation_run.path)
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("pandas", reason="the page makes a table of runs")
    namespace = {}
    for code in blocks():
        exec(compile(code, "docs/python.md", "exec"), namespace)
    assert namespace["answer"].text == "blue" and len(namespace["answers"]) == 6
    output = capsys.readouterr().out
    assert "expected uint8 [h, w, 3]" in output and "xylophone" in output
    assert list(namespace["table"]["seed"]) == [0, 1]


def test_every_public_name_is_on_the_page():
    import vlm_jax
    from vlm_jax.inference.model import METHODS

    text = (DOCS / "python.md").read_text(encoding="utf-8")
    assert all(f"vlm_jax.{name}" in text for name in vlm_jax.__all__ if name != "Model")
    assert all(f"`{name}(" in text for name in METHODS)


def test_the_notebook_runs(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((DOCS / "start.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and {cell["cell_type"] for cell in notebook["cells"]} == {"code", "markdown"}
    namespace = {}
    for number, cell in enumerate(notebook["cells"]):
        assert cell["source"] and isinstance(cell["metadata"], dict)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
    assert (
        0 <= namespace["result"]["metrics"]["accuracy"] <= 1 and (tmp_path / "runs" / "tiny" / "result.json").exists()
    )
