"""A port is strict both ways, and what nobody trained comes back bit for bit."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.weights import own
from vlm_jax.errors import InputError
from vlm_jax.integrity import write_digests
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read, read_import, write_import
from vlm_jax.weights.tables import export_tensors, folded_norm


def refusal(folder, weights):
    with pytest.raises(InputError) as caught:
        read(str(own.write(folder, weights)))
    return str(caught.value)


def test_extra_missing_and_misshapen_tensors_are_named(tmp_path):
    """Promise: three mistakes, three lines."""
    weights = own.tensors()
    bias = "encoder.layer.1.output.dense.bias"
    extra = refusal(tmp_path / "a", weights | {"scorer.weight": np.zeros((3, 16), np.float32)})
    missing = refusal(tmp_path / "b", {name: x for name, x in weights.items() if name != bias})
    shape = refusal(tmp_path / "c", weights | {bias: np.zeros(17, np.float32)})
    assert "unexpected scorer.weight [3, 16]" in extra
    assert f"missing {bias}" in missing and "did you mean" not in missing
    assert f"{bias} [17] for trunk/layer_1/output/bias [16]" in shape
    assert len({extra, missing, shape}) == 3


def test_many_problems_are_shortened(tmp_path):
    line = refusal(tmp_path / "a", {name: x for name, x in own.tensors().items() if "layer.1" not in name})
    assert "and 11 more" in line and "\n" not in line


@pytest.mark.parametrize("turned", [np.zeros(()), np.zeros(16), np.zeros((16, 16, 1))])
def test_a_matrix_with_other_axes(turned, tmp_path):
    name = "encoder.layer.0.attention.self.query.weight"
    assert name in refusal(tmp_path / "a", own.tensors() | {name: turned.astype(np.float32)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_a_number_that_is_none_is_refused_by_name(value, kind, tmp_path):
    """One among many, in a table, a matrix or a bias."""
    for index, name in enumerate(
        ("embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.bias", "pooler.dense.weight")
    ):
        weights = {other: x.astype(kind) for other, x in own.tensors().items()}
        weights[name].flat[-1] = value
        line = refusal(tmp_path / str(index), weights)
        assert f"{name} holds NaN or infinity" in line and "\n" not in line


def test_a_variance_below_zero_is_refused_by_name(tmp_path):
    from tests.weights import fixtures

    fixture = fixtures.BY_NAME["torchvision_resnet18"].fixtures[0]
    weights = fixtures.tensors(fixture)
    weights["layer1.0.bn1.running_var"] = weights["layer1.0.bn1.running_var"] - 1e3
    with pytest.raises(InputError, match=r"layer1\.0\.bn1\.running_var .* NaN or infinite"):
        read(str(fixtures.write(tmp_path / "resnet", weights, fixtures.config(fixture.case))))


def test_a_round_trip_is_bit_equal(tmp_path):
    converted = read(str(own.write(tmp_path / "bert")))
    back = export_tensors(
        flatten(converted.params), converted.source_tensors, converted.family.rows(converted.architecture)
    )
    weights = own.tensors()
    assert back.keys() == weights.keys()
    assert all(back[name].tobytes() == weights[name].tobytes() for name in weights)


def test_parameters_that_do_not_fit_are_not_exported(tmp_path):
    converted = read(str(own.write(tmp_path / "bert")))
    leaves = flatten(converted.params)
    less = {path: leaf for path, leaf in leaves.items() if path != "text/word/embedding"}
    for changed in (leaves | {"head/more": np.zeros(1)}, less):
        with pytest.raises(InputError, match=r"unexpected head/more|missing text/word/embedding"):
            export(dataclasses.replace(converted, params=unflatten(changed)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folded_norm_goes_back():
    """A trained scale and bias, over the statistics that came, normalise as the folded norm does."""
    random = np.random.default_rng(0)
    weight, bias, mean, variance = (random.uniform(0.5, 2, 7).astype(np.float32) for _ in range(4))
    norm, x = folded_norm(1e-3), random.normal(size=(5, 7)).astype(np.float32)
    scale, offset = norm.forward(weight, bias, mean, variance)
    np.testing.assert_allclose(x * scale + offset, (x - mean) / np.sqrt(variance + 1e-3) * weight + bias, atol=1e-5)
    trained = (scale * np.float32(1.3), offset - np.float32(0.2))
    back = norm.backward(*trained, weight, bias, mean, variance)
    assert np.array_equal(back[2], mean) and np.array_equal(back[3], variance)
    weight, bias = back[:2]
    np.testing.assert_allclose(
        x * trained[0] + trained[1], (x - mean) / np.sqrt(variance + 1e-3) * weight + bias, atol=1e-5
    )


def small_resnet(folder):
    """torchvision's ResNet-18 by name, full width, weights of one draw."""
    from tests.weights import fixtures

    fixture = fixtures.BY_NAME["torchvision_resnet18"].fixtures[0]
    return fixtures.publish(fixture, folder)


