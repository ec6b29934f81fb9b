"""A proof that cannot fail proves nothing: planted mistakes, each of which the goldens must notice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights.fixtures import BY_NAME
from tests.weights.test_goldens import read, scores
from vlm_jax.models import attention, cnn, mobile_networks
from vlm_jax.settings.changes import with_changes
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights import tables, verify


@pytest.fixture
def nothing_compiled_is_used_again(monkeypatch):
    """A program that was compiled before a function was exchanged would hide the exchange."""
    for name in ("run_encoder", "run_cnn"):
        body = getattr(verify, name).__wrapped__
        again = jax.jit(lambda *inputs, body=body, **named: body(*inputs, **named), static_argnums=0)
        monkeypatch.setattr(verify, name, again)


def worst(converted, fixture):
    """How far the golden outputs are missed, as a multiple of the bound."""
    values = scores(converted, fixture)
    return max(np.inf if np.isnan(value) else value for value in values.values())


@pytest.fixture(
    scope="module", params=["bert_pretraining", "visual_bert_answers", "roberta_masked", "distilbert_masked"]
)
def port(request, tmp_path_factory):
    """A port and its fixture, which agree before anything is planted."""
    fixture = BY_NAME[request.param].fixtures[-1]
    converted = read(fixture, tmp_path_factory.mktemp("port"))
    assert worst(converted, fixture) <= 1
    return converted, fixture


def with_settings(converted, **changes):
    model = with_changes(converted.architecture.model, changes)
    return dataclasses.replace(converted, architecture=converted.architecture._replace(model=model))


def with_leaves(converted, change):
    """The port with another mapping of paths to arrays."""
    return dataclasses.replace(converted, params=unflatten(change(dict(flatten(converted.params)))))


def exchanged(leaves, first, second):
    """Every pair of leaves that differ by these parts of their paths, the one for the other."""
    pairs = {path: path.replace(first, second) for path in leaves if first in path}
    assert pairs
    return leaves | {path: leaves[other] for path, other in pairs.items()} | {o: leaves[p] for p, o in pairs.items()}


def test_the_other_gelu(port):
    """The tanh approximation for the exact one, and the other way round."""
    converted, fixture = port
    other = {"gelu": "gelu_new", "gelu_new": "gelu"}[converted.architecture.model.hidden_act]
    assert worst(with_settings(converted, hidden_act=other), fixture) > 1


def test_epsilon(tmp_path):
    """1e-6 for 1e-12 shows where a variance is small: weights of deviation 0.02."""
    fixture = BY_NAME["bert_pretraining"].fixtures[0]
    converted = read(fixture, tmp_path)
    assert worst(converted, fixture) <= 1 < worst(with_settings(converted, layer_norm_eps=1e-6), fixture)


def test_swapped_norms(port):
    converted, fixture = port
    swapped = with_leaves(converted, lambda leaves: exchanged(leaves, "/attention_norm/", "/output_norm/"))
    assert worst(swapped, fixture) > 1


def test_swapped_query_and_key(port):
    converted, fixture = port
    swapped = with_leaves(converted, lambda leaves: exchanged(leaves, "/query/", "/key/"))
    assert worst(swapped, fixture) > 1


@pytest.mark.usefixtures("nothing_compiled_is_used_again")
def test_wrong_head_axis(port, monkeypatch):
    """Heads and the width of a head, one for the other."""
    converted, fixture = port
    split_heads = attention._split_heads

    def wrong(settings, x):
        right = split_heads(settings, x)
        shape = right.shape
        return right.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2)

    monkeypatch.setattr(attention, "_split_heads", wrong)
    assert worst(converted, fixture) > 1


@pytest.mark.parametrize("name", ["bert_pretraining", "visual_bert_answers", "roberta_masked"])
def test_forgotten_token_type(name, tmp_path):
    """The row that every text has is left out."""
    fixture = BY_NAME[name].fixtures[-1]
    table = "text/segment/embedding"
    converted = with_leaves(read(fixture, tmp_path), lambda leaves: leaves | {table: np.zeros_like(leaves[table])})
    assert worst(converted, fixture) > 1


@pytest.mark.usefixtures("nothing_compiled_is_used_again")
def test_ignored_padding(port, monkeypatch):
    converted, fixture = port
    attend = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *x, mask, **more: attend(*x, mask=jnp.ones_like(mask), **more))
    assert worst(converted, fixture) > 1


@pytest.mark.parametrize("part", ["attention/query", "attention/value", "attention/output"])
def test_a_transposed_square_matrix(port, part):
    converted, fixture = port
    path = f"trunk/layer_0/{part}/kernel"
    assert worst(with_leaves(converted, lambda leaves: leaves | {path: leaves[path].T}), fixture) > 1


def test_positions_off_by_one(port):
    """RoBERTa's first position is such a trap."""
    converted, fixture = port
    shifted = with_leaves(
        converted,
        lambda leaves: leaves | {"text/position/embedding": np.roll(leaves["text/position/embedding"], 1, axis=0)},
    )
    assert worst(shifted, fixture) > 1


def test_the_norm_of_the_embeddings_is_forgotten(port):
    converted, fixture = port
    scale = "embed/norm/scale"
    assert worst(with_leaves(converted, lambda leaves: leaves | {scale: np.ones_like(leaves[scale])}), fixture) > 1


# CNNs


@pytest.mark.parametrize("name", ["resnet18", "torchvision_resnet18", "mobilenet_v2", "efficientnet_lite0"])
def test_another_epsilon_of_batch_norm(name, tmp_path, monkeypatch):
    fixture = BY_NAME[name].fixtures[-1]
    fold = tables.folded_norm
    other = {1e-5: 1e-3, 1e-3: 1e-5}
    monkeypatch.setattr(tables, "folded_norm", lambda epsilon: fold(other[epsilon]))
    assert worst(read(fixture, tmp_path), fixture) > 1


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_forgotten_running_mean(name, tmp_path, monkeypatch):
    fixture = BY_NAME[name].fixtures[-1]
    fold = tables.folded_norm

    def forgetful(epsilon):
        right = fold(epsilon)
        return right._replace(
            forward=lambda weight, bias, mean, variance: right.forward(weight, bias, 0 * mean, variance)
        )

    monkeypatch.setattr(tables, "folded_norm", forgetful)
    assert worst(read(fixture, tmp_path), fixture) > 1


@pytest.mark.usefixtures("nothing_compiled_is_used_again")
def test_symmetric_padding_for_tensorflows(tmp_path, monkeypatch):
    fixture = BY_NAME["efficientnet_lite0"].fixtures[-1]
    converted = read(fixture, tmp_path)
    layout = mobile_networks.layout_of(converted.architecture.model)
    symmetric = layout._replace(
        padding="symmetric", blocks=tuple(block._replace(padding="symmetric") for block in layout.blocks)
    )
    monkeypatch.setattr(cnn, "layout_of", lambda _: symmetric)
    assert worst(converted, fixture) > 1
