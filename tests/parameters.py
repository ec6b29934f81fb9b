"""Parameters for tests, drawn by numpy from the shapes alone: nothing is compiled to make them."""

import jax
import numpy as np


def random_parameters(init, *inputs, std=0.2, seed=0, **options):
    """What `init(key, *inputs, **options)` returns, in normal noise: weights so large that every part matters.

    Scales are around one. Nothing is zero, one or equal to something else by accident.
    """
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), *inputs, **options))
    random = np.random.default_rng(seed)

    def noise(path, leaf):
        values = random.normal(0, std, leaf.shape).astype(leaf.dtype)
        return values + np.float32(jax.tree_util.keystr(path).endswith("['scale']"))

    return jax.tree_util.tree_map_with_path(noise, shapes)
