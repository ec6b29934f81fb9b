"""Where cells of image tokens start: which other cells they take in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import ImageTokens
from vlm_jax.config.quantizers import FSQ
from vlm_jax.models.cnn import ImageTokenEmbedding
from vlm_jax.settings.changes import with_changes

MODEL = Architecture(hidden_size=8, image=ImageTokens(quantizer=FSQ(levels=(3, 4, 3))))


@pytest.mark.parametrize(
    ("attention_pattern", "reach"),
    [("text_to_image", 1), ("autoregressive", 0)],
)
def test_a_token_takes_in_its_neighbours(attention_pattern, reach):
    module = ImageTokenEmbedding(with_changes(MODEL, {"attention_pattern": attention_pattern}))
    one = jnp.asarray(np.random.default_rng(0).integers(0, 36, (1, 5, 6)))
    variables = module.init(jax.random.key(0), one)
    other = one.at[0, 2, 3].set(36)  # hidden
    changed = np.abs(module.apply(variables, one) - module.apply(variables, other))[0].max(-1) > 1e-6
    expected = np.zeros((5, 6), bool)
    expected[2 - reach : 3 + reach, 3 - reach : 4 + reach] = True
    np.testing.assert_array_equal(changed, expected)
