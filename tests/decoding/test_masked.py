"""Masked parallel decoding against models whose logits are known."""

import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vlm_jax.config.image_generation import ImageGeneration, Masked, TrainedImageTokenizer
from vlm_jax.decoding import ImageTokenDecoder, mask_tokens, masked, token_log_probabilities
from vlm_jax.decoding.guidance import Guided
from vlm_jax.decoding.prefilled import PrefilledPrompts
from vlm_jax.models.kv_cache import Prefix
from vlm_jax.models.vlm import VisualLanguageModel

CODEBOOK_SIZE, GRID, WORDS = 7, (3, 4), 5
NUM_TOKENS = math.prod(GRID)
EMPTY = (np.array([1, 2, 0]), np.array([True, True, False]))


class Known(VisualLanguageModel):
    """Logits by the tokens of a grid, and by the prompt's second word: `of(tokens [I, gh, gw], word [I])`."""

    of: Callable = None

    def setup(self):
        """No parameters."""

    def prefill_prompt(self, ids, mask):
        assert ids.shape[1] == mask.shape[1] == 1
        return Prefix([], ids[:, 0, 1])

    def image_token_logits(self, prefix, tokens):
        return self.of(tokens, prefix.mask)[:, None]


ARCHITECTURE = ImageGeneration(image_tokenizer=TrainedImageTokenizer(run=Path("none"))).architecture


def known(of):
    return Known(ARCHITECTURE, CODEBOOK_SIZE, of=of)


def prefilled(of, words):
    """A model that has encoded prompts with these words."""
    return PrefilledPrompts(known(of), {}, Prefix([], jnp.array(words)), GRID, CODEBOOK_SIZE)


def decoder(of, num_candidates=1, **settings):
    options = {"grid": GRID, "codebook_size": CODEBOOK_SIZE, "empty": EMPTY, "num_candidates": num_candidates}
    return ImageTokenDecoder(known(of), Masked(**settings), **options)


def prompts(*words):
    ids = np.tile(EMPTY[0], (len(words), 1))
    ids[:, 1] = words
    return ids, np.tile(EMPTY[1], (len(words), 1))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def wanted(tokens, word):
    """Cell g of a prompt w is (g + w) % 7, surely."""
    sure = (jnp.arange(NUM_TOKENS)[None] + word[:, None]) % CODEBOOK_SIZE
    return 50.0 * jax.nn.one_hot(sure, CODEBOOK_SIZE)


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_certain_tokens_are_generated_in_any_number_of_steps(steps, guidance_scale):
    sampled = decoder(wanted, num_decoding_steps=steps, guidance_scale=guidance_scale)({}, *prompts(3, 4), keys(2))
    expected = (np.arange(NUM_TOKENS)[None] + np.array([[3], [4]])) % CODEBOOK_SIZE
    np.testing.assert_array_equal(sampled, expected.reshape(2, *GRID))


@pytest.mark.parametrize("mask_schedule", ["cosine", "linear", "square"])
def test_the_schedule_sets_the_masked_tokens_after_each_step(mask_schedule):
    """A cell's logits say how many cells were hidden when it was drawn: an image token a step, as there are few
    steps."""
    steps = 5

    def counting(tokens, word):
        is_masked = jnp.sum(tokens == CODEBOOK_SIZE, axis=(1, 2))
        left = jnp.array([NUM_TOKENS, *after[:-1]])
        number = jnp.argmax(is_masked[:, None] == left[None], axis=-1)
        return jnp.broadcast_to(
            50.0 * jax.nn.one_hot(number, CODEBOOK_SIZE)[:, None], (len(tokens), NUM_TOKENS, CODEBOOK_SIZE)
        )

    share = {"cosine": lambda t: math.cos(math.pi / 2 * t), "linear": lambda t: 1 - t, "square": lambda t: 1 - t * t}
    after = [math.floor(share[mask_schedule]((n + 1) / steps) * NUM_TOKENS + 1e-4) for n in range(steps)]
    sampled = decoder(counting, num_decoding_steps=steps, mask_schedule=mask_schedule, guidance_scale=1.0)(
        {}, *prompts(0), keys(1)
    )
    in_step = np.bincount(np.asarray(sampled).ravel(), minlength=steps)
    assert in_step.tolist() == [before - left for before, left in zip([NUM_TOKENS, *after], after, strict=False)]


