"""Masked parallel decoding against models whose logits are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vlm_jax.config import Generation
from vlm_jax.decoding import CodeDecoder, code_log_probabilities, hide, masked

CODES, GRID, WORDS = 7, (3, 4), 5
CELLS = math.prod(GRID)
EMPTY = (np.array([1, 2, 0]), np.array([True, True, False]))


class Known:
    """Logits by what a cell shows, and by the prompt's second word: `of(codes [I, gh, gw], word [I]) -> [I, G, V]`."""

    def __init__(self, of):
        self.of = of

    def apply(self, params, *given, method):
        if method == "read_prompt":
            ids, mask = given
            assert ids.shape[1] == mask.shape[1] == 1
            return ids[:, 0, 1]
        assert method == "prompted_code_logits"
        word, codes = given
        return self.of(codes, word)[:, None]


def decoder(of, **settings):
    return CodeDecoder(Known(of), Generation(**settings), grid=GRID, codes=CODES, empty=EMPTY)


def prompts(*words):
    ids = np.tile(EMPTY[0], (len(words), 1))
    ids[:, 1] = words
    return ids, np.tile(EMPTY[1], (len(words), 1))


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def wanted(codes, word):
    """Cell g of a prompt w is (g + w) % 7, surely."""
    sure = (jnp.arange(CELLS)[None] + word[:, None]) % CODES
    return 50.0 * jax.nn.one_hot(sure, CODES)


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_what_is_sure_is_drawn_in_any_number_of_steps(steps, guidance):
    drawn = decoder(wanted, num_decoding_steps=steps, guidance=guidance)({}, *prompts(3, 4), keys(2))
    expected = (np.arange(CELLS)[None] + np.array([[3], [4]])) % CODES
    np.testing.assert_array_equal(drawn, expected.reshape(2, *GRID))


@pytest.mark.parametrize("mask_schedule", ["cosine", "linear", "square"])
def test_so_many_codes_are_hidden_after_each_step_as_the_schedule_says(mask_schedule):
    """A cell's logits say how many cells were hidden when it was drawn: a code a step, as there are few steps."""
    steps = 5

    def counting(codes, word):
        hidden = jnp.sum(codes == CODES, axis=(1, 2))
        left = jnp.array([CELLS, *after[:-1]])
        number = jnp.argmax(hidden[:, None] == left[None], axis=-1)
        return jnp.broadcast_to(50.0 * jax.nn.one_hot(number, CODES)[:, None], (len(codes), CELLS, CODES))

    share = {"cosine": lambda t: math.cos(math.pi / 2 * t), "linear": lambda t: 1 - t, "square": lambda t: 1 - t * t}
    after = [math.floor(share[mask_schedule]((n + 1) / steps) * CELLS + 1e-4) for n in range(steps)]
    drawn = decoder(counting, num_decoding_steps=steps, mask_schedule=mask_schedule, guidance=0.0)(
        {}, *prompts(0), keys(1)
    )
    in_step = np.bincount(np.asarray(drawn).ravel(), minlength=steps)
    assert in_step.tolist() == [before - left for before, left in zip([CELLS, *after], after, strict=False)]


def test_the_surest_codes_are_kept_first():
    """Without chance: what a cell shows is kept if its logit is high, else drawn again by the later step's logits."""

    def unsure(codes, word):
        first = jnp.all(codes == CODES, axis=(1, 2))[:, None]
        height = jnp.where(jnp.arange(CELLS) < 4, 30.0, 4.0)[None]
        code = jnp.where(first, 1, 2)
        return height[..., None] * jax.nn.one_hot(jnp.broadcast_to(code, (len(codes), CELLS)), CODES)

    settings = {"num_decoding_steps": 2, "mask_schedule": "linear", "guidance": 0.0, "choice_temperature": 0.0}
    drawn = np.asarray(decoder(unsure, **settings)({}, *prompts(0), keys(1))).ravel()
    assert (drawn[:4] == 1).all() and (drawn == 2).sum() > 2


