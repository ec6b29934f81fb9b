"""The command line of ports: bring in, prove, hand back."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import classify, export, port
from tests.weights import fixtures, own
from vlm_jax.errors import InputError
from vlm_jax.inference.sources import from_pretrained
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights import checks, proof_subject
from vlm_jax.weights import verify as proofs
from vlm_jax.weights.families import FAMILIES
from vlm_jax.weights.import_folder import read

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return own.write(tmp_path_factory.mktemp("published") / "bert")


def test_import_and_export(bert, tmp_path, capsys):
    imported, exported = tmp_path / "import", tmp_path / "export"
    assert port.main(["import", str(bert), "--output", str(imported)]) == 0
    output = capsys.readouterr().out
    numbers = sum(x.size for x in own.tensors().values())
    assert f"bert: {numbers:,} parameters" in output and read(str(bert)).origin.sha256 in output
    assert {"port.json", "port_report.md", "vocab.txt", "params", "digests.json"} <= {
        e.name for e in imported.iterdir()
    }
    assert export.main([str(imported), "--output", str(exported)]) == 0
    assert "transformers.BertModel.from_pretrained loads it" in capsys.readouterr().out
    assert (exported / "model.safetensors").read_bytes() == (bert / "model.safetensors").read_bytes()
    assert (exported / "vocab.txt").read_bytes() == (bert / "vocab.txt").read_bytes()
    config = json.loads((exported / "config.json").read_text())
    assert {name: config[name] for name in own.SETTINGS} == own.SETTINGS
    card = (exported / "README.md").read_text()
    assert "# export" in card and read(str(bert)).origin.sha256 in card and "Nothing was compared" in card
    assert (exported / "modules.json").is_file()


@pytest.mark.parity
def test_an_export_with_its_proof_is_what_save_pretrained_writes(bert, tmp_path):
    pytest.importorskip("torch", reason="torch is the oracle")
    folders = [tmp_path / name / "shared" for name in ("command", "method")]
    assert port.main(["import", str(bert), "--output", str(tmp_path / "import")]) == 0
    assert export.main([str(tmp_path / "import"), "--output", str(folders[0]), "--prove"]) == 0
    from_pretrained(tmp_path / "import").save_pretrained(folders[1])
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in folders]
    assert files[0] == files[1] and b"**PASS**" in files[0][Path("README.md")]


@pytest.mark.parity
def test_verify_passes_and_fails(bert, capsys, monkeypatch):
    """A mistake in the conversion is a FAIL and exit code 1."""
    pytest.importorskip("torch", reason="torch is the oracle")
    assert port.main(["verify", str(bert)]) == 0
    output = capsys.readouterr().out
    assert output.endswith("PASS\n") and "layer 2" in output and "pooled" in output and "exported again" in output
    convert = proof_subject.convert

    def mistaken(source, **options):
        converted = convert(source, **options)
        leaves = dict(flatten(converted.params))
        path = "trunk/layer_1/attention/value/kernel"
        leaves[path] = np.ascontiguousarray(leaves[path].T)
        return dataclasses.replace(converted, params=unflatten(leaves))

    monkeypatch.setattr(proof_subject, "convert", mistaken)
    assert port.main(["verify", str(bert)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "FAIL"
    failed = {line.split("  ")[0] for line in lines if line.endswith("FAIL")}
    assert {"layer 2", "pooled", "exported again"} <= failed and "layer 1" not in failed


@pytest.mark.parity
def test_not_a_number_is_a_mistake(bert, monkeypatch):
    """Outputs that are not finite are no padding, and fail."""
    pytest.importorskip("torch", reason="torch is the oracle")
    convert = proof_subject.convert

    def mistaken(source, **options):
        converted = convert(source, **options)
        leaves = {path: leaf.copy() for path, leaf in flatten(converted.params).items()}
        leaves["trunk/layer_1/output/bias"][3] = np.nan
        return dataclasses.replace(converted, params=unflatten(leaves))

    monkeypatch.setattr(proof_subject, "convert", mistaken)
    failed = {check.name for check in proofs.verify(str(bert)) if check.status == "FAIL"}
    assert {"layer 2", "pooled"} <= failed and "layer 1" not in failed


def test_verify_an_import(bert, tmp_path, capsys):
    """Its reference is what it exports; one that was damaged is refused."""
    imported = tmp_path / "import"
    assert port.main(["import", str(bert), "--output", str(imported)]) == 0
    assert port.main(["verify", str(imported)]) == 0
    assert capsys.readouterr().out.endswith("PASS\n")
    (imported / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(InputError, match="is damaged"):
        port.main(["verify", str(imported)])


@pytest.mark.parametrize("command", [("port", "import"), ("export",)], ids=" ".join)
def test_a_full_folder_is_left_as_it_is(command, bert, tmp_path):
    imported = tmp_path / "import"
    assert port.main(["import", str(bert), "--output", str(imported)]) == 0
    before = {path: path.read_bytes() for path in imported.rglob("*") if path.is_file()}
    name, *words = command
    source = str(bert if words else imported)
    with pytest.raises(InputError, match="is there already"):
        {"port": port, "export": export}[name].main([*words, source, "--output", str(imported)])
    assert before == {path: path.read_bytes() for path in imported.rglob("*") if path.is_file()}


@pytest.mark.parity
def test_convert(bert, tmp_path, capsys):
    """A pickle becomes a file that is then ported to the same parameters."""
    torch = pytest.importorskip("torch", reason="torch reads pickles")
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((bert / "config.json").read_bytes())
    torch.save({name: torch.tensor(x) for name, x in own.tensors().items()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError) as refusal:
        read(str(folder))
    command = str(refusal.value).split("python -m vlm_jax port ")[1].split()
    assert port.main(command) == 0  # what the refusal says to do
    assert f"{len(own.tensors())} tensors saved" in capsys.readouterr().out
    first, second = flatten(read(str(bert)).params), flatten(read(str(folder)).params)
    assert first.keys() == second.keys() and all(np.array_equal(first[path], second[path]) for path in first)


@pytest.mark.parametrize(("lacking", "left_out"), [("torch", "outputs"), ("transformers", "outputs, tokenizer")])
def test_verify_without_its_oracle_is_no_pass(lacking, left_out, bert, capsys, monkeypatch):
    """NOT COMPARED and exit code 3, whichever of the two is not installed."""
    pytest.importorskip("transformers", reason="it reads the tokenizer")
    find = checks.importlib.util.find_spec
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None if name == lacking else find(name))
    assert port.main(["verify", str(bert)]) == 3
    output = capsys.readouterr().out
    assert (
        f"{lacking} not installed" in output and output.endswith(f"NOT COMPARED: {left_out}\n") and "PASS" not in output
    )


def test_a_cnn_without_torch_is_not_compared(tmp_path, capsys, monkeypatch):
    source = fixtures.publish(fixtures.BY_NAME["torchvision_resnet18"].fixtures[0], tmp_path / "resnet")
    find = checks.importlib.util.find_spec
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    assert port.main(["verify", str(source)]) == 3
    assert capsys.readouterr().out.endswith("NOT COMPARED: outputs\n")


@pytest.mark.parity
def test_the_text_side_of_a_run_is_a_bert(trained, tmp_path, capsys):
    """Its export loads without a warning and computes what the model computes of a text without an image."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from transformers import BertModel

    from vlm_jax.run_folder import RunFolder
    from vlm_jax.training.setup import load_trained, make_encoder

    assert export.main([str(trained), "--output", str(tmp_path / "out")]) == 0
    assert "transformers.BertModel" in capsys.readouterr().out
    model, info = BertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert {name: keys for name, keys in info.items() if keys} == {}
    config = RunFolder(trained).config()
    task, params, _ = load_trained(config, RunFolder(trained), make_encoder(config, RunFolder(trained)), which="best")
    ids, mask = task.encode.tokenizer.encode(["is there a circle?", "what is it"], 10)
    apply = jax.jit(task.model.apply, static_argnames="method")
    fused = apply({"params": params}, None, jnp.asarray(ids)[:, None], jnp.asarray(mask)[:, None], method="streams")
    with torch.no_grad():
        reference = model.eval()(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()).last_hidden_state
    outputs = np.asarray(fused.text)[:, 0]
    assert checks.score(outputs[mask], reference.numpy()[mask]) <= 2e-5