def test_an_untouched_norm_goes_back_as_it_came_and_a_trained_one_does_not(tmp_path):
    folder = small_resnet(tmp_path / "resnet")
    converted = read(str(folder))
    export(converted, tmp_path / "same")
    (file,) = folder.glob("*.safetensors")
    before, same = load_file(file), load_file(tmp_path / "same" / "model.safetensors")
    assert before.keys() == same.keys() and all(before[n].tobytes() == same[n].tobytes() for n in before)
    leaves = dict(flatten(converted.params))
    leaves["image/stem_norm/scale"] = leaves["image/stem_norm/scale"] * np.float32(1.5)
    export(dataclasses.replace(converted, params=unflatten(leaves)), tmp_path / "trained")
    trained = load_file(tmp_path / "trained" / "model.safetensors")
    assert all(np.array_equal(trained[f"bn1.running_{x}"], before[f"bn1.running_{x}"]) for x in ("mean", "var"))
    np.testing.assert_allclose(trained["bn1.weight"], before["bn1.weight"] * 1.5, rtol=1e-6)
    pushed = before["bn1.running_mean"] * leaves["image/stem_norm/scale"]
    np.testing.assert_allclose(trained["bn1.bias"], leaves["image/stem_norm/bias"] + pushed, rtol=1e-5, atol=1e-6)
    assert np.array_equal(trained["layer1.0.bn1.running_mean"], before["layer1.0.bn1.running_mean"])


def test_an_import_is_read_as_it_was_written(tmp_path):
    converted = read(str(own.write(tmp_path / "bert")))
    write_import(converted, tmp_path / "import")
    again = read_import(tmp_path / "import")
    assert again.architecture == converted.architecture and again.origin == converted.origin
    first, second = flatten(converted.params), flatten(again.params)
    assert first.keys() == second.keys() and all(np.array_equal(first[p], second[p]) for p in first)
    assert "| encoder.layer.0.output.dense.weight | trunk/layer_0/output/kernel |" in (
        tmp_path / "import" / "port_report.md"
    ).read_text(encoding="utf-8")


def test_a_damaged_import_is_refused(tmp_path):
    write_import(read(str(own.write(tmp_path / "bert"))), tmp_path / "import")
    files = (path for path in (tmp_path / "import" / "params").rglob("*") if path.is_file())
    file = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged: "):
        read(str(tmp_path / "import"))


