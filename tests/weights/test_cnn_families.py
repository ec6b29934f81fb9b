"""CNNs of transformers at tiny widths and depths: verified, exported bit-equal, with their labels; mistakes show."""

import dataclasses
import json

import pytest
from safetensors.numpy import load_file

from tests.weights.transformers_cnns import LABELS, TINY, publish
from vlm_jax.settings.changes import with_changes
from vlm_jax.weights import proof_subject, tables
from vlm_jax.weights.checks import verdict
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.source import CONFIG, WEIGHTS
from vlm_jax.weights.verify import verify

torch = pytest.importorskip("torch", reason="torch is the oracle")
pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity
BOUND = 2e-5


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of a tiny model, written once."""
    folders = {}

    def of(name):
        if name not in folders:
            folders[name] = publish(TINY[name], tmp_path_factory.mktemp("published") / name)
        return folders[name]

    return of


def worst(folder):
    """The largest difference that `verify` finds in a folder."""
    checks = list(verify(str(folder)))
    values = [check.value for check in checks if check.name in ("features", "logits")]
    assert values and all("e" in value for value in values), checks
    return max(map(float, values))


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_cnn_is_verified_and_comes_back(name, published, tmp_path):
    """By the folder of its import, too; with its labels; bit for bit; and transformers loads the export whole."""
    import transformers

    folder, kind = published(name), TINY[name].name
    checks = list(verify(str(folder)))
    assert verdict(checks) == ("PASS", 0), checks
    outputs = {check.name: float(check.value) for check in checks if check.name in ("features", "logits")}
    assert len(outputs) == (1 if kind.endswith("Model") else 2) and max(outputs.values()) < BOUND
    write_import(read(str(folder)), tmp_path / "imported")
    converted = read(str(tmp_path / "imported"))
    assert converted.architecture == read(str(folder)).architecture
    assert converted.labels == (() if kind.endswith("Model") else tuple(LABELS.values()))
    assert export(converted, tmp_path / "exported") == kind
    first, second = load_file(folder / WEIGHTS), load_file(tmp_path / "exported" / WEIGHTS)
    assert first.keys() == second.keys()
    assert all(array.tobytes() == second[key].tobytes() for key, array in first.items())
    _, info = getattr(transformers, kind).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert {key: names for key, names in info.items() if names} == {}
    settings = TINY[name].settings
    exported = json.loads((tmp_path / "exported" / CONFIG).read_text())
    assert {key: exported[key] for key in settings} == settings


@pytest.mark.parametrize("name", TINY)
def test_another_epsilon_of_batch_norm_shows(name, published, monkeypatch):
    fold, other = tables.folded_norm, {1e-5: 1e-3, 1e-3: 1e-5}
    monkeypatch.setattr(tables, "folded_norm", lambda epsilon: fold(other[epsilon]))
    assert worst(published(name)) > BOUND


def with_another_model(converted, **changes):
    model = with_changes(converted.architecture.model, changes)
    return dataclasses.replace(converted, architecture=converted.architecture._replace(model=model))


def plant(monkeypatch, **changes):
    """The module of another architecture behind the same parameters."""
    convert = proof_subject.convert
    monkeypatch.setattr(
        proof_subject, "convert", lambda *x, **named: with_another_model(convert(*x, **named), **changes)
    )


@pytest.mark.parametrize(("name", "version_1"), [("resnet_v1", False), ("resnet_bottleneck", True)])
def test_a_stride_on_the_wrong_convolution_shows(name, version_1, published, monkeypatch):
    plant(monkeypatch, downsample_in_bottleneck=version_1)
    assert worst(published(name)) > BOUND
