"""The benchmark of loaders runs and leaves what it changes as it was."""

import json

import pytest

from vlm_jax.data import encoding

pytest.importorskip("torch")
pytestmark = pytest.mark.parity
TINY = ["--images", "40", "--file-size", "60", "80", "--size", "32", "--batch", "4", "--batches", "2", "--rounds", "1"]


def test_every_way_is_measured(capsys, monkeypatch):
    from experiments import benchmark_loader

    monkeypatch.setattr(benchmark_loader, "FEATURES", (2, 2, 3))
    monkeypatch.setattr("vlm_jax.allocator.tune_malloc", lambda: None)
    kept = encoding.KEEP_BYTES
    assert benchmark_loader.main([*TINY, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len({row["way"] for row in rows}) == 5 and all(row["cpu_ms"] > 0 for row in rows)
    assert kept == encoding.KEEP_BYTES
