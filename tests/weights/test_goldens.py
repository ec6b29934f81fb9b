"""Ports are exact, without torch: ours in float32 against what the published models said in float64."""

from functools import partial

import jax
import numpy as np
import pytest

from tests.weights import fixtures
from tests.weights.fixtures import CASES, Fixture
from vlm_jax.weights import ported as ports
from vlm_jax.weights.ported import Ported
from vlm_jax.weights.verify import BOUND, CNN_BOUND, our_outputs, score

FIXTURES = [fixture for case in CASES for fixture in case.fixtures]


@partial(jax.jit, static_argnums=0)
def run_cnn(module, params, pixels):
    return module.apply({"params": params}, pixels)


def read(fixture: Fixture, folder) -> Ported:
    """The fixture, published in a new folder of `folder` and ported."""
    return ports.read(str(fixtures.publish(fixture, folder / str(fixture))))


def outputs_of(ported: Ported, fixture: Fixture) -> dict[str, np.ndarray]:
    """What the port says on the stored inputs."""
    inputs = fixtures.inputs(fixture.case, fixtures.goldens())
    if fixtures.is_cnn(fixture.case):
        return dict(zip(("features", "logits"), run_cnn(ported.module, ported.params, **inputs), strict=True))
    return our_outputs(ported, inputs)


def scores(ported: Ported, fixture: Fixture) -> dict[str, float]:
    """How far the port is from each golden output, as a multiple of the bound."""
    start = f"{fixture}/outputs/"
    expected = {name.removeprefix(start): x for name, x in fixtures.goldens().items() if name.startswith(start)}
    ours = outputs_of(ported, fixture)
    bound = CNN_BOUND if fixtures.is_cnn(fixture.case) else BOUND
    found = {}
    for name, golden in expected.items():
        seen = ~np.isnan(golden)  # padded positions are NaN on both sides
        mine = np.asarray(ours[name])
        assert mine.shape == golden.shape and np.array_equal(~np.isnan(mine), seen), name
        found[name] = score(mine[seen], golden[seen]) / bound
    return found


def test_the_goldens_are_those_of_the_cases():
    """Every fixture has what its parts say, and nothing is stored that no case reads."""
    stored = {name.rsplit("/outputs/")[0] for name in fixtures.goldens() if "/outputs/" in name}
    assert stored == {str(fixture) for fixture in FIXTURES}
    parts = {"words": "masked words", "pairs": "sentence pairs", "answers": "answers"}
    for fixture in FIXTURES:
        start = f"{fixture}/outputs/"
        names = {name.removeprefix(start) for name in fixtures.goldens() if name.startswith(start)}
        if fixtures.is_cnn(fixture.case):
            assert names == {"features", "logits"}
            continue
        expected = {"embeddings", *(f"layer {index + 1}" for index in range(fixtures.LAYERS))}
        expected |= {name for part, name in parts.items() if part in fixture.case.parts}
        assert names == expected | ({"pooled"} if fixture.case.parts == ("pooler",) else set())


@pytest.mark.parametrize("fixture", FIXTURES, ids=str)
def test_a_port_gives_the_published_outputs(fixture, tmp_path):
    fingerprint = fixtures.fingerprint(fixtures.tensors(fixture))
    assert fingerprint == fixtures.goldens()[f"{fixture}/fingerprint"], "numpy draws other weights: make them anew"
    ported = read(fixture, tmp_path)
    assert ported.family.name == fixture.case.family
    assert ("decoder" in ported.architecture.parts) == ("untied" in fixture.case.parts)
    assert (found := scores(ported, fixture)) and max(found.values()) <= 1, found