@pytest.mark.parametrize("how", ["gone", "rewritten", "fewer", "as before"])
def test_an_import_whose_digests_are_lost_or_changed_is_refused(tmp_path, how):
    """A list that names fewer files would vouch for any content of the others."""
    folder = tmp_path / "import"
    write_import(read(str(own.write(tmp_path / "bert"))), folder)
    file = folder / "digests.json"
    listed = json.loads(file.read_text())
    if how == "gone":
        file.unlink()
    elif how == "rewritten":
        (folder / "port_report.md").write_text("mine")
        digest = hashlib.sha256(b"mine").hexdigest()
        listed["files"]["port_report.md"] = {"bytes": 4, "sha256": digest}
        file.write_text(json.dumps(listed))
    elif how == "fewer":
        del listed["files"]["port.json"]
        file.write_text(json.dumps(listed))
    else:
        file.write_text(json.dumps({name: entry["sha256"] for name, entry in listed["files"].items()}))
    with pytest.raises(InputError, match=r"is damaged: .*digests\.json"):
        read(str(folder))


@pytest.mark.parametrize("how", ["a setting less", "another setting", "a record less", "other parameters"])
def test_an_import_of_another_version_is_refused_in_one_line(tmp_path, how):
    folder = tmp_path / "import"
    converted = read(str(own.write(tmp_path / "bert")))
    if how == "other parameters":
        identity = {"embed/text_fc/bias": np.zeros(converted.architecture.model.hidden_size, np.float32)}
        converted = dataclasses.replace(converted, params=unflatten(dict(flatten(converted.params)) | identity))
    write_import(converted, folder)
    about = json.loads((folder / "port.json").read_text())
    if how == "a record less":
        del about["published"]
    elif how == "another setting":
        about["model"]["former"] = 1
    elif how == "a setting less":
        del about["model"]["type_vocab_size"]
    (folder / "port.json").write_text(json.dumps(about))
    (folder / "digests.json").unlink()
    write_digests(folder, folder / "digests.json")
    with pytest.raises(InputError, match=r"^[^\n]*; import again$"):
        read(str(folder))


def test_tensors_that_an_import_did_not_write_are_not_read(tmp_path):
    """Such as those of another import, copied over."""
    folder = tmp_path / "import"
    write_import(read(str(own.write(tmp_path / "bert"))), folder)
    source_tensors = dict(read(str(folder)).source_tensors)
    assert bool(source_tensors) == (folder / "source_tensors.safetensors").is_file()
    if not source_tensors:
        save_file({"foreign": np.ones(1, np.float32)}, folder / "source_tensors.safetensors")
        assert read(str(folder)).source_tensors == {}


def test_nothing_is_written_over(tmp_path):
    converted = read(str(own.write(tmp_path / "bert")))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for write in (write_import, export):
        with pytest.raises(InputError, match=r"is there already; give another --output"):
            write(converted, tmp_path / "full")
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_file_of_halves_keeps_its_type(tmp_path):
    halves = {name: x.astype(np.float16) for name, x in own.tensors().items()}
    export(read(str(own.write(tmp_path / "bert", halves))), tmp_path / "out")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert all(back[name].dtype == np.float16 and np.array_equal(back[name], x) for name, x in halves.items())


def test_a_tied_decoder_may_be_written_out(tmp_path):
    weights = {f"bert.{name}": x for name, x in own.tensors().items() if "pooler" not in name}
    random = np.random.default_rng(1)
    head = {
        "cls.predictions.transform.dense.weight": (16, 16), "cls.predictions.transform.dense.bias": (16,),
        "cls.predictions.transform.LayerNorm.weight": (16,), "cls.predictions.transform.LayerNorm.bias": (16,),
        "cls.predictions.bias": (len(own.WORDS),),
    }  # fmt: skip
    weights |= {name: random.normal(size=shape).astype(np.float32) for name, shape in head.items()}
    decoder, named = "cls.predictions.decoder.weight", {"architectures": ["BertForMaskedLM"]}
    tied = weights | {decoder: weights["bert.embeddings.word_embeddings.weight"].copy()}
    assert read(str(own.write(tmp_path / "tied", tied, **named))).architecture.parts == ("words",)
    loose = weights | {decoder: tied[decoder] + 1}
    assert read(str(own.write(tmp_path / "loose", loose, **named))).architecture.parts == (
        "words",
        "decoder",
    )
