"""Of a pickled checkpoint tensors are taken, and nothing in it runs."""

import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file

from vlm_jax.errors import InputError
from vlm_jax.weights.pickles import convert_pickle

torch = pytest.importorskip("torch", reason="torch reads pickles")
pytestmark = pytest.mark.parity


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.marker}",)


def refused(file, tmp_path, match):
    with pytest.raises(InputError, match=match) as caught:
        convert_pickle(file, tmp_path / "out.safetensors")
    assert "\n" not in str(caught.value).strip()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_tensors_are_taken(key, tmp_path):
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)}
    tensors["tied"] = tensors["a.weight"]
    tensors["turned"] = tensors["a.weight"].T
    torch.save({key: tensors} if key else tensors, tmp_path / "model.bin")
    shapes = convert_pickle(tmp_path / "model.bin", tmp_path / "new" / "out.safetensors")
    assert shapes == {"a.weight": (2, 3), "half": (2,), "tied": (2, 3), "turned": (3, 2)}
    back = load_file(tmp_path / "new" / "out.safetensors")
    assert np.array_equal(back["turned"], np.arange(6.0).reshape(2, 3).T)
    assert back["half"].dtype.name == "bfloat16" and np.array_equal(back["tied"], back["a.weight"])


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_hostile_file_runs_nothing(form, tmp_path):
    content, file = {"a": torch.ones(2), "b": Hostile(tmp_path / "ran")}, tmp_path / "model.bin"
    if form == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content["b"]))
    refused(file, tmp_path, "holds more than tensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"epoch": 3, "lr": 0.1}, [1, 2], {}, {"a": {"b": 1}}, 5], ids=repr)
def test_what_holds_no_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "model.ckpt")
    refused(tmp_path / "model.ckpt", tmp_path, "expected tensors by name")


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        (torch.eye(3).to_sparse(), "sparse, quantised or without"),
        (torch.zeros(3, device="meta"), "sparse, quantised or without"),
        (torch.zeros(1).expand(10**13), "larger than what the file holds"),  # 40 TB in 1.5 KB
    ],
    ids=["sparse", "meta", "expanded"],
)
def test_an_incomplete_tensor_is_refused(tensor, match, tmp_path):
    torch.save({"a": tensor}, tmp_path / "model.bin")
    refused(tmp_path / "model.bin", tmp_path, f"'a' in .* is .*{match}")


def test_names_that_are_none_are_refused(tmp_path):
    torch.save({1: torch.ones(2)}, tmp_path / "model.bin")
    refused(tmp_path / "model.bin", tmp_path, "names a tensor 1")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04"])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "model.pt").write_bytes(content)
    refused(tmp_path / "model.pt", tmp_path, "model.pt")


def test_places_that_cannot_be(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "model.bin")
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        convert_pickle(tmp_path / "model.bin", tmp_path / "out.bin")
    (tmp_path / "out.safetensors").write_text("mine")
    with pytest.raises(InputError, match="there already"):
        convert_pickle(tmp_path / "model.bin", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        convert_pickle(tmp_path / "model.bin", tmp_path / "file" / "out.safetensors")
    with pytest.raises(InputError, match="is no file"):
        convert_pickle(tmp_path / "none.bin", tmp_path / "other.safetensors")
