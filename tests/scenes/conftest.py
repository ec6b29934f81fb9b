"""Scenes of both sides, of few and many objects, with and without held-out pairs."""

import numpy as np
import pytest

from vlm_jax.scenes.sampling import ALL_PAIRS, Sampling, sample_scene


@pytest.fixture(scope="session")
def scenes():
    random = np.random.default_rng(5)
    every = Sampling(first=ALL_PAIRS, others=ALL_PAIRS)
    samplings = (Sampling(), every, Sampling(size=128), Sampling(fewest=3, most=6))
    return [sample_scene(random, sampling) for sampling in samplings for _ in range(50)]
