"""Every text family and head is transformers' class: verified, exported bit for bit; planted mistakes are red."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file

from tests.weights import own
from vlm_jax.errors import InputError
from vlm_jax.models import attention, pretrained, text_trunk
from vlm_jax.training.initialization import start
from vlm_jax.weights import verify as proofs
from vlm_jax.weights.checks import verdict
from vlm_jax.weights.export import export
from vlm_jax.weights.families import CLASSES, FAMILIES
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.verify import OUTPUTS, verify

pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

from tests.weights import text_models  # noqa: E402  needs torch

FAMILY_NAMES = (
    "bert", "ernie", "roberta", "xlm-roberta", "camembert", "data2vec-text", "distilbert", "mpnet", "electra", "albert"
)  # fmt: skip
DECODER, CROSS = {"is_decoder": True}, {"is_decoder": True, "add_cross_attention": True}
FAST = {
    "MPNetModel", "MPNetForMaskedLM", "XLMRobertaForSequenceClassification", "CamembertForMaskedLM",
    "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering",
    "RobertaForSequenceClassification", "DistilBertForSequenceClassification", "ElectraForPreTraining",
    "ElectraForMaskedLM", "AlbertForPreTraining", "Data2VecTextModel",
}  # fmt: skip
"""One class of each family and head that computes something of its own; the others are in the slow set."""
CASES = [
    pytest.param(family, kind, {}, id=kind, marks=() if kind in FAST else pytest.mark.slow)
    for family in FAMILY_NAMES
    for kind, known in FAMILIES[family].classes.items()
    if not known.left and not known.decoder
]
CASES += [
    pytest.param("bert", "BertLMHeadModel", CROSS, id="BertLMHeadModel-cross"),
    pytest.param("bert", "BertLMHeadModel", DECODER, id="BertLMHeadModel-causal", marks=pytest.mark.slow),
    pytest.param("bert", "BertModel", CROSS, id="BertModel-cross", marks=pytest.mark.slow),
    pytest.param("electra", "ElectraModel", {"embedding_size": text_models.WIDTH}, id="ElectraModel-no-projection"),
    pytest.param(
        "bert", "BertForTokenClassification", {"id2label": {0: "one"}}, id="one-class", marks=pytest.mark.slow
    ),
]


def statuses(folder):
    """The status of each comparison."""
    return {check.name: check.status for check in verify(str(folder)) if check.status != "note"}


@pytest.mark.parametrize(("family", "kind", "settings"), CASES)
def test_a_text_model_is_verified_and_comes_back(family, kind, settings, tmp_path):
    folder = text_models.publish(family, kind, tmp_path / "published", **settings)
    results = statuses(folder)
    assert set(results.values()) == {"ok"}, results
    heads = {OUTPUTS[part] for part in CLASSES[kind].classes[kind].parts}
    layers = {f"layer {index + 1}" for index in range(text_models.LAYERS)}
    assert set(results) - {"KL of masked words"} == heads | layers | {"embeddings", "exported again"}
    write_import(read(str(folder)), tmp_path / "port")
    converted = read(str(tmp_path / "port"))
    assert export(converted, tmp_path / "exported") == kind
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "exported"))
    assert before.keys() == after.keys() and all(before[name].tobytes() == after[name].tobytes() for name in before)
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["model_type"] == family and config.get("id2label") == converted.config.get("id2label")
    _, info = getattr(transformers, kind).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert {name: keys for name, keys in info.items() if keys} == {}


@pytest.mark.parametrize("family", [name for name in FAMILY_NAMES if name not in ("bert", "roberta", "distilbert")])
def test_the_trunk_of_multiple_choice_is_ported(family, tmp_path):
    """Its head is left behind by name."""
    (kind,) = (name for name, known in FAMILIES[family].classes.items() if known.left)
    converted = read(str(text_models.publish(family, kind, tmp_path / "published")))
    assert converted.published.left_behind and converted.published.missing == ()
    assert all(name.startswith(FAMILIES[family].classes[kind].left) for name in converted.published.left_behind)
    assert FAMILIES[family].class_of(converted.architecture) == FAMILIES[family].trunk


def test_a_head_of_another_class_is_left_behind_by_name(tmp_path):
    """A file that names the trunk: spans belong to one class, a classifier to several."""
    for kind, head, larger in (
        ("BertForQuestionAnswering", "qa_outputs", ()),
        ("BertForTokenClassification", "classifier", ()),
    ):
        folder = text_models.publish("bert", kind, tmp_path / kind)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
        published = read(str(folder)).published
        assert published.left_behind == (f"{head}.bias", f"{head}.weight") and published.larger == larger


def test_relative_buckets_are_mpnets():
    """At every distance: at powers of two the bucket hangs on the rounding."""
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    place = torch.arange(600)
    reference = MPNetEncoder.relative_position_bucket(place[None] - place[:, None], num_buckets=32)
    assert np.array_equal(attention.relative_buckets(600, 32), reference.numpy())


def buckets_turned(monkeypatch):
    right = attention.relative_buckets
    monkeypatch.setattr(attention, "relative_buckets", lambda length, count: right(length, count).T)


def buckets_up_to_64(monkeypatch):
    monkeypatch.setattr(attention, "MAX_DISTANCE", 64)


def layers_take_turns(monkeypatch):
    """Layers 0, 1, 2 of two groups are 0, 1, 0 and not 0, 0, 1."""
    monkeypatch.setattr(text_trunk, "group_of", lambda settings, layer: layer % settings.num_hidden_groups)


def no_activation(monkeypatch):
    for name in ("tanh", "relu", "gelu"):
        monkeypatch.setitem(pretrained.SEQUENCE_ACTIVATIONS, name, lambda x: x)


def no_cross_attention(monkeypatch):
    monkeypatch.setattr(attention.CrossAttention, "__call__", lambda self, x, *_: 0 * x)


def no_projection(monkeypatch):
    class Skipped(nn.Module):
        features: int
        dtype: object

        def __call__(self, x):
            return x

    monkeypatch.setattr(text_trunk, "nn", SimpleNamespace(Dense=Skipped))


SAME_WIDTH = {"embedding_size": text_models.WIDTH}
PLANTED = [
    ("mpnet", "MPNetModel", {}, buckets_turned, "layer 1"),
    ("mpnet", "MPNetModel", {}, buckets_up_to_64, "layer 1"),
    ("albert", "AlbertModel", {}, layers_take_turns, "layer 2"),
    ("albert", "AlbertModel", SAME_WIDTH, no_projection, "embeddings"),
    ("roberta", "RobertaForSequenceClassification", {}, no_activation, "text classes"),
    ("distilbert", "DistilBertForSequenceClassification", {}, no_activation, "text classes"),
    ("electra", "ElectraForSequenceClassification", {}, no_activation, "text classes"),
    ("bert", "BertLMHeadModel", CROSS, no_cross_attention, "layer 1"),
]


@pytest.mark.parametrize(("family", "kind", "settings", "plant", "first"), PLANTED)
def test_a_planted_mistake_is_red(family, kind, settings, plant, first, tmp_path, monkeypatch):
    """`first` is the first comparison that fails, and what depends on it fails too."""
    folder = text_models.publish(family, kind, tmp_path / "published", **settings)
    run = proofs.run_encoder.__wrapped__  # nothing that was compiled before
    to_device = lambda tree: jax.tree.map(jnp.asarray, tree)  # noqa: E731
    monkeypatch.setattr(
        proofs, "run_encoder", lambda module, params, inputs: run(module, to_device(params), to_device(inputs))
    )
    assert verdict(verify(str(folder)))[0] == "PASS"
    plant(monkeypatch)
    failed = [check.name for check in verify(str(folder)) if check.status == "FAIL"]
    assert failed and failed[0] == first


def test_layers_and_projections_are_not_left_out(tmp_path):
    """ALBERT without shared layers, and ELECTRA without its projection, have other parameters than the file."""
    for family, kind, change in (
        ("albert", "AlbertModel", {"num_hidden_groups": 3}),
        ("electra", "ElectraModel", {"embedding_size": text_models.WIDTH}),
    ):
        folder = text_models.publish(family, kind, tmp_path / family)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=r"embedding_hidden|albert_layer_groups\.2|embeddings_project"):
            read(str(folder))


@pytest.mark.parametrize(
    ("family", "kind", "change", "shown"),
    [
        ("mpnet", "MPNetModel", {"relative_attention_num_buckets": 64}, "relative_attention_num_buckets = 64"),
        ("mpnet", "MPNetModel", {"pad_token_id": 0}, "pad_token_id = 0"),
        ("albert", "AlbertModel", {"inner_group_num": 2}, "inner_group_num = 2"),
        ("ernie", "ErnieModel", {"use_task_id": True}, "use_task_id = true"),
        ("electra", "ElectraModel", {"is_decoder": True}, "decoder"),
        ("roberta", "RobertaModel", {"is_decoder": True}, "decoder"),
        ("bert", "BertForMaskedLM", {"is_decoder": True}, "is_decoder = True"),
        ("bert", "BertModel", {"add_cross_attention": True}, "add_cross_attention"),
        ("roberta", "RobertaForMaskedLM", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
    ],
)
def test_settings_that_change_what_is_computed_are_refused(family, kind, change, shown, tmp_path):
    folder = text_models.publish(family, kind, tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError) as error:
        read(str(folder))
    assert shown in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("family", "kind", "shown"),
    [
        ("mpnet", "MPNetModel", "relative_attention_num_buckets"),
        ("albert", "AlbertModel", "num_hidden_groups"),
        ("electra", "ElectraModel", "project_embeddings"),
    ],
)
def test_a_trunk_that_no_fusion_has_does_not_start_one(family, kind, shown, tmp_path):
    config = own.config(text_models.publish(family, kind, tmp_path / "published"))
    with pytest.raises(InputError, match=shown):
        start(config, own.fresh(config), ("a", "b", "c"))


def test_a_trunk_that_names_a_masked_word_model_is_compared_with_its_trunk(tmp_path):
    """As all-mpnet-base-v2: it holds a pooler, and no head of the class that it names."""
    folder = text_models.publish("mpnet", "MPNetModel", tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["MPNetForMaskedLM"]}))
    checks = {check.name: check for check in verify(str(folder))}
    assert verdict(checks.values()) == ("NOT COMPARED: masked words", 3)
    assert checks["pooled"].status == checks["layer 3"].status == "ok" and "MPNetModel" in checks["compared with"].value
