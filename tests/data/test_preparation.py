"""A prepared data set that is damaged is named and prepared again."""

import os
from pathlib import Path

import pytest

from vlm_jax.data import preparation
from vlm_jax.data.datasets.shape_scenes import ShapeScenes
from vlm_jax.data.preparation import prepare
from vlm_jax.errors import InputError, MachineError


@pytest.fixture(autouse=True)
def fewer_scenes(few_scenes, monkeypatch):
    monkeypatch.setattr("vlm_jax.data.datasets.shape_scenes.NUM_IMAGES", dict.fromkeys(few_scenes, 4))


def again(directory, monkeypatch):
    """As another process would."""
    monkeypatch.setattr(preparation, "_looked_into", set())
    return prepare(ShapeScenes(directory=directory))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        ("*train*array_record*", flip),
        ("*test*array_record*", truncate),
        ("*validation*array_record*", Path.unlink),
        ("dataset_info.json", truncate),
        ("features.json", truncate),
    ],
)
def test_what_is_damaged_is_named_and_prepared_again(tmp_path, monkeypatch, capsys, pattern, harm):
    folder = Path(prepare(ShapeScenes(directory=tmp_path)).data_dir)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    again(tmp_path, monkeypatch)
    assert capsys.readouterr().err == "", "it is whole"
    harm(next(folder.glob(pattern)))
    builder = again(tmp_path, monkeypatch)
    assert f"the prepared data set in {folder} is damaged" in capsys.readouterr().err
    records = {name: content for name, content in contents.items() if "array_record" in name}
    assert records and all((folder / name).read_bytes() == content for name, content in records.items())
    assert len(builder.as_data_source(split="train")) == 4
    again(tmp_path, monkeypatch)
    assert capsys.readouterr().err == ""


def test_one_without_its_digests_is_prepared_again(tmp_path, monkeypatch, capsys):
    folder = Path(prepare(ShapeScenes(directory=tmp_path)).data_dir)
    (digests,) = folder.parent.glob("*.sha256.json")
    digests.unlink()
    capsys.readouterr()
    again(tmp_path, monkeypatch)
    assert "preparing it again" in capsys.readouterr().err and digests.exists()


@pytest.mark.parametrize(
    ("number", "kind"), [(28, MachineError), (37, MachineError), (13, InputError), (30, InputError)]
)
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(preparation.fcntl, "flock", fail)
    with pytest.raises(kind, match=f"data set shape_scenes to data.directory {tmp_path}: "):
        prepare(ShapeScenes(directory=tmp_path))
