"""Masked words and sentence vectors of a ported encoder."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights import own
from vlm_jax.errors import InputError
from vlm_jax.weights.import_folder import read
from vlm_jax.weights.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The tiny BERT with a masked-word head instead of its pooler."""
    folder = tmp_path_factory.mktemp("published") / "bert"
    return read(str(own.write(folder, own.masked_tensors(), architectures=["BertForMaskedLM"])))


@pytest.fixture(scope="module")
def encoder(converted):
    return TextEncoder(converted)


def test_a_vector_is_the_mean_of_the_last_layer(converted, encoder):
    texts = ["is there a circle?", "what", ""]
    vectors = encoder.embed(texts, normalize=False)
    ids, mask = encoder.tokenizer.encode(texts, 12)
    states = np.asarray(converted.module.apply({"params": converted.params}, jnp.asarray(ids), jnp.asarray(mask)).text)
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


def test_masked_words_are_the_likeliest_ones(converted, encoder):
    (guesses,) = encoder.fill_mask("is there a [MASK]?", top=3).masks
    ids, mask = encoder.tokenizer.encode(["is there a [MASK]?"], 16)
    output = converted.module.apply({"params": converted.params}, jnp.asarray(ids), jnp.asarray(mask))
    logits = np.asarray(output.words)[0, 4]
    best = np.argsort(-logits)[:3]
    assert [guess.token for guess in guesses] == [own.WORDS[index] for index in best]
    np.testing.assert_allclose(guesses[0].probability, np.exp(logits - np.logaddexp.reduce(logits))[best[0]], rtol=1e-5)
    assert len(encoder.fill_mask("[MASK] is [MASK]").masks) == 2


def test_rows_of_no_token_are_never_guessed(encoder, tmp_path):
    """The word table may be larger than the tokenizer; a spare row's share is its own, as in transformers."""
    weights, spare = own.masked_tensors(), 6
    for name, value in (("bert.embeddings.word_embeddings.weight", 0.1), ("cls.predictions.bias", 50.0)):
        rows = np.full((spare, *weights[name].shape[1:]), value, np.float32)
        weights[name] = np.concatenate([weights[name], rows])
    about = {"architectures": ["BertForMaskedLM"], "vocab_size": len(own.WORDS) + spare}
    wide = TextEncoder(read(str(own.write(tmp_path / "bert", weights, **about))))
    (guesses,) = wide.fill_mask("is there a [MASK]?", top=len(own.WORDS)).masks
    (narrow,) = encoder.fill_mask("is there a [MASK]?", top=len(own.WORDS)).masks
    assert [guess.token for guess in guesses] == [guess.token for guess in narrow]
    assert 0 < guesses[0].probability < 1e-15
    for top in (0, len(own.WORDS) + 1):
        with pytest.raises(InputError, match=f"top is {top}; expected 1 to {len(own.WORDS)}"):
            wide.fill_mask("a [MASK]", top=top)


def test_a_token_beyond_the_table_is_named(tmp_path):
    folder = own.write(tmp_path / "bert")
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in (*own.WORDS, "spare")), encoding="utf-8")
    with pytest.raises(InputError, match=r"'spare'.*14.*14 rows"):
        TextEncoder(read(str(folder)))


def test_impossible_requests_are_refused(encoder, tmp_path):
    for length in (2, 1, 0, -1):
        with pytest.raises(InputError, match=f"max_length is {length}; expected .* from 3"):
            encoder.embed(["a"], max_length=length)
    with pytest.raises(InputError, match=r"holds no \[MASK\]"):
        encoder.fill_mask("is there a circle?")
    pooled = TextEncoder(read(str(own.write(tmp_path / "bert"))))
    with pytest.raises(InputError, match="without its masked-word head"):
        pooled.fill_mask("a [MASK]")
    folder = own.write(tmp_path / "mute")
    (folder / "vocab.txt").unlink()
    with pytest.raises(InputError, match="no tokenizer lies beside"):
        TextEncoder(read(str(folder)))
