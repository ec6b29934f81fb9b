"""A run on cached images is the run that decodes them, bit for bit, and the next run decodes nothing."""

import jax
import numpy as np
import pytest

from vlm_jax.data import encoding
from vlm_jax.data.cached_images import CachedImages
from vlm_jax.settings.changes import with_changes


@pytest.fixture
def config(feature_config):
    return with_changes(feature_config, {"data.stored_views": 0, "image.flip": True, "optimizer.frozen": ()})


def test_a_run_is_the_same_with_and_without_a_cache(config, start_run, monkeypatch):
    cached, plain = start_run(config), start_run(with_changes(config, {"data.cache_gigabytes": 0}))
    assert isinstance(cached.task.encode.cached, CachedImages) and plain.task.encode.cached is None
    results = [trainer.run() for trainer in (cached, plain)]
    assert results[0]["metrics"] == results[1]["metrics"]
    for a, b in zip(jax.tree.leaves(cached.state), jax.tree.leaves(plain.state), strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(encoding, "decode_image", lambda *_, **__: pytest.fail("decoded again"))
    again = start_run(config)
    assert list(map(again.task.encode, again.train)) and next(again.loader)


def test_a_run_of_less_than_a_pass_caches_no_training_image(config, start_run):
    config = with_changes(config, {"training.steps": 1, "training.batch_images": 4})
    trainer = start_run(config)
    assert len(trainer.task.encode.cached.store) == len(trainer.validation)
    assert next(trainer.loader).batch.image.shape == (4, 8, 8, 3)
