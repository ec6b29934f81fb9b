"""Masked words and sentence vectors of a ported encoder."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights import own
from vlm_jax.errors import InputError
from vlm_jax.weights.ported import read
from vlm_jax.weights.texts import TextEncoder


@pytest.fixture(scope="module")
def ported(tmp_path_factory):
    """The tiny BERT with a masked-word head instead of its pooler."""
    random = np.random.default_rng(1)
    weights = {f"bert.{name}": x for name, x in own.tensors().items() if "pooler" not in name}
    head = "cls.predictions"
    shapes = {
        f"{head}.transform.dense.weight": (16, 16), f"{head}.transform.dense.bias": (16,),
        f"{head}.transform.LayerNorm.weight": (16,), f"{head}.transform.LayerNorm.bias": (16,),
        f"{head}.bias": (len(own.WORDS),),
    }  # fmt: skip
    weights |= {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    folder = tmp_path_factory.mktemp("published") / "bert"
    return read(str(own.write(folder, weights, architectures=["BertForMaskedLM"])))


@pytest.fixture(scope="module")
def encoder(ported):
    return TextEncoder(ported)


def test_a_vector_is_the_mean_of_the_last_layer(ported, encoder):
    texts = ["is there a circle?", "what", ""]
    vectors = encoder.embed(texts, normalize=False)
    ids, mask = encoder.tokenizer.encode(texts, 12)
    states = np.asarray(ported.module.apply({"params": ported.params}, jnp.asarray(ids), jnp.asarray(mask)).text)
    for row, vector in enumerate(vectors):
        np.testing.assert_allclose(vector, states[row][mask[row]].mean(0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(encoder.embed(texts), axis=1), 1, rtol=1e-5)


def test_a_vector_does_not_depend_on_its_company(encoder):
    texts = ["a circle", "is there a circle? what color is the shape?", "the"] * 15  # more than a batch
    together = encoder.embed(texts)
    assert together.shape == (45, 16)
    np.testing.assert_allclose(together[:3], np.concatenate([encoder.embed([text]) for text in texts[:3]]), atol=1e-5)
    np.testing.assert_allclose(together[:3], together[-3:], atol=1e-6)
    assert encoder.embed([]).shape == (0, 0)


def test_masked_words_are_the_likeliest_ones(ported, encoder):
    (guesses,) = encoder.fill_mask("is there a [MASK]?", top=3)
    ids, mask = encoder.tokenizer.encode(["is there a [MASK]?"], 16)
    output = ported.module.apply({"params": ported.params}, jnp.asarray(ids), jnp.asarray(mask))
    logits = np.asarray(output.words)[0, 4]
    best = np.argsort(-logits)[:3]
    assert [guess.token for guess in guesses] == [own.WORDS[index] for index in best]
    np.testing.assert_allclose(guesses[0].probability, np.exp(logits - np.logaddexp.reduce(logits))[best[0]], rtol=1e-5)
    assert len(encoder.fill_mask("[MASK] is [MASK]")) == 2


def test_what_cannot_be_done_is_said(encoder, tmp_path):
    with pytest.raises(InputError, match=r"holds no \[MASK\]"):
        encoder.fill_mask("is there a circle?")
    pooled = TextEncoder(read(str(own.write(tmp_path / "bert"))))
    with pytest.raises(InputError, match="without its masked-word head"):
        pooled.fill_mask("a [MASK]")
    folder = own.write(tmp_path / "mute")
    (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match="no tokenizer lies beside"):
        TextEncoder(read(str(folder)))
