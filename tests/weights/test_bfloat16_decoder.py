"""bfloat16 of tiny models: a decoder with cross-attention is compared, and NaN is no proof."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is the oracle")
pytest.importorskip("transformers", reason="transformers is the oracle")

from vlm_jax.training.tiny_models import write_tiny
from vlm_jax.weights import bfloat16

pytestmark = pytest.mark.parity


def test_a_decoder_with_cross_attention_is_compared_and_nan_is_red(tmp_path, monkeypatch):
    """The rounding of a model this small says nothing; its float32 does."""
    write_tiny("BertLMHeadModel", {"is_decoder": True, "add_cross_attention": True}, tmp_path / "tiny")
    first = next(bfloat16.verify_bfloat16(str(tmp_path / "tiny")))
    assert (first.name, first.status) == ("float32, all layers", "ok")
    run = bfloat16.converted_outputs

    def with_nan(converted, inputs, dtype):
        outputs = run(converted, inputs, dtype)
        return outputs | {"layer 2": np.full_like(outputs["layer 2"], np.nan)}

    monkeypatch.setattr(bfloat16, "converted_outputs", with_nan)
    assert next(bfloat16.verify_bfloat16(str(tmp_path / "tiny"))).status == "FAIL"
