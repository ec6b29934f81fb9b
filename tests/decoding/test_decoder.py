"""Decoding against the whole computation: the cache, the searches, the constraints, and what is drawn."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import random_parameters
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.captioning import Beam, Greedy, Sample
from vlm_jax.config.encoders import Features
from vlm_jax.decoding import Decoder, Special, Trie
from vlm_jax.decoding import decoder as decoder_module
from vlm_jax.decoding.beam_search import beam_search
from vlm_jax.errors import InputError
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes
from vlm_jax.trees import flatten

FUSIONS = ("concat", "cross")
WORDS = 6
LENGTH = 11
SPECIAL = Special(begin=0, end=1, pad=2)
TOKENS = [word for word in range(WORDS) if word != SPECIAL.end]
IMAGE = jax.random.normal(jax.random.key(2), (3, 5, 8))
SETTINGS = Architecture(
    hidden_size=32,
    num_attention_heads=4,
    num_layers=2,
    intermediate_size=48,
    attention_pattern="prefix",
    head="lm",
    image=Features(feature_size=8),
    max_image_positions=8,
    text_feature_size=24,
    vocab_size=WORDS,
    max_position_embeddings=16,
)


def decoding(method="greedy", **settings):
    """The decoding method of a name, with those settings that it has."""
    kind = {"greedy": Greedy, "sample": Sample, "beam": Beam}[method]
    return kind(**{name: value for name, value in settings.items() if name in kind.model_fields})


def build(fusion, attention_pattern="prefix", **changes):
    """A model with weights large enough that every part of it matters, and its parameters."""
    changes |= {"fusion": fusion, "attention_pattern": attention_pattern}
    module = VisualLanguageModel(with_changes(SETTINGS, changes), 1)
    ids = jnp.zeros((3, 1, 4), jnp.int32)
    params = random_parameters(module.init, IMAGE, ids, jnp.ones(ids.shape, bool), std=0.3)
    return module, jax.tree.map(jnp.asarray, params)


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
        params, image, ids, jnp.ones(ids.shape, bool), image_mask=image_mask, method="task_logits"
    )
    return jax.nn.log_softmax(logits[:, :, :length])


@functools.cache
def decoder(module, settings, special, max_tokens, **options):
    """A decoder, compiled once for all tests."""
    return Decoder(module, settings, special, max_tokens=max_tokens, **options)


def decode(model, settings, *, max_tokens=6, special=SPECIAL, image=IMAGE, keys=None, **options):
    module, params = model
    make = decoder.__wrapped__ if "trie" in options else decoder  # a trie is arrays, which have no hash
    return make(module, settings, special, max_tokens, **options)(params, image, keys=keys)


def texts(decoded, image):
    """The texts of an image as tuples of tokens."""
    rows = zip(np.asarray(decoded.ids[image]), np.asarray(decoded.length[image]), strict=True)
    return [tuple(ids[:length].tolist()) for ids, length in rows]


def log_probabilities(model, generated, image=0):
    """The sum of log p of each text, from the whole computation; texts of one length at a time."""
    found = {}
    for _, same in itertools.groupby(sorted(generated, key=len), key=len):
        same = list(same)
        ids = jnp.array([[(SPECIAL.begin, *text) for text in same]])
        log_p = whole(model, ids, IMAGE[image : image + 1])[:, :, :-1]
        sums = jnp.take_along_axis(log_p, ids[..., 1:, None], axis=-1)[0, :, :, 0].sum(-1)
        found |= dict(zip(same, sums.tolist(), strict=True))
    return found


@pytest.mark.parametrize("steps", [(9,), (1,) * 9, (3, 1, 5)], ids=["at once", "one by one", "in pieces"])
def test_the_cache_changes_nothing(either, steps):
    module, params = either
    ids = jax.random.randint(jax.random.key(3), (3, 2, 9), 0, WORDS)
    seen = jnp.array([[True, True, True, True, True], [True, False, True, True, False], [False] * 5])
    apply = compiled(module)
    prefix = apply(params, IMAGE, image_mask=seen, method="prefill_image")
    words, pieces = module.empty_cache(3, 2, 12), []
    for piece in jnp.split(ids, np.cumsum(steps)[:-1], axis=-1):
        logits, words = apply(params, prefix, words, piece, method="next_token_logits")
        pieces.append(jax.nn.log_softmax(logits))
    assert int(words[0].length) == 9
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=2), whole(either, ids, image_mask=seen), atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_cache_holds_keys_after_their_norm(fusion):
    module, params = model = build(fusion, use_qk_norm=True)
    plain, _ = build(fusion)
    ids = jax.random.randint(jax.random.key(3), (3, 2, 9), 0, WORDS)
    prefix = compiled(module)(params, IMAGE, method="prefill_image")
    logits, cache = compiled(module)(params, prefix, module.empty_cache(3, 2, 12), ids, method="next_token_logits")
    np.testing.assert_allclose(jax.nn.log_softmax(logits), whole(model, ids), atol=1e-5)
    without = compiled(plain)(params, IMAGE, ids, jnp.ones(ids.shape, bool), method="task_logits")
    assert np.abs(logits - without).max() > 0.1
    scales = [leaf for path, leaf in flatten(params).items() if "key_norm/scale" in path]
    assert len(scales) == {"concat": 2, "cross": 6}[fusion]
    assert cache[0].key.shape == (3, 2, 4, 12, 8)


def greedily(model, image, max_tokens):
    """The likeliest word each time, everything computed anew."""
    generated = [SPECIAL.begin]
    while len(generated) <= max_tokens and (len(generated) == 1 or generated[-1] != SPECIAL.end):
        generated.append(int(jnp.argmax(whole(model, jnp.array([[generated]]), IMAGE[image : image + 1])[0, 0, -1])))
    return tuple(generated[1:])


def test_greedy_is_the_likeliest_word_each_time(either):
    decoded = decode(either, decoding())
    for image in range(3):
        assert texts(decoded, image) == [greedily(either, image, 6)]


def test_a_search_with_one_beam_is_greedy(model):
    greedy, beam = decode(model, decoding()), decode(model, decoding(method="beam", num_beams=1))
    assert jnp.array_equal(greedy.ids, beam.ids) and jnp.array_equal(greedy.length, beam.length)
    np.testing.assert_allclose(greedy.token_log_probability, beam.token_log_probability, atol=1e-5)


@pytest.mark.parametrize(("alpha", "early_stopping"), [(0.0, "never"), (0.8, True)])
def test_a_wide_search_is_exhaustive(model, alpha, early_stopping):
    """With V^(T-1) beams nothing is ever dropped: the best are those of all texts there are."""
    max_tokens = 4
    settings = decoding(
        method="beam",
        num_beams=WORDS ** (max_tokens - 1),
        num_return_sequences=3,
        length_penalty=alpha,
        early_stopping=early_stopping,
    )
    decoded = decode(model, settings, max_tokens=max_tokens)
    ended = [(*begin, SPECIAL.end) for n in range(max_tokens) for begin in itertools.product(TOKENS, repeat=n)]
    everything = ended + list(itertools.product(TOKENS, repeat=max_tokens))
    for image in range(3):
        log_p = log_probabilities(model, everything, image)
        score = {text: log_p[text] / len(text) ** alpha for text in everything}
        best = sorted(everything, key=lambda text: -score[text])[:3]
        assert texts(decoded, image) == best
        np.testing.assert_allclose(decoded.score[image], [score[text] for text in best], atol=1e-5)
        np.testing.assert_allclose(decoded.log_probability[image], [log_p[text] for text in best], atol=1e-5)


def searched(model, image, max_tokens, settings):
    """A beam search in plain Python: the best texts with their scores; it goes on to the end of the room."""
    count = settings.num_beams

    def penalised(text, log_p):
        return log_p / len(text) ** settings.length_penalty

    going, ended = [((), 0.0)], []
    for place in range(max_tokens):
        prefixes = jnp.array([[(SPECIAL.begin, *text) for text, _ in going]])
        prefixes = jnp.pad(prefixes, ((0, 0), (0, count - len(going)), (0, 0)))
        log_p = np.asarray(whole(model, prefixes, IMAGE[image : image + 1])[0, :, -1], np.float64)
        longer = [
            ((*text, word), total + log_p[row, word])
            for row, (text, total) in enumerate(going)
            for word in range(WORDS)
        ]
        longer.sort(key=lambda each: -each[1])
        last = place == max_tokens - 1
        over = [text[-1] == SPECIAL.end or last for text, _ in longer]
        ended += [each for each, end in zip(longer[:count], over, strict=False) if end]
        ended = sorted(ended, key=lambda each: -penalised(*each))[:count]
        going = [each for each, end in zip(longer[: 2 * count], over, strict=False) if not end][:count]
        if settings.early_stopping is True and len(ended) == count:
            break
    return [(text, penalised(text, log_p)) for text, log_p in ended]


@pytest.mark.parametrize(("alpha", "early_stopping"), [(1.0, "never"), (3.0, True), (-0.5, "never")])
def test_a_search_is_that_of_plain_python(model, alpha, early_stopping):
    """Which never stops before the room is full, unless told to: so stopping sooner loses nothing."""
    settings = decoding(
        method="beam", num_beams=3, num_return_sequences=3, length_penalty=alpha, early_stopping=early_stopping
    )
    decoded = decode(model, settings, max_tokens=9)
    for image in range(3):
        best = searched(model, image, 9, settings)
        assert texts(decoded, image) == [text for text, _ in best]
        np.testing.assert_allclose(decoded.score[image], [score for _, score in best], atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        decoding(),
        decoding(method="beam", num_beams=4, num_return_sequences=3, length_penalty=1.0),
        decoding(method="sample", num_return_sequences=3, temperature=2.0, top_k=4, top_p=0.9, no_repeat_ngram_size=2),
    ],
    ids=lambda settings: settings.kind,
)
def test_log_probabilities_are_the_models_own(model, settings):
    """Whatever the temperature, the constraints and the ranking were; and best first."""
    decoded = decode(model, settings, keys=jax.random.split(jax.random.key(1), 3))
    for image in range(3):
        generated = texts(decoded, image)
        expected = log_probabilities(model, generated, image)
        np.testing.assert_allclose(decoded.log_probability[image], [expected[text] for text in generated], atol=1e-5)
        np.testing.assert_allclose(decoded.token_log_probability[image].sum(-1), decoded.log_probability[image],
                                   atol=1e-5)  # fmt: skip
        assert np.all(np.diff(decoded.score[image]) <= 0)


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_decoding_does_not_depend_on_the_batch(model, method):
    settings = decoding(method=method, num_beams=3, num_return_sequences=1 if method == "greedy" else 3)
    keys = jax.random.split(jax.random.key(1), 3)
    together = decode(model, settings, keys=keys)
    for image in range(3):
        alone = decode(model, settings, image=IMAGE[image : image + 1], keys=keys[image : image + 1])
        assert jnp.array_equal(together.ids[image], alone.ids[0])
        np.testing.assert_allclose(together.log_probability[image], alone.log_probability[0], atol=1e-5)


def first_words(model, **settings):
    """How often each word came first in many draws, for one image."""
    count = 4_000
    settings = decoding(method="sample", num_return_sequences=count, **settings)
    decoded = decode(model, settings, max_tokens=1, image=IMAGE[:1], keys=jax.random.split(jax.random.key(4), 1))
    return np.bincount(np.asarray(decoded.ids[0, :, 0]), minlength=WORDS) / count


def test_samples_follow_the_distribution(model):
    log_p = whole(model, jnp.full((1, 1, 1), SPECIAL.begin), IMAGE[:1])[0, 0, 0]
    for temperature in (1.0, 3.0):
        expected = jax.nn.softmax(log_p / temperature)
        # Five standard deviations of a share of 4,000 draws are at most 0.04.
        np.testing.assert_allclose(first_words(model, temperature=temperature), expected, atol=0.04)
    count = 4_000  # and of two words, the second follows the first
    settings = decoding(method="sample", num_return_sequences=count)
    decoded = decode(model, settings, max_tokens=2, image=IMAGE[:1], keys=jax.random.split(jax.random.key(5), 1))
    second = whole(model, jnp.array([[(SPECIAL.begin, word) for word in range(WORDS)]]), IMAGE[:1])[0, :, 1]
    for first in TOKENS:
        joint = jax.nn.softmax(second[first]) * jnp.exp(log_p[first])
        places = np.asarray(decoded.ids[0])
        shares = np.bincount(places[places[:, 0] == first, 1], minlength=WORDS) / count
        np.testing.assert_allclose(shares, joint, atol=0.04)
    ranked = np.argsort(-log_p)
    sampled = first_words(model, temperature=5.0, top_k=2)
    assert set(np.flatnonzero(sampled)) == set(ranked[:2].tolist())
    kept, total = [], 0.0
    share = np.asarray(jax.nn.softmax(log_p / 5.0))
    for word in ranked.tolist():
        if total < 0.6:
            kept.append(word)
        total += share[word]
    assert set(np.flatnonzero(first_words(model, temperature=5.0, top_p=0.6))) == set(kept)


def test_short_texts_and_special_tokens_are_not_generated(model):
    special = SPECIAL._replace(never=(0, 2, 4))
    for method in ("greedy", "beam", "sample"):
        settings = decoding(method=method, num_beams=3, min_length=4, num_return_sequences=1)
        decoded = decode(model, settings, special=special, keys=jax.random.split(jax.random.key(6), 3))
        for image in range(3):
            (generated,) = texts(decoded, image)
            assert not {0, 2, 4} & set(generated) and SPECIAL.end not in generated[:3]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_text_may_end_at_its_least_length(model, method):
    module, params = model
    eager = jax.tree.map(lambda leaf: leaf, params)  # a copy of the dictionaries
    words = eager["params"]["head"]["words"]
    words["bias"] = words["bias"].at[SPECIAL.end].add(50.0)
    decoded = decode((module, eager), decoding(method=method, num_beams=2, min_length=4))
    for image in range(3):
        (generated,) = texts(decoded, image)
        assert len(generated) == 4 and generated[-1] == SPECIAL.end


@pytest.mark.parametrize(("method", "size"), [("greedy", 2), ("beam", 3), ("sample", 2)])
def test_no_run_of_words_comes_twice(model, method, size):
    settings = decoding(method=method, num_beams=3, no_repeat_ngram_size=size, num_return_sequences=1)
    special = SPECIAL._replace(never=(SPECIAL.end,))
    decoded = decode(model, settings, max_tokens=10, special=special, keys=jax.random.split(jax.random.key(6), 3))
    for image in range(3):
        (generated,) = texts(decoded, image)
        runs = list(zip(*(generated[place:] for place in range(size)), strict=False))
        assert len(generated) == 10 and len(set(runs)) == len(runs)


@pytest.mark.parity
def test_repeats_are_those_of_transformers():
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from transformers import NoRepeatNGramLogitsProcessor

    from vlm_jax.decoding.constraints import repeats

    ids = np.random.default_rng(0).integers(0, 4, (2, 3, 12)).astype(np.int32)
    for size, length in itertools.product((2, 3, 4), range(13)):
        ours = repeats(jnp.asarray(ids), jnp.int32(length), size=size, words=5)
        flat = torch.tensor(ids.reshape(6, 12)[:, :length])
        target = NoRepeatNGramLogitsProcessor(size)(flat, torch.zeros(6, 5)).numpy().reshape(2, 3, 5)
        np.testing.assert_array_equal(np.asarray(ours), np.isinf(target))


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_a_forced_prefix_scores_as_a_generated_one(model, method):
    settings = decoding(method=method, num_beams=3, num_return_sequences=1, length_penalty=1.0)
    decoded = decode(model, settings, prefix=(3, 5, 3), keys=jax.random.split(jax.random.key(6), 3))
    for image in range(3):
        (generated,) = texts(decoded, image)
        assert generated[:3] == (3, 5, 3)
        rest = log_probabilities(model, [generated, (3, 5, 3)], image)
        expected = rest[generated] - rest[3, 5, 3]
        np.testing.assert_allclose(decoded.log_probability[image, 0], expected, atol=1e-5)
        new_tokens = len(generated) - 3 if method == "beam" else 1  # the length penalty leaves the prefix out
        np.testing.assert_allclose(decoded.score[image, 0], expected / new_tokens, atol=1e-5)


CHOICES = ((3,), (3, 4), (3, 4, 5), (5, 5), (4,))


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_only_texts_in_the_trie_are_generated(model, method):
    texts_wanted = 1 if method == "greedy" else 5
    settings = decoding(method=method, num_beams=5, num_return_sequences=texts_wanted, temperature=5.0)
    trie = Trie.build(CHOICES, end=SPECIAL.end)
    decoded = decode(model, settings, trie=trie, keys=jax.random.split(jax.random.key(6), 3))
    ended = [(*text, SPECIAL.end) for text in CHOICES]
    for image in range(3):
        generated = texts(decoded, image)
        assert set(generated) <= set(ended)
        if method == "beam":  # as many beams as texts: all of them, by probability
            log_p = log_probabilities(model, ended, image)
            assert generated == sorted(ended, key=lambda text: -log_p[text])


def test_a_trie_of_nothing_is_refused():
    with pytest.raises(InputError, match="give at least one"):
        Trie.build([], end=1)


def test_sampling_without_keys_is_refused(model):
    with pytest.raises(InputError, match="needs keys"):
        decode(model, decoding(method="sample"))


def test_missing_texts_are_empty(model):
    trie = Trie.build([(3,), (4, 5)], end=SPECIAL.end)
    decoded = decode(model, decoding(method="beam", num_beams=4, num_return_sequences=4), trie=trie)
    for image in range(3):
        generated = texts(decoded, image)
        assert {*generated[:2]} == {(3, 1), (4, 5, 1)} and generated[2:] == [(), ()]
        assert np.all(decoded.log_probability[image, 2:] < -1e29)


def test_the_same_shapes_are_compiled_once(model, monkeypatch):
    module, params = model
    traced = []
    monkeypatch.setattr(decoder_module, "beam_search", lambda *inputs: traced.append(1) or beam_search(*inputs))
    decoder = Decoder(module, decoding(method="beam", num_beams=2), SPECIAL, max_tokens=4)
    for image in range(3):
        decoder(params, IMAGE[image : image + 1])
    assert len(traced) == 1