@pytest.mark.parity
@pytest.mark.parametrize("fusion", ["concat", "cross", "late", "co_attention"])
@pytest.mark.parametrize("width", [24, pytest.param(16, marks=pytest.mark.slow)])
def test_the_text_side_of_every_fusion_is_a_bert(fusion, width, tmp_path, capsys):
    """Its layers are the text's, and `text_fc`, which is not the identity here, is folded into the tables."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from transformers import BertModel

    settings = own.config(changes={"model.fusion.kind": fusion, "model.layout.text_feature_size": width})
    saved = own.save_run(tmp_path / "run", settings)
    assert export.main([str(tmp_path / "run"), "--output", str(tmp_path / "out")]) == 0
    pooler = fusion != "late"
    assert ("add_pooling_layer=False" in capsys.readouterr().out) == (not pooler)
    reference, info = BertModel.from_pretrained(
        tmp_path / "out", output_loading_info=True, add_pooling_layer=pooler, dtype=torch.float64
    )
    assert {name: keys for name, keys in info.items() if keys} == {}
    for index, place in enumerate(own.text_layers(settings.architecture)):
        query = reference.encoder.layer[index].attention.self.query.weight.detach().numpy()
        assert np.array_equal(query, saved[f"{place}/attention/query/kernel"].T)
    ids, mask = np.array([[2, 5, 6, 7, 8, 3], [2, 10, 3, 0, 0, 0]]), np.arange(6)[None] < np.array([6, 3])[:, None]
    with torch.no_grad():
        output = reference(torch.tensor(ids), attention_mask=torch.tensor(mask).long(), output_hidden_states=True)
    # Without an image, attention to it still adds its bias: only fusions without such attention are compared further.
    apply = jax.jit(VisualLanguageModel(settings.architecture, 3).apply, static_argnames="method")
    inputs = (None, jnp.asarray(ids, jnp.int32)[:, None], jnp.asarray(mask)[:, None])
    fused = apply({"params": unflatten(saved)}, *inputs, method="streams")
    words = (
        saved["text/word/embedding"][ids] + saved["text/position/embedding"][:6] + saved["text/segment/embedding"][0]
    )
    embedded = layer_norm(words @ saved["embed/text_fc/kernel"] + saved["embed/text_fc/bias"])
    embedded = embedded * saved["embed/norm/scale"] + saved["embed/norm/bias"]
    assert checks.score(embedded, output.hidden_states[0].numpy()) <= 2e-5
    if fusion in ("concat", "late"):
        assert checks.score(np.asarray(fused.text)[:, 0][mask], output.last_hidden_state.numpy()[mask]) <= 2e-5


def layer_norm(x):
    x = x.astype(np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)


def test_list_names_every_family(capsys):
    assert port.main(["list"]) == 0
    output = capsys.readouterr().out
    listed = {line.split()[0]: line for line in output.splitlines() if line[0] != " "}
    families = {name: family for name, family in FAMILIES.items() if not family.alias_of}
    assert all(listed[name].endswith(family.about) for name, family in families.items())
    assert "ernie" not in listed and "aliases: ernie\n" in output and f"\n{len(families)} families" in output
    assert output.count("proven: forward, export") == len(families)


@pytest.mark.parametrize(
    "arguments",
    [
        ["port", "verify", "nowhere"],
        ["port", "import", "nowhere", "--output", "x"],
        ["export", "nowhere", "--output", "x"],
    ],
)
def test_wrong_places_are_one_line_and_exit_code_2(arguments, tmp_path):
    command = [sys.executable, "-m", f"experiments.{arguments[0]}", *arguments[1:]]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 2 and answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    assert not (ROOT / "x").exists()


@pytest.mark.parametrize("command", ["experiments.port", "experiments.export", "experiments.classify"])
def test_help_is_quick(command):
    """Nothing heavy is imported for it."""
    code = f"import sys, runpy; sys.argv[1:] = ['--help']\ntry: runpy.run_module({command!r}, run_name='__main__')\n"
    code += "except SystemExit: print('jax' in sys.modules, 'torch' in sys.modules)"
    began = time.perf_counter()
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.stdout.endswith("False False\n"), answer.stderr
    assert time.perf_counter() - began < 20


def test_classify_names_the_classes(tmp_path, capsys):
    from PIL import Image

    fixture = fixtures.BY_NAME["torchvision_resnet18"].fixtures[0]
    source = str(fixtures.publish(fixture, tmp_path / "resnet"))
    Image.new("RGB", (90, 40), "red").save(tmp_path / "red.png")
    names = [f"name {index}" for index in range(fixtures.CLASSES)]
    (tmp_path / "names.json").write_text(json.dumps(names))
    options = ["--image", str(tmp_path / "red.png"), "--output", str(tmp_path / "sheet.png")]
    assert classify.main([source, *options, "--classes", str(tmp_path / "names.json")]) == 0
    output = capsys.readouterr().out
    assert output.startswith(str(tmp_path / "red.png")) and output.count("name ") == 5
    with Image.open(tmp_path / "sheet.png") as contact_sheet:
        assert contact_sheet.size[0] > 100
    (tmp_path / "short.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="2 names, the classifier 10 classes"):
        classify.main([source, *options, "--classes", str(tmp_path / "short.txt")])
    with pytest.raises(InputError, match="no image encoder with a classifier"):
        classify.main([str(own.write(tmp_path / "bert")), *options])