def test_chance_among_the_surest_falls_with_the_steps(monkeypatch):
    """After one step of two half of the noise is left: 0.5 for cells that lack log 2 of being sure, not enough."""

    def unsure(codes, word):
        first = jnp.all(codes == CODES, axis=(1, 2))[:, None, None]
        sure, even = 50.0 * jax.nn.one_hot(1, CODES), 50.0 * (jax.nn.one_hot(1, CODES) + jax.nn.one_hot(3, CODES))
        begin = jnp.where((jnp.arange(CELLS) < CELLS // 2)[:, None], sure[None], even[None])
        later = jnp.broadcast_to(50.0 * jax.nn.one_hot(2, CODES), (CELLS, CODES))
        return jnp.where(first, begin[None], later[None])

    noise = (jnp.arange(CELLS) >= CELLS // 2).astype(jnp.float32)
    monkeypatch.setattr(jax.random, "gumbel", lambda key, shape: noise)
    monkeypatch.setattr(jax.random, "categorical", lambda key, logits: jnp.argmax(logits, axis=-1))
    settings = {"num_decoding_steps": 2, "mask_schedule": "linear", "guidance": 0.0, "choice_temperature": 1.0}
    drawn = np.asarray(decoder(unsure, **settings)({}, *prompts(0), keys(1))).ravel()
    assert drawn.tolist() == [1] * (CELLS // 2) + [2] * (CELLS // 2)


def test_guidance_goes_from_without_the_prompt_towards_with_it():
    seen = []

    def of(codes, word):
        return jnp.where(word[:, None, None] == EMPTY[0][1], 1.0, 3.0) * jnp.ones((len(codes), CELLS, CODES))

    class Watched(CodeDecoder):
        def guided(self, logits):
            found = super().guided(logits)
            jax.debug.callback(lambda value: seen.append(float(value)), found[0, 0, 0])
            return found

    settings = Generation(num_decoding_steps=3, guidance=2.0)
    drawn = Watched(Known(of), settings, grid=GRID, codes=CODES, empty=EMPTY)({}, *prompts(5), keys(1))
    drawn.block_until_ready()
    jax.effects_barrier()
    np.testing.assert_allclose(seen, [3 + 2.0 * (3 - 1)] * 3, rtol=1e-6)


def flat(codes, word):
    return jnp.zeros((len(codes), CELLS, CODES))


def test_a_key_alone_decides_what_is_drawn():
    draw = decoder(flat, num_decoding_steps=4, guidance=1.0)
    together = np.asarray(draw({}, *prompts(1, 2, 3, 4), keys(4)))
    for row in range(4):
        alone = draw({}, *prompts(row + 1), keys(4)[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])
    assert len(np.unique(together.reshape(4, -1), axis=0)) == 4
    assert len(np.unique(together)) == CODES and (together < CODES).all()


def test_each_step_draws_anew():
    one, four = (
        np.asarray(decoder(flat, num_decoding_steps=steps, guidance=0.0)({}, *prompts(1), keys(1))) for steps in (1, 4)
    )
    assert (one != four).any()


def test_low_temperature_takes_the_likeliest():
    def leaning(codes, word):
        return jnp.broadcast_to(jnp.arange(CODES) / 4.0, (len(codes), CELLS, CODES))

    cold = decoder(leaning, num_decoding_steps=3, temperature=0.01, guidance=0.0)({}, *prompts(0), keys(1))
    warm = decoder(leaning, num_decoding_steps=3, temperature=3.0, guidance=0.0)({}, *prompts(0), keys(1))
    assert (np.asarray(cold) == CODES - 1).all() and len(np.unique(warm)) > 2


@pytest.mark.parametrize("blocks", [0.0, 0.5, 1.0])
def test_a_random_share_is_hidden_by_key_alone(monkeypatch, blocks):
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", blocks)
    settings = {"schedule": "cosine", "mask_code": CODES}
    codes = jnp.asarray(np.random.default_rng(0).integers(0, CODES, (400, *GRID)))
    shown, hidden = hide(codes, keys(400), **settings)
    assert bool((shown[hidden] == CODES).all()) and bool((shown[~hidden] == codes[~hidden]).all())
    counts = np.asarray(hidden.sum((1, 2)))
    assert counts.min() >= 1 and counts.max() == CELLS
    assert counts.mean() / CELLS == pytest.approx(2 / math.pi + 0.5 / CELLS, abs=0.04)  # the mean cosine, rounded up
    often = np.asarray(hidden).mean(0)
    if blocks == 0:
        assert often.std() < 0.05  # no place is hidden more often
    assert often.min() > 0.3 and often.max() < 0.95  # and every one, be it in a corner, is hidden and shown
    part = hide(codes[7:9], keys(400)[7:9], **settings)
    np.testing.assert_array_equal(part[1], hidden[7:9])


def test_blocks_hide_what_lies_together_in_half_of_the_pictures(monkeypatch):
    """A block of cells has less of an edge to what is shown than cells anywhere."""
    codes = jnp.zeros((600, 8, 8), jnp.int32)

    def edges():
        _, hidden = hide(codes, keys(600), schedule="cosine", mask_code=CODES)
        hidden = np.asarray(hidden)
        some = hidden[(hidden.sum((1, 2)) >= 16) & (hidden.sum((1, 2)) <= 40)]  # with an inside
        return (some[:, 1:] != some[:, :-1]).sum((1, 2)) + (some[:, :, 1:] != some[:, :, :-1]).sum((1, 2))

    half = edges()
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", 0.0)
    anywhere = edges()
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", 1.0)
    together = edges()
    assert anywhere.min() > together.max()  # no picture can be taken for one of the others
    assert np.mean(half <= together.max()) == pytest.approx(0.5, abs=0.1)


def test_blocks_lie_around_one_to_three_places(monkeypatch):
    """A disc around each, of which some run into each other: never more pieces than places, and often fewer."""
    monkeypatch.setattr(masked, "SHARE_OF_BLOCKS", 1.0)
    _, hidden = hide(jnp.zeros((600, 8, 8), jnp.int32), keys(600), schedule="cosine", mask_code=CODES)
    few = [each for each in np.asarray(hidden) if each.sum() <= 12]
    pieces = [ndimage.label(each)[1] for each in few]
    assert set(pieces) == {1, 2, 3}
    assert np.mean(np.array(pieces) == 1) > 0.25, "there is one place in a third of them"


def halves(codes, word):
    """Left and right half each show 1 or 2 as a whole, unless a code says which: parallel draws do not agree."""
    left = jnp.arange(CELLS) % GRID[1] < GRID[1] // 2
    either = jnp.log(jnp.array([0.0, 0.5, 0.5, 0, 0, 0, 0]) + 1e-9)
    shown = codes.reshape(len(codes), 1, CELLS)
    side = left[:, None] == left[None]
    ones, twos = (jnp.sum((shown == code) & side[None], axis=-1) for code in (1, 2))
    return either[None, None] + 3.0 * jnp.stack([ones * 0, ones, twos, *[ones * 0] * 4], axis=-1)


def agreement(codes):
    """The share of codes that are what most of their half are."""
    ones = np.asarray(codes == 1).reshape(-1, GRID[0], 2, GRID[1] // 2).mean((1, 3))
    return np.maximum(ones, 1 - ones).mean(1)


def judged(of, codes):
    """Log-probabilities of the codes of whole pictures, given the rest."""
    draw = decoder(of)
    prompt = jnp.ones(len(codes), int)
    return code_log_probabilities(jax.jit(lambda x: masked.logits(draw, {}, prompt, x))(codes), codes)


def test_the_likeliest_candidate_is_kept():
    """Of pictures drawn in one step, whose codes do not know of each other, the one whose codes fit together best."""
    one, many = (decoder(halves, num_decoding_steps=1, guidance=0.0, num_candidates=count) for count in (1, 16))
    single, best = one({}, *prompts(*[1] * 40), keys(40)), many({}, *prompts(*[1] * 40), keys(40))
    assert best.shape == single.shape
    likely = [jnp.sum(judged(halves, codes), axis=-1) for codes in (single, best)]
    assert float(jnp.mean(likely[1])) > float(jnp.mean(likely[0])) + 5
    assert agreement(best).mean() > agreement(single).mean() + 0.05
    alone = many({}, *prompts(1), keys(40)[7:8])
    np.testing.assert_array_equal(alone[0], best[7])


def test_revisions_draw_every_code_anew():
    """Once a round, an eighth at a time: a cell shows how many were hidden when it was drawn, all of them at first."""

    def counting(codes, word):
        hidden = jnp.sum(codes == CODES, axis=(1, 2))
        code = jnp.where(hidden == CELLS, 6, hidden)[:, None]
        return 50.0 * jax.nn.one_hot(jnp.broadcast_to(code, (len(codes), CELLS)), CODES)

    first, drawn = (
        decoder(counting, num_decoding_steps=1, num_refinement_rounds=n)({}, *prompts(1, 2), keys(2)) for n in (0, 1)
    )
    assert np.array_equal(first, np.full((2, *GRID), 6))
    shares = [-(-(CELLS - part) // masked.REVISED) for part in range(masked.REVISED)]
    for picture in np.asarray(drawn):
        assert sorted(picture.ravel()) == sorted(size for size in shares for _ in range(size))
    assert not np.array_equal(drawn[0], drawn[1]), "every picture's eighths are its own"


def test_revisions_make_codes_agree(monkeypatch):
    """Those of a half that were drawn at the same time did not know of each other."""
    monkeypatch.setattr(masked, "REVISION_TEMPERATURE", 1.0)
    settings = {"num_decoding_steps": 1, "guidance": 0.0}
    found = [decoder(halves, num_refinement_rounds=n, **settings)({}, *prompts(*[1] * 40), keys(40)) for n in (0, 1, 3)]
    none, one, three = (agreement(codes).mean() for codes in found)
    assert none < 0.8 and one > none + 0.1 and three > 0.97
    alone = decoder(halves, num_refinement_rounds=3, **settings)({}, *prompts(1), keys(40)[7:8])
    np.testing.assert_array_equal(alone[0], found[2][7])
    monkeypatch.setattr(masked, "REVISION_TEMPERATURE", 50.0)
    hot = decoder(halves, num_refinement_rounds=3, **settings)({}, *prompts(*[1] * 40), keys(40))
    assert np.isin(hot, (1, 2)).mean() < 0.5 < np.isin(found[2], (1, 2)).mean()


def test_a_picture_is_judged_a_quarter_at_a_time_given_the_rest():
    """By hand, with logits that say how many codes were hidden, and none of a cell's neighbours with it."""
    seen = []

    def of(codes, word):
        jax.debug.callback(lambda hidden: seen.append(np.asarray(hidden)), codes == CODES)
        return jnp.broadcast_to(jnp.arange(CODES) / 2.0, (len(codes), CELLS, CODES))

    codes = np.random.default_rng(3).integers(0, CODES, (2, *GRID))
    found = judged(of, codes)
    jax.effects_barrier()
    logits = np.arange(CODES) / 2.0
    np.testing.assert_allclose(found, (codes / 2.0 - np.log(np.exp(logits).sum())).reshape(2, -1), rtol=1e-5)
    assert np.array_equal(np.sum(seen, axis=0), np.ones((2, *GRID)))  # each once
    for hidden in seen:
        rows, columns = np.nonzero(hidden[0])
        apart = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))
        assert (apart[~np.eye(len(rows), dtype=bool)] >= 2).all()
