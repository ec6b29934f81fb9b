"""Decoding against the whole computation: the cache, the searches, the constraints, and what is drawn."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.config import Decoding, ImageEncoder, Model, TextEncoder
from vlm_jax.decoding import Decoder, Special, Trie
from vlm_jax.errors import InputError
from vlm_jax.models.vlm import VisualLanguageModel

FUSIONS = ("concat", "cross")
WORDS = 6
LENGTH = 11
SPECIAL = Special(begin=0, end=1, pad=2)
SAID = [word for word in range(WORDS) if word != SPECIAL.end]
IMAGE = jax.random.normal(jax.random.key(2), (3, 5, 8))
SETTINGS = Model(
    hidden_size=32,
    num_attention_heads=4,
    num_layers=2,
    intermediate_size=48,
    attention_pattern="prefix",
    head="lm",
    image=ImageEncoder(cnn="features", feature_size=8, max_position_embeddings=8),
    text=TextEncoder(feature_size=24, vocab_size=WORDS, max_position_embeddings=16),
)


def build(fusion, attention_pattern="prefix"):
    """A model with weights large enough that every part of it matters, and its parameters."""
    module = VisualLanguageModel(dataclasses.replace(SETTINGS, fusion=fusion, attention_pattern=attention_pattern), 1)
    ids = jnp.zeros((3, 1, 4), jnp.int32)

    @jax.jit
    def shaken(key):
        params = module.init(key, IMAGE, ids, jnp.ones(ids.shape, bool), method="word_logits")
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(9), len(leaves))
        moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        return structure.unflatten(moved)

    return module, shaken(jax.random.key(0))


@pytest.fixture(scope="module")
def model():
    return build("concat")


@pytest.fixture(scope="module", params=[*((fusion, "prefix") for fusion in FUSIONS), ("concat", "causal")])
def either(request):
    """Each fusion that can caption, and a pattern other than its own."""
    return build(*request.param)


@functools.cache
def compiled(module):
    return jax.jit(module.apply, static_argnames="method")


def whole(model, ids, image=IMAGE, image_mask=None):
    """log p of every next word of texts [I, K, T], nothing cached.

    Texts are filled up to one length, of which the words before see nothing: so few shapes are compiled.
    """
    module, params = model
    length = ids.shape[-1]
    ids = jnp.pad(ids, ((0, 0), (0, 0), (0, LENGTH - length)))
    logits = compiled(module)(
        params, image, ids, jnp.ones(ids.shape, bool), image_mask=image_mask, method="word_logits"
    )
    return jax.nn.log_softmax(logits[:, :, :length])


def decode(model, settings, *, room=6, special=SPECIAL, image=IMAGE, keys=None, **options):
    module, params = model
    return Decoder(module, settings, special, room=room, **options)(params, image, keys=keys)


def texts(decoded, picture):
    """The texts of a picture as tuples of tokens."""
    rows = zip(np.asarray(decoded.ids[picture]), np.asarray(decoded.length[picture]), strict=True)
    return [tuple(ids[:length].tolist()) for ids, length in rows]


def log_probabilities(model, said, picture=0):
    """The sum of log p of each text, from the whole computation; texts of one length at a time."""
    found = {}
    for _, same in itertools.groupby(sorted(said, key=len), key=len):
        same = list(same)
        ids = jnp.array([[(SPECIAL.begin, *text) for text in same]])
        log_p = whole(model, ids, IMAGE[picture : picture + 1])[:, :, :-1]
        sums = jnp.take_along_axis(log_p, ids[..., 1:, None], axis=-1)[0, :, :, 0].sum(-1)
        found |= dict(zip(same, sums.tolist(), strict=True))
    return found


@pytest.mark.parametrize("steps", [(9,), (1,) * 9, (3, 1, 5)], ids=["at once", "one by one", "in pieces"])
def test_the_cache_changes_nothing(either, steps):
    module, params = either
    ids = jax.random.randint(jax.random.key(3), (3, 2, 9), 0, WORDS)
    seen = jnp.array([[True, True, True, True, True], [True, False, True, True, False], [False] * 5])
    apply = compiled(module)
    memory = apply(params, IMAGE, image_mask=seen, method="read_image")
    words, pieces = module.no_words(3, 2, 12), []
    for piece in jnp.split(ids, np.cumsum(steps)[:-1], axis=-1):
        logits, words = apply(params, memory, words, piece, method="next_word_logits")
        pieces.append(jax.nn.log_softmax(logits))
    assert int(words.length) == 9
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=2), whole(either, ids, image_mask=seen), atol=1e-5)


def greedily(model, picture, room):
    """The likeliest word each time, everything computed anew."""
    said = [SPECIAL.begin]
    while len(said) <= room and (len(said) == 1 or said[-1] != SPECIAL.end):
        said.append(int(jnp.argmax(whole(model, jnp.array([[said]]), IMAGE[picture : picture + 1])[0, 0, -1])))
    return tuple(said[1:])


def test_greedy_is_the_likeliest_word_each_time(either):
    decoded = decode(either, Decoding())
    for picture in range(3):
        assert texts(decoded, picture) == [greedily(either, picture, 6)]


def test_a_search_with_one_beam_is_greedy(either):
    greedy, beam = decode(either, Decoding()), decode(either, Decoding(method="beam", num_beams=1))
    assert jnp.array_equal(greedy.ids, beam.ids) and jnp.array_equal(greedy.length, beam.length)
    np.testing.assert_allclose(greedy.token_log_probability, beam.token_log_probability, atol=1e-5)


@pytest.mark.parametrize(("alpha", "early_stopping"), [(0.0, False), (0.8, False), (0.8, True)])
def test_a_wide_search_is_exhaustive(model, alpha, early_stopping):
    """With V^(T-1) beams nothing is ever dropped: the best are those of all texts there are."""
    room = 4
    settings = Decoding(
        method="beam",
        num_beams=WORDS ** (room - 1),
        num_return_sequences=3,
        length_penalty=alpha,
        early_stopping=early_stopping,
    )
    decoded = decode(model, settings, room=room)
    ended = [(*begin, SPECIAL.end) for n in range(room) for begin in itertools.product(SAID, repeat=n)]
    everything = ended + list(itertools.product(SAID, repeat=room))
    for picture in range(3):
        log_p = log_probabilities(model, everything, picture)
        score = {text: log_p[text] / ((5 + len(text)) / 6) ** alpha for text in everything}
        best = sorted(everything, key=lambda text: -score[text])[:3]
        assert texts(decoded, picture) == best
        np.testing.assert_allclose(decoded.score[picture], [score[text] for text in best], atol=1e-5)
        np.testing.assert_allclose(decoded.log_probability[picture], [log_p[text] for text in best], atol=1e-5)


def searched(model, picture, room, settings):
    """A beam search in plain Python: the best texts with their scores; it goes on to the end of the room."""
    count = settings.num_beams

    def penalised(text, log_p):
        return log_p / ((5 + len(text)) / 6) ** settings.length_penalty

    going, ended = [((), 0.0)], []
    for place in range(room):
        prefixes = jnp.array([[(SPECIAL.begin, *text) for text, _ in going]])
        prefixes = jnp.pad(prefixes, ((0, 0), (0, count - len(going)), (0, 0)))
        log_p = np.asarray(whole(model, prefixes, IMAGE[picture : picture + 1])[0, :, -1], np.float64)
        longer = [
            ((*text, word), total + log_p[row, word])
            for row, (text, total) in enumerate(going)
            for word in range(WORDS)
        ]
        longer.sort(key=lambda each: -each[1])
        last = place == room - 1
        over = [text[-1] == SPECIAL.end or last for text, _ in longer]
        ended += [each for each, end in zip(longer[:count], over, strict=False) if end]
        ended = sorted(ended, key=lambda each: -penalised(*each))[:count]
        going = [each for each, end in zip(longer[: 2 * count], over, strict=False) if not end][:count]
        if settings.early_stopping and len(ended) == count:
            break
    return [(text, penalised(text, log_p)) for text, log_p in ended]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_search_is_that_of_plain_python(model, alpha, early_stopping):
    """Which never stops before the room is full, unless told to: so stopping sooner loses nothing."""
    settings = Decoding(
        method="beam", num_beams=3, num_return_sequences=3, length_penalty=alpha, early_stopping=early_stopping
    )
    decoded = decode(model, settings, room=9)
    for picture in range(3):
        best = searched(model, picture, 9, settings)
        assert texts(decoded, picture) == [text for text, _ in best]
        np.testing.assert_allclose(decoded.score[picture], [score for _, score in best], atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        Decoding(),
        Decoding(method="beam", num_beams=4, num_return_sequences=3, length_penalty=1.0),
        Decoding(method="sample", num_return_sequences=3, temperature=2.0, top_k=4, top_p=0.9, no_repeat_ngram_size=2),
    ],
    ids=lambda settings: settings.method,
)
def test_log_probabilities_are_the_models_own(model, settings):
    """Whatever the temperature, the constraints and the ranking were; and best first."""
    decoded = decode(model, settings, keys=jax.random.split(jax.random.key(1), 3))
    for picture in range(3):
        said = texts(decoded, picture)
        expected = log_probabilities(model, said, picture)
        np.testing.assert_allclose(decoded.log_probability[picture], [expected[text] for text in said], atol=1e-5)
        np.testing.assert_allclose(decoded.token_log_probability[picture].sum(-1), decoded.log_probability[picture],
                                   atol=1e-5)  # fmt: skip
        assert np.all(np.diff(decoded.score[picture]) <= 0)


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_a_picture_is_decoded_alike_in_every_batch(model, method):
    settings = Decoding(method=method, num_beams=3, num_return_sequences=1 if method == "greedy" else 3)
    keys = jax.random.split(jax.random.key(1), 3)
    together = decode(model, settings, keys=keys)
    for picture in range(3):
        alone = decode(model, settings, image=IMAGE[picture : picture + 1], keys=keys[picture : picture + 1])
        assert jnp.array_equal(together.ids[picture], alone.ids[0])
        np.testing.assert_allclose(together.log_probability[picture], alone.log_probability[0], atol=1e-5)


def first_words(model, **settings):
    """How often each word came first in many draws, for one picture."""
    count = 4_000
    settings = Decoding(method="sample", num_return_sequences=count, **settings)
    decoded = decode(model, settings, room=1, image=IMAGE[:1], keys=jax.random.split(jax.random.key(4), 1))
    return np.bincount(np.asarray(decoded.ids[0, :, 0]), minlength=WORDS) / count


def test_draws_follow_the_distribution(model):
    log_p = whole(model, jnp.full((1, 1, 1), SPECIAL.begin), IMAGE[:1])[0, 0, 0]
    for temperature in (1.0, 3.0):
        expected = jax.nn.softmax(log_p / temperature)
        # Five standard deviations of a share of 4,000 draws are at most 0.04.
        np.testing.assert_allclose(first_words(model, temperature=temperature), expected, atol=0.04)
    count = 4_000  # and of two words, the second follows the first
    settings = Decoding(method="sample", num_return_sequences=count)
    decoded = decode(model, settings, room=2, image=IMAGE[:1], keys=jax.random.split(jax.random.key(5), 1))
    second = whole(model, jnp.array([[(SPECIAL.begin, word) for word in range(WORDS)]]), IMAGE[:1])[0, :, 1]
    for first in SAID:
        joint = jax.nn.softmax(second[first]) * jnp.exp(log_p[first])
        places = np.asarray(decoded.ids[0])
        shares = np.bincount(places[places[:, 0] == first, 1], minlength=WORDS) / count
        np.testing.assert_allclose(shares, joint, atol=0.04)
    ranked = np.argsort(-log_p)
    drawn = first_words(model, temperature=5.0, top_k=2)
    assert set(np.flatnonzero(drawn)) == set(ranked[:2].tolist())
    kept, total = [], 0.0
    share = np.asarray(jax.nn.softmax(log_p / 5.0))
    for word in ranked.tolist():
        if total < 0.6:
            kept.append(word)
        total += share[word]
    assert set(np.flatnonzero(first_words(model, temperature=5.0, top_p=0.6))) == set(kept)


def test_short_texts_and_special_tokens_are_not_said(model):
    special = SPECIAL._replace(never=(0, 2, 4))
    for method in ("greedy", "beam", "sample"):
        settings = Decoding(method=method, num_beams=3, min_length=3, num_return_sequences=1)
        decoded = decode(model, settings, special=special, keys=jax.random.split(jax.random.key(6), 3))
        for picture in range(3):
            (said,) = texts(decoded, picture)
            assert not {0, 2, 4} & set(said) and SPECIAL.end not in said[:3]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_text_may_end_at_its_least_length(model, method):
    module, params = model
    eager = jax.tree.map(lambda leaf: leaf, params)  # a copy of the dictionaries
    words = eager["params"]["head"]["words"]
    words["bias"] = words["bias"].at[SPECIAL.end].add(50.0)
    decoded = decode((module, eager), Decoding(method=method, num_beams=2, min_length=3))
    for picture in range(3):
        (said,) = texts(decoded, picture)
        assert len(said) == 4 and said[-1] == SPECIAL.end


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("size", [2, 3])
def test_no_run_of_words_comes_twice(model, method, size):
    settings = Decoding(method=method, num_beams=3, no_repeat_ngram_size=size, num_return_sequences=1)
    special = SPECIAL._replace(never=(SPECIAL.end,))
    decoded = decode(model, settings, room=10, special=special, keys=jax.random.split(jax.random.key(6), 3))
    for picture in range(3):
        (said,) = texts(decoded, picture)
        runs = list(zip(*(said[place:] for place in range(size)), strict=False))
        assert len(said) == 10 and len(set(runs)) == len(runs)


@pytest.mark.parity
def test_repeats_are_those_of_transformers():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from transformers import NoRepeatNGramLogitsProcessor

    from vlm_jax.decoding.constraints import repeats

    ids = np.random.default_rng(0).integers(0, 4, (2, 3, 12)).astype(np.int32)
    for size, length in itertools.product((2, 3, 4), range(13)):
        ours = repeats(jnp.asarray(ids), jnp.int32(length), size=size, words=5)
        flat = torch.tensor(ids.reshape(6, 12)[:, :length])
        theirs = NoRepeatNGramLogitsProcessor(size)(flat, torch.zeros(6, 5)).numpy().reshape(2, 3, 5)
        np.testing.assert_array_equal(np.asarray(ours), np.isinf(theirs))


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_a_forced_beginning_is_as_if_it_had_been_said(model, method):
    settings = Decoding(method=method, num_beams=3, num_return_sequences=1)
    decoded = decode(model, settings, prefix=(3, 5, 3), keys=jax.random.split(jax.random.key(6), 3))
    for picture in range(3):
        (said,) = texts(decoded, picture)
        assert said[:3] == (3, 5, 3)
        rest = log_probabilities(model, [said, (3, 5, 3)], picture)
        expected = rest[said] - rest[3, 5, 3]
        np.testing.assert_allclose(decoded.log_probability[picture, 0], expected, atol=1e-5)


CHOICES = ((3,), (3, 4), (3, 4, 5), (5, 5), (4,))


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_only_what_is_in_the_trie_is_said(model, method):
    texts_wanted = 1 if method == "greedy" else 5
    settings = Decoding(method=method, num_beams=5, num_return_sequences=texts_wanted, temperature=5.0)
    trie = Trie.build(CHOICES, end=SPECIAL.end)
    decoded = decode(model, settings, trie=trie, keys=jax.random.split(jax.random.key(6), 3))
    ended = [(*text, SPECIAL.end) for text in CHOICES]
    for picture in range(3):
        said = texts(decoded, picture)
        assert set(said) <= set(ended)
        if method == "beam":  # as many beams as texts: all of them, by probability
            log_p = log_probabilities(model, ended, picture)
            assert said == sorted(ended, key=lambda text: -log_p[text])


def test_a_trie_of_nothing_is_refused():
    with pytest.raises(InputError, match="give at least one"):
        Trie.build([], end=1)


def test_drawing_without_keys_is_refused(model):
    with pytest.raises(InputError, match="needs keys"):
        decode(model, Decoding(method="sample"))


def test_fewer_texts_than_asked_for_are_empty(model):
    trie = Trie.build([(3,), (4, 5)], end=SPECIAL.end)
    decoded = decode(model, Decoding(method="beam", num_beams=4, num_return_sequences=4), trie=trie)
    for picture in range(3):
        said = texts(decoded, picture)
        assert {*said[:2]} == {(3, 1), (4, 5, 1)} and said[2:] == [(), ()]
        assert np.all(decoded.log_probability[picture, 2:] < -1e29)


def test_the_same_shapes_are_compiled_once(model):
    module, params = model
    decoder = Decoder(module, Decoding(method="beam", num_beams=2), SPECIAL, room=4)
    with jax.log_compiles(False):
        for picture in range(3):
            decoder(params, IMAGE[picture : picture + 1])
    assert decoder._decode._cache_size() == 1
