"""Text families train as in PyTorch: tiny models in float64, and ALBERT's layers are one layer there too."""

import jax
import pytest

pytest.importorskip("torch", reason="torch is the oracle")
pytest.importorskip("transformers", reason="transformers is the oracle")

from tests.weights import text_models
from vlm_jax.models import text_trunk
from vlm_jax.training import port_proof
from vlm_jax.training.port_proof import tiny_proof, tiny_subject
from vlm_jax.training.proof_task import proof_task
from vlm_jax.weights.families import FAMILIES
from vlm_jax.weights.proof_subject import proof_subject

pytestmark = pytest.mark.parity
FAST = ("AlbertForMaskedLM", "MPNetForMaskedLM")
CASES = [
    ("albert", "AlbertForMaskedLM"), ("mpnet", "MPNetForMaskedLM"), ("electra", "ElectraForMaskedLM"),
    ("xlm-roberta", "XLMRobertaForMaskedLM"), ("camembert", "CamembertForMaskedLM"),
    ("bert", "BertForSequenceClassification"),
    ("roberta", "RobertaForSequenceClassification"), ("distilbert", "DistilBertForSequenceClassification"),
    ("electra", "ElectraForSequenceClassification"), ("albert", "AlbertForSequenceClassification"),
]  # fmt: skip


def checks(family, kind, folder):
    """The checks of a tiny model of a class, one after the other."""
    shared = {"num_hidden_groups": 1} if family == "albert" else {}
    with proof_subject(str(text_models.publish(family, kind, folder / kind, **shared))) as subject:
        yield from tiny_proof(tiny_subject(subject), proof_task(subject.converted))


@pytest.mark.parametrize(("family", "kind"), [case for case in CASES if case[1] in FAST])
def test_gradients_are_those_of_torch(family, kind, tmp_path):
    assert next(checks(family, kind, tmp_path)).status == "ok"


def test_what_is_listed_as_trained_is_proven_here():
    """Image families are in tests/training/test_port_proof.py."""
    listed = {f.name for f in FAMILIES.values() if "training" in f.proven and not f.alias_of and "words" in f.heads}
    assert listed == {family for family, _ in CASES}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_hundred_steps_are_those_of_torch(family, kind, tmp_path):
    assert [check.status for check in checks(family, kind, tmp_path)] == ["ok"] * 4


def test_layers_that_share_no_gradient_are_red(tmp_path, monkeypatch):
    """ALBERT with a copy of the layer at each depth computes the same, and trains otherwise."""

    def unshared(layers, stream, mask, keys, *, query_slice):
        used = set()
        for layer in layers:
            copied = layer.clone(parent=None, name=None)
            params = layer.variables["params"]
            stream, _ = copied.apply(
                {"params": jax.lax.stop_gradient(params) if layer.name in used else params}, stream, mask
            )
            used.add(layer.name)
        return stream

    monkeypatch.setattr(text_trunk, "encode", unshared)
    port_proof.loss_and_gradients.clear_cache()
    try:
        assert next(checks("albert", "AlbertForMaskedLM", tmp_path)).status == "FAIL"
    finally:
        port_proof.loss_and_gradients.clear_cache()
