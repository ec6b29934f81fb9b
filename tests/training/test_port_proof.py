"""The proof of training: tiny models pass in float64, and each planted mistake does not."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("torch", reason="torch is the oracle")
pytest.importorskip("transformers", reason="transformers is the oracle")

from vlm_jax.models import attention
from vlm_jax.settings.changes import with_changes
from vlm_jax.training import optimizer, port_proof
from vlm_jax.training.port_proof import SETTINGS, tiny_proof
from vlm_jax.training.proof_task import proof_task
from vlm_jax.weights.converted_model import convert
from vlm_jax.weights.proof_subject import ProofSubject
from vlm_jax.weights.source import open_source

pytestmark = pytest.mark.parity


def tiny(class_name, folder, **config):
    """A tiny model of a class of transformers, as the subject of a proof."""
    from vlm_jax.training.torch_training import write_tiny

    write_tiny(class_name, config, folder)
    source = open_source(str(folder))
    return ProofSubject(convert(source), source, class_name, folder)


@pytest.fixture(scope="module")
def masked_words(tmp_path_factory):
    return tiny("BertForMaskedLM", tmp_path_factory.mktemp("tiny") / "bert")


def statuses(subject, settings=SETTINGS):
    shutil.rmtree(subject.folder / "trained", ignore_errors=True)  # the reference is loaded anew: it was trained
    return [check.status for check in tiny_proof(subject, proof_task(subject.converted), settings)]


GOOD = ["ok"] * 4


@pytest.mark.parametrize(
    ("class_name", "task"),
    [
        ("BertForMaskedLM", "masked words"),
        ("BertForPreTraining", "masked words"),
        ("RobertaForMaskedLM", "masked words"),
        ("DistilBertModel", "sentence vectors"),
        ("ViTForImageClassification", "image classes"),
    ],
)
def test_a_tiny_model_trains_as_in_torch(class_name, task, tmp_path):
    subject = tiny(class_name, tmp_path / "tiny")
    assert proof_task(subject.converted) == task
    assert statuses(subject) == GOOD


@pytest.mark.parametrize(
    "changes",
    [{"no_decay": (r"(^|/)scale$",)}, {"epsilon": 1e-6}, {"betas": (0.9, 0.9991)}, {"clip_norm": None}],
    ids=["decay-on-biases", "epsilon", "b2", "no-clipping"],
)
def test_other_settings(changes, masked_words):
    before, *_, after = statuses(masked_words, with_changes(SETTINGS, changes))
    assert (before, after) == ("ok", "FAIL")


def test_bias_corrections_in_float32(masked_words, monkeypatch):
    """Optax's own in a run with float32: 1 - b^t, rounded."""
    exact = optimizer._adam

    def rounded(settings):
        inner = exact(settings)

        def update(updates, state, params=None):
            updates, state = inner.update(updates, state, params)
            count = state.count.astype(jnp.float32)
            first, second = (
                (1 - jnp.float32(b) ** count) / -jnp.expm1(state.count * np.log(b)) for b in settings.betas
            )
            return jax.tree.map(lambda u: u / first * jnp.sqrt(second), updates), state

        return optax.GradientTransformation(inner.init, update)

    monkeypatch.setattr(optimizer, "_adam", rounded)
    assert statuses(masked_words) == ["ok", *["FAIL"] * 3]


def test_a_softmax_in_float32(masked_words, monkeypatch):
    monkeypatch.setattr(attention, "at_least_float32", lambda dtype: jnp.float32)
    port_proof.loss_and_gradients.clear_cache()
    assert statuses(masked_words) == ["FAIL"] * 4
    port_proof.loss_and_gradients.clear_cache()


def test_a_word_table_that_is_not_tied(masked_words):
    """A decoder of its own that begins as the table: the loss is the same, and the gradient is not."""
    converted = masked_words.converted
    architecture = converted.architecture._replace(parts=(*converted.architecture.parts, "decoder"))
    words = converted.params["head"]["words"]
    decoder = {"kernel": converted.params["text"]["word"]["embedding"].T}
    head = converted.params["head"] | {"words": words | {"decoder": decoder}}
    untied = dataclasses.replace(converted, architecture=architecture, params=converted.params | {"head": head})
    rows = untied.family.rows
    family = dataclasses.replace(untied.family, rows=lambda _: rows(converted.architecture))
    subject = masked_words._replace(converted=dataclasses.replace(untied, family=family))
    assert statuses(subject) == ["FAIL"] * 4