def test_the_most_confident_tokens_are_kept_first():
    """Without chance: what a cell shows is kept if its logit is high, else drawn again by the later step's logits."""

    def unsure(tokens, word):
        first = jnp.all(tokens == CODEBOOK_SIZE, axis=(1, 2))[:, None]
        height = jnp.where(jnp.arange(NUM_TOKENS) < 4, 30.0, 4.0)[None]
        code = jnp.where(first, 1, 2)
        return height[..., None] * jax.nn.one_hot(jnp.broadcast_to(code, (len(tokens), NUM_TOKENS)), CODEBOOK_SIZE)

    settings = {"num_decoding_steps": 2, "mask_schedule": "linear", "guidance_scale": 1.0, "choice_temperature": 0.0}
    sampled = np.asarray(decoder(unsure, **settings)({}, *prompts(0), keys(1))).ravel()
    assert (sampled[:4] == 1).all() and (sampled == 2).sum() > 2


def test_chance_among_the_surest_falls_with_the_steps(monkeypatch):
    """After one step of two half of the noise is left: 0.5 for cells that lack log 2 of being sure, not enough."""

    def unsure(tokens, word):
        first = jnp.all(tokens == CODEBOOK_SIZE, axis=(1, 2))[:, None, None]
        sure, even = (
            50.0 * jax.nn.one_hot(1, CODEBOOK_SIZE),
            50.0 * (jax.nn.one_hot(1, CODEBOOK_SIZE) + jax.nn.one_hot(3, CODEBOOK_SIZE)),
        )
        begin = jnp.where((jnp.arange(NUM_TOKENS) < NUM_TOKENS // 2)[:, None], sure[None], even[None])
        later = jnp.broadcast_to(50.0 * jax.nn.one_hot(2, CODEBOOK_SIZE), (NUM_TOKENS, CODEBOOK_SIZE))
        return jnp.where(first, begin[None], later[None])

    noise = (jnp.arange(NUM_TOKENS) >= NUM_TOKENS // 2).astype(jnp.float32)
    monkeypatch.setattr(jax.random, "gumbel", lambda key, shape: noise)
    monkeypatch.setattr(jax.random, "categorical", lambda key, logits: jnp.argmax(logits, axis=-1))
    settings = {"num_decoding_steps": 2, "mask_schedule": "linear", "guidance_scale": 1.0, "choice_temperature": 1.0}
    sampled = np.asarray(decoder(unsure, **settings)({}, *prompts(0), keys(1))).ravel()
    assert sampled.tolist() == [1] * (NUM_TOKENS // 2) + [2] * (NUM_TOKENS // 2)


def test_guidance_goes_from_without_the_prompt_towards_with_it():
    def of(tokens, word):
        logit = jnp.where(word == EMPTY[0][1], 1.0, 3.0)[:, None, None]
        return jnp.broadcast_to(logit, (len(tokens), NUM_TOKENS, CODEBOOK_SIZE))

    guided = Guided(prefilled(of, [5, 4, EMPTY[0][1], EMPTY[0][1]]), 3.0)
    logits = guided.logits(jnp.zeros((2, *GRID), int))
    assert guided.num_images == len(logits) == 2
    np.testing.assert_allclose(logits, 1 + 3.0 * (3 - 1), rtol=1e-6)


def flat(tokens, word):
    return jnp.zeros((len(tokens), NUM_TOKENS, CODEBOOK_SIZE))


def test_images_depend_on_the_key_alone():
    generate = decoder(flat, num_decoding_steps=4, guidance_scale=2.0)
    together = np.asarray(generate({}, *prompts(1, 2, 3, 4), keys(4)))
    for row in range(4):
        alone = generate({}, *prompts(row + 1), keys(4)[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])
    assert len(np.unique(together.reshape(4, -1), axis=0)) == 4
    assert len(np.unique(together)) == CODEBOOK_SIZE and (together < CODEBOOK_SIZE).all()


def test_each_step_samples_anew():
    one, four = (
        np.asarray(decoder(flat, num_decoding_steps=steps, guidance_scale=1.0)({}, *prompts(1), keys(1)))
        for steps in (1, 4)
    )
    assert (one != four).any()


def test_low_temperature_takes_the_likeliest():
    def leaning(tokens, word):
        return jnp.broadcast_to(jnp.arange(CODEBOOK_SIZE) / 4.0, (len(tokens), NUM_TOKENS, CODEBOOK_SIZE))

    cold = decoder(leaning, num_decoding_steps=3, temperature=0.01, guidance_scale=1.0)({}, *prompts(0), keys(1))
    warm = decoder(leaning, num_decoding_steps=3, temperature=3.0, guidance_scale=1.0)({}, *prompts(0), keys(1))
    assert (np.asarray(cold) == CODEBOOK_SIZE - 1).all() and len(np.unique(warm)) > 2


@pytest.mark.parametrize("blocks", [0.0, 0.5, 1.0])
def test_the_mask_depends_on_the_key_alone(monkeypatch, blocks):
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", blocks)
    settings = {"schedule": "cosine", "mask_id": CODEBOOK_SIZE}
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, CODEBOOK_SIZE, (400, *GRID)))
    shown, is_masked = mask_tokens(tokens, keys(400), **settings)
    assert bool((shown[is_masked] == CODEBOOK_SIZE).all()) and bool((shown[~is_masked] == tokens[~is_masked]).all())
    counts = np.asarray(is_masked.sum((1, 2)))
    assert counts.min() >= 1 and counts.max() == NUM_TOKENS
    assert counts.mean() / NUM_TOKENS == pytest.approx(
        2 / math.pi + 0.5 / NUM_TOKENS, abs=0.04
    )  # the mean cosine, rounded up
    often = np.asarray(is_masked).mean(0)
    if blocks == 0:
        assert often.std() < 0.05  # no place is hidden more often
    assert often.min() > 0.3 and often.max() < 0.95  # and every one, be it in a corner, is hidden and shown
    part = mask_tokens(tokens[7:9], keys(400)[7:9], **settings)
    np.testing.assert_array_equal(part[1], is_masked[7:9])


def test_blocks_mask_what_lies_together_in_half_of_the_images(monkeypatch):
    """A block of cells has less of an edge to what is shown than cells anywhere."""
    tokens = jnp.zeros((600, 8, 8), jnp.int32)

    def edges():
        _, is_masked = mask_tokens(tokens, keys(600), schedule="cosine", mask_id=CODEBOOK_SIZE)
        is_masked = np.asarray(is_masked)
        some = is_masked[(is_masked.sum((1, 2)) >= 16) & (is_masked.sum((1, 2)) <= 40)]  # with an inside
        return (some[:, 1:] != some[:, :-1]).sum((1, 2)) + (some[:, :, 1:] != some[:, :, :-1]).sum((1, 2))

    half = edges()
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", 0.0)
    anywhere = edges()
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", 1.0)
    together = edges()
    assert anywhere.min() > together.max()  # no image can be taken for one of the others
    assert np.mean(half <= together.max()) == pytest.approx(0.5, abs=0.1)


def test_blocks_lie_around_one_to_three_places(monkeypatch):
    """A disc around each, of which some run into each other: never more pieces than places, and often fewer."""
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", 1.0)
    _, is_masked = mask_tokens(jnp.zeros((600, 8, 8), jnp.int32), keys(600), schedule="cosine", mask_id=CODEBOOK_SIZE)
    few = [each for each in np.asarray(is_masked) if each.sum() <= 12]
    pieces = [ndimage.label(each)[1] for each in few]
    assert set(pieces) == {1, 2, 3}
    assert np.mean(np.array(pieces) == 1) > 0.25, "there is one place in a third of them"


def halves(tokens, word):
    """Left and right half each show 1 or 2 as a whole, unless an image token says which: parallel draws do not
    agree."""
    left = jnp.arange(NUM_TOKENS) % GRID[1] < GRID[1] // 2
    either = jnp.log(jnp.array([0.0, 0.5, 0.5, 0, 0, 0, 0]) + 1e-9)
    shown = tokens.reshape(len(tokens), 1, NUM_TOKENS)
    side = left[:, None] == left[None]
    ones, twos = (jnp.sum((shown == code) & side[None], axis=-1) for code in (1, 2))
    return either[None, None] + 3.0 * jnp.stack([ones * 0, ones, twos, *[ones * 0] * 4], axis=-1)


def agreement(tokens):
    """The share of image tokens that are what most of their half are."""
    ones = np.asarray(tokens == 1).reshape(-1, GRID[0], 2, GRID[1] // 2).mean((1, 3))
    return np.maximum(ones, 1 - ones).mean(1)


def scored(of, tokens):
    """Log-probabilities of the image tokens of whole images, given the rest."""
    model = prefilled(of, [1] * len(tokens))
    return token_log_probabilities(jax.jit(lambda x: masked.pseudo_likelihood_logits(model, x))(tokens), tokens)


def test_the_likeliest_candidate_is_kept():
    """Of images drawn in one step, whose image tokens do not know of each other, the one whose image tokens fit
    together best."""
    one, many = (decoder(halves, num_decoding_steps=1, guidance_scale=1.0, num_candidates=count) for count in (1, 16))
    single, best = one({}, *prompts(*[1] * 40), keys(40)), many({}, *prompts(*[1] * 40), keys(40))
    assert best.shape == single.shape
    likely = [jnp.sum(scored(halves, tokens), axis=-1) for tokens in (single, best)]
    assert float(jnp.mean(likely[1])) > float(jnp.mean(likely[0])) + 5
    assert agreement(best).mean() > agreement(single).mean() + 0.05
    alone = many({}, *prompts(1), keys(40)[7:8])
    np.testing.assert_array_equal(alone[0], best[7])


def test_refinement_samples_every_token_anew():
    """Once a round, an eighth at a time: a cell shows how many were hidden when it was drawn, all of them at first."""

    def counting(tokens, word):
        is_masked = jnp.sum(tokens == CODEBOOK_SIZE, axis=(1, 2))
        code = jnp.where(is_masked == NUM_TOKENS, 6, is_masked)[:, None]
        return 50.0 * jax.nn.one_hot(jnp.broadcast_to(code, (len(tokens), NUM_TOKENS)), CODEBOOK_SIZE)

    first, sampled = (
        decoder(counting, num_decoding_steps=1, num_refinement_rounds=n)({}, *prompts(1, 2), keys(2)) for n in (0, 1)
    )
    assert np.array_equal(first, np.full((2, *GRID), 6))
    shares = [-(-(NUM_TOKENS - part) // masked.REFINEMENT_PARTS) for part in range(masked.REFINEMENT_PARTS)]
    for grid in np.asarray(sampled):
        assert sorted(grid.ravel()) == sorted(size for size in shares for _ in range(size))
    assert not np.array_equal(sampled[0], sampled[1]), "every image's eighths are its own"


def test_refinement_makes_tokens_agree(monkeypatch):
    """Those of a half that were drawn at the same time did not know of each other."""
    monkeypatch.setattr(masked, "REFINEMENT_TEMPERATURE", 1.0)
    settings = {"num_decoding_steps": 1, "guidance_scale": 1.0}
    found = [decoder(halves, num_refinement_rounds=n, **settings)({}, *prompts(*[1] * 40), keys(40)) for n in (0, 1, 3)]
    none, one, three = (agreement(tokens).mean() for tokens in found)
    assert none < 0.8 and one > none + 0.1 and three > 0.97
    alone = decoder(halves, num_refinement_rounds=3, **settings)({}, *prompts(1), keys(40)[7:8])
    np.testing.assert_array_equal(alone[0], found[2][7])
    monkeypatch.setattr(masked, "REFINEMENT_TEMPERATURE", 50.0)
    hot = decoder(halves, num_refinement_rounds=3, **settings)({}, *prompts(*[1] * 40), keys(40))
    assert np.isin(hot, (1, 2)).mean() < 0.5 < np.isin(found[2], (1, 2)).mean()


def test_an_image_is_scored_a_quarter_at_a_time():
    """By hand, with logits that say how many image tokens were hidden, and none of a cell's neighbours with it."""
    seen = []

    def of(tokens, word):
        jax.debug.callback(lambda is_masked: seen.append(np.asarray(is_masked)), tokens == CODEBOOK_SIZE)
        return jnp.broadcast_to(jnp.arange(CODEBOOK_SIZE) / 2.0, (len(tokens), NUM_TOKENS, CODEBOOK_SIZE))

    tokens = np.random.default_rng(3).integers(0, CODEBOOK_SIZE, (2, *GRID))
    found = scored(of, tokens)
    jax.effects_barrier()
    logits = np.arange(CODEBOOK_SIZE) / 2.0
    np.testing.assert_allclose(found, (tokens / 2.0 - np.log(np.exp(logits).sum())).reshape(2, -1), rtol=1e-5)
    assert np.array_equal(np.sum(seen, axis=0), np.ones((2, *GRID)))  # each once
    for is_masked in seen:
        rows, columns = np.nonzero(is_masked[0])
        apart = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))
        assert (apart[~np.eye(len(rows), dtype=bool)] >= 2).all()
