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

from experiments import port
from vlm_jax.errors import InputError
from vlm_jax.models import attention
from vlm_jax.settings.changes import with_changes
from vlm_jax.training import optimizer, port_proof, tiny_models
from vlm_jax.training.port_proof import SETTINGS, compare_gradients, full_proof, tiny_proof
from vlm_jax.training.proof_task import proof_task
from vlm_jax.weights.converted_model import convert
from vlm_jax.weights.families import CLASSES, FAMILIES
from vlm_jax.weights.proof_subject import ProofSubject
from vlm_jax.weights.source import open_source

pytestmark = pytest.mark.parity


def tiny(class_name, folder, **config):
    """A tiny model of a class of transformers, as the subject of a proof."""
    from vlm_jax.training.tiny_models import write_tiny

    write_tiny(class_name, config, folder)
    source = open_source(str(folder))
    return ProofSubject(convert(source), source, class_name, folder)


@pytest.fixture(scope="module")
def masked_words(tmp_path_factory):
    return tiny("BertForMaskedLM", tmp_path_factory.mktemp("tiny") / "bert")


def statuses(subject, settings=SETTINGS, **options):
    shutil.rmtree(subject.folder / "trained", ignore_errors=True)  # the reference is loaded anew: it was trained
    return [check.status for check in tiny_proof(subject, proof_task(subject.converted), settings, **options)]


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


CROSS = {"is_decoder": True, "add_cross_attention": True}
STAGES = {"hidden_sizes": [8, 12], "depths": [2, 1], "num_stages": 2}


FIRST_STEPS = [
    ("Dinov2ForImageClassification", {}),
    ("CLIPForImageClassification", {}),
    ("ConvNextForImageClassification", {}),
    ("ResNetForImageClassification", {}),
    pytest.param("EfficientNetForImageClassification", {}, marks=pytest.mark.slow),
    pytest.param("MobileNetV2ForImageClassification", {}, marks=pytest.mark.slow),
    ("ViTForImageClassification", {"num_labels": 1}),
    ("BertForSequenceClassification", {"num_labels": 1}),
    ("BertLMHeadModel", CROSS),
]


@pytest.mark.parametrize(
    ("class_name", "config"),
    FIRST_STEPS,
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_the_first_step_is_that_of_torch(class_name, config, tmp_path, monkeypatch):
    """Image encoders, heads of one class and a decoder with cross-attention."""
    small = {name: tiny_models.FAMILY[name] | STAGES for name in ("resnet", "convnext")}
    monkeypatch.setattr(tiny_models, "FAMILY", tiny_models.FAMILY | small)
    assert statuses(tiny(class_name, tmp_path / "tiny", **config), snapshots=(1,)) == ["ok"] * 2


def test_image_families_that_are_listed_as_trained_are_proven_here():
    """Text families are in tests/training/test_text_port_proof.py."""
    listed = {f.name for f in FAMILIES.values() if "training" in f.proven and "classifier" in f.heads}
    proven = {CLASSES[case[0]].name for case in FIRST_STEPS if isinstance(case[0], str)}
    assert listed == proven & {f.name for f in FAMILIES.values() if "classifier" in f.heads}


def test_a_tiny_model_is_proven_at_the_size_of_its_position_table(tmp_path):
    subject = tiny("Dinov2ForImageClassification", tmp_path / "tiny")
    architecture = subject.converted.architecture
    assert architecture.input.size == architecture.model.image_size == (16, 16)


def test_nan_is_no_proof(masked_words, monkeypatch):
    trained = port_proof.train

    def with_nan(*arguments):
        result = trained(*arguments)
        leaves = jax.tree.leaves(result.snapshots[1])
        values = [jnp.full_like(leaf, jnp.nan) if leaf is leaves[-1] else leaf for leaf in leaves]
        return result._replace(snapshots={1: jax.tree.unflatten(jax.tree.structure(result.snapshots[1]), values)})

    monkeypatch.setattr(port_proof, "train", with_nan)
    assert statuses(masked_words, snapshots=(1,)) == ["ok", "FAIL"]


@pytest.mark.parametrize(
    ("rate", "changes", "factor", "status"),
    [
        (1e-3, {}, 1.0, "ok"),
        (1e-3, {"betas": (0.9, 0.9)}, 1.0, "FAIL"),
        (30.0, {}, 1.0, "not compared"),
        (30.0, {}, np.nan, "FAIL"),
    ],
    ids=["as-in-torch", "another-b2", "collapse", "nan"],
)
def test_losses_are_held_to_what_torch_holds_in_float32(rate, changes, factor, status, masked_words, monkeypatch):
    """At a rate where rounding alone moves torch's own training beyond the bound, ours says nothing."""
    trained = port_proof.train

    def planted(module, task, params, batches, settings, steps):
        result = trained(module, task, params, batches, with_changes(settings, changes), steps)
        return result._replace(losses=[loss * factor for loss in result.losses])

    monkeypatch.setattr(port_proof, "LOSSES_32", {rate: 1e-5})
    monkeypatch.setattr(port_proof, "train", planted)
    shutil.rmtree(masked_words.folder / "trained", ignore_errors=True)
    *_, check = full_proof(masked_words, "masked words", steps=20)
    assert check.status == status


@pytest.mark.parametrize(
    ("ours", "references", "status"),
    [([1.0, 2.0], [1.0, 2.0], "ok"), ([0.0, 0.0], [0.0, 0.0], "FAIL"), ([1.0, np.nan], [1.0, 2.0], "FAIL")],
    ids=["equal", "all-zero", "nan"],
)
def test_gradients_that_prove_nothing(ours, references, status):
    named = [{name: np.array(x) for name, x in zip("ab", values, strict=True)} for values in (ours, references)]
    assert compare_gradients("gradients", *named, 1e-3, 1e-11).status == status


@pytest.mark.parametrize("steps", ["0", "-1"])
def test_steps_are_counted_from_one(steps, tmp_path):
    with pytest.raises(InputError, match="steps"):
        port.main(["verify", str(tmp_path), "--training", "--steps", steps])


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
