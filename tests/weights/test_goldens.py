"""Ports are exact, without torch: ours in float32 against what the published models said in float64."""

import numpy as np
import pytest

from tests.weights import fixtures
from tests.weights.fixtures import CASES, Fixture
from vlm_jax.weights import import_folder as ports
from vlm_jax.weights import verify
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.verify import converted_outputs

FIXTURES = [fixture for case in CASES for fixture in case.fixtures]


def read(fixture: Fixture, folder) -> ConvertedModel:
    """The fixture, published in a new folder of `folder` and ported."""
    return ports.read(str(fixtures.publish(fixture, folder / str(fixture))))


def outputs_of(converted: ConvertedModel, fixture: Fixture) -> dict[str, np.ndarray]:
    """What the port says on the stored inputs."""
    inputs = fixtures.inputs(fixture.case, fixtures.goldens())
    if fixtures.is_cnn(fixture.case):
        return dict(
            zip(("features", "logits"), verify.run_cnn(converted.module, converted.params, **inputs), strict=True)
        )
    return converted_outputs(converted, inputs)


def scores(converted: ConvertedModel, fixture: Fixture) -> dict[str, float]:
    """How far the port is from each golden output, as a multiple of the bound."""
    start = f"{fixture}/outputs/"
    expected = {name.removeprefix(start): x for name, x in fixtures.goldens().items() if name.startswith(start)}
    outputs = outputs_of(converted, fixture)
    relative_scores = {}
    for name, golden in expected.items():
        seen = ~np.isnan(golden)  # padded positions are NaN on both sides
        output = np.asarray(outputs[name])
        assert output.shape == golden.shape and np.array_equal(~np.isnan(output), seen), name
        relative_scores[name] = score(output[seen], golden[seen]) / BOUND
    return relative_scores


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


@pytest.mark.parametrize(
    "fixture",
    [pytest.param(x, marks=() if x == x.case.fixtures[-1] else pytest.mark.slow) for x in FIXTURES],
    ids=str,
)
def test_a_port_gives_the_published_outputs(fixture, tmp_path):
    fingerprint = fixtures.fingerprint(fixtures.tensors(fixture))
    assert fingerprint == fixtures.goldens()[f"{fixture}/fingerprint"], "numpy draws other weights: make them anew"
    converted = read(fixture, tmp_path)
    assert converted.family.name == fixture.case.family
    assert ("decoder" in converted.architecture.parts) == ("untied" in fixture.case.parts)
    assert (ratios := scores(converted, fixture)) and max(ratios.values()) <= 1, ratios
