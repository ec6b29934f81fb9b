"""Word vectors of a text encoder for the tokens of another tokenizer: each its own, or the mean of its pieces."""

import jax
import numpy as np
import pytest
from tokenizers.processors import BertProcessing

from tests.weights import own
from vlm_jax.data.special_tokens import MPNET_TOKENS, SPECIAL_TOKENS
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.wordpiece import bert_tokenizer
from vlm_jax.errors import InputError
from vlm_jax.training.initialization import describe, start
from vlm_jax.training.pretrained import tokenizer_source
from vlm_jax.training.word_vectors import vectors_of_tokens
from vlm_jax.trees import flatten

TABLE = "text/word/embedding"
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "circle", "##circle", "the", "a?", "xyz")
"""Tokens of the source in another order, its `circle` as a piece, one of two of its words, one unknown to it."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return own.write(tmp_path_factory.mktemp("published") / "bert")


@pytest.fixture
def tokenizer():
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    return Tokenizer(bert_tokenizer(vocabulary, lower_case=True), "a test's")


def words_config(bert, **changes):
    sizes = {"model.hidden_size": 8, "model.layout.text_feature_size": 16, "model.text.vocab_size": 12}
    return own.config(changes={"init.kind": "words", "init.text": str(bert)} | sizes | changes)


def test_each_token_has_its_vector(bert, tokenizer):
    config = words_config(bert)
    params, record = start(config, fresh := own.fresh(config), (), tokenizer)
    table, source = flatten(params)[TABLE], own.tensors()["embeddings.word_embeddings.weight"]
    of = {word: source[index] for index, word in enumerate(own.WORDS)}
    expected = [of[word] for word in (*VOCABULARY[:5], "circle", "circle", "the")]
    expected += [(of["a"] + of["?"]) / 2, of["[UNK]"], np.zeros(16), np.zeros(16)]
    np.testing.assert_allclose(table, expected, rtol=1e-6)
    for path, leaf in flatten(fresh).items():
        assert path == TABLE or np.array_equal(leaf, flatten(params)[path]), path
    (taken,) = record["sources"]
    assert (taken["setting"], taken["taken"]) == ("init.text", ["text/word"])
    assert any("7 tokens" in line for line in describe(record))


def test_special_tokens_are_matched_by_their_role(tokenizer):
    """MPNet's vocabulary holds BERT's special tokens as words that nobody trained."""
    names = (*MPNET_TOKENS, *SPECIAL_TOKENS, "circle")
    source = bert_tokenizer({token: index for index, token in enumerate(dict.fromkeys(names))}, lower_case=True)
    source.post_processor = BertProcessing(*((token, source.token_to_id(token)) for token in ("</s>", "<s>")))
    vectors = np.random.default_rng(0).normal(size=(source.get_vocab_size(), 4)).astype(np.float32)
    table, _ = vectors_of_tokens(tokenizer, 10, Tokenizer(source, "a test's"), vectors)
    np.testing.assert_array_equal(table[:5], vectors[[source.token_to_id(token) for token in MPNET_TOKENS]])
    np.testing.assert_array_equal(table[5], vectors[source.token_to_id("circle")])


def test_the_tokenizer_is_ones_own(bert):
    assert tokenizer_source(words_config(bert)) is None
    assert tokenizer_source(words_config(bert, **{"model.text.tokenizer": str(bert)})) == str(bert)


def test_sizes_are_checked_before_there_is_a_tokenizer(bert):
    config = words_config(bert, **{"model.layout.text_feature_size": 24})
    with pytest.raises(InputError, match=r"--model\.layout\.text-feature-size 16"):
        start(config, jax.eval_shape(lambda: own.fresh(config)), ())
    config = words_config(bert)
    start(config, jax.eval_shape(lambda: own.fresh(config)), ())


def test_an_image_encoder_has_no_words(tmp_path, bert):
    from tests.weights import fixtures

    source = fixtures.publish(fixtures.BY_NAME["resnet18"].fixtures[0], tmp_path / "resnet")
    config = words_config(source)
    with pytest.raises(InputError, match=r"init\.image"):
        start(config, own.fresh(config), ())
