"""Questions about scenes: their answers are those of the pixels, and the words alone do not tell them."""

from collections import Counter, defaultdict

import numpy as np

from tests.scenes.reading import read_off
from vlm_jax.scenes.drawing import draw
from vlm_jax.scenes.questions import ask
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import COLOURS, SHAPES, SIZES


def matching(words, seen):
    """The things on a picture that these words may mean."""
    stated = [word.removesuffix("s") if word not in ("cross", "crosses") else "cross" for word in words.split()]
    stated = [word for word in stated if word in (*SIZES, *COLOURS, *SHAPES)]
    return [thing for thing in seen if set(stated) <= {thing.size, thing.color, thing.shape}]


def expected(text, seen):
    """The answer, from what the pixels show and the words of the question alone."""
    text = text.removesuffix("?")
    if text.startswith("how many"):
        return str(len(matching(text, seen)))
    if text.startswith("what colour"):
        (thing,) = matching(text, seen)
        return thing.color
    for relation, far in (
        ("left of", lambda one, other: other.x - one.x),
        ("right of", lambda one, other: one.x - other.x),
        ("above", lambda one, other: other.y - one.y),
        ("below", lambda one, other: one.y - other.y),
    ):
        if relation in text:
            (one,), (other,) = (matching(words, seen) for words in text.split(relation))
            assert abs(far(one, other)) > 6
            return "yes" if far(one, other) > 0 else "no"
    return "yes" if matching(text, seen) else "no"


def test_every_answer_is_that_of_the_pixels(scenes):
    answers = Counter()
    for number, scene in enumerate(scenes):
        seen, asked = read_off(draw(scene)), ask(scene, np.random.default_rng(number))
        assert asked == ask(scene, np.random.default_rng(number))
        assert len({each.text for each in asked}) == len(asked) <= 8
        for kind, text, answer in asked:
            assert answer == expected(text, seen), (text, scene)
            answers[kind, answer] += 1
        kinds = Counter(each.kind for each in asked)
        assert kinds["count"] == kinds["existence"] == 2 and kinds["relation"] == (2 if len(scene.things) > 1 else 0)
    assert answers["relation", "yes"] == answers["relation", "no"] > 120
    assert answers["existence", "yes"] == answers["existence", "no"]
    assert {answer for kind, answer in answers if kind == "count"} >= {"0", "1", "2", "3", "4"}
    assert {answer for kind, answer in answers if kind == "colour"} == set(COLOURS)


def test_yes_and_no_are_about_equally_frequent_for_any_words():
    """Of each colour, shape, size and relation, and for each number of attributes."""
    random = np.random.default_rng(0)
    answers = defaultdict(Counter)
    for _ in range(500):
        for kind, text, answer in ask(sample_scene(random, Sampling()), random):
            if kind in ("relation", "existence"):
                words = text.strip("?").split()
                stated = [
                    word for word in words if word in (*SIZES, *COLOURS, *SHAPES, "left", "right", "above", "below")
                ]
                for word in (*stated, len(stated)):
                    answers[kind, word][answer] += 1
    for asked, counts in answers.items():
        if counts.total() > 80:
            assert 0.34 < counts["yes"] / counts.total() < 0.66, (asked, counts)
    assert len([asked for asked, counts in answers.items() if counts.total() > 80]) > 30


def test_held_out_pairs_are_asked_for_where_they_are_shown_only():
    random = np.random.default_rng(0)

    def asked_pairs(sampling):
        pairs = set()
        for _ in range(200):
            for each in ask(sample_scene(random, sampling), random):
                for part in each.text.strip("?").split(" the "):
                    pairs |= {pair for pair in ALL_PAIRS if set(pair) <= set(part.split())}
        return pairs

    assert asked_pairs(Sampling()) == set(SEEN_PAIRS)
    assert asked_pairs(Sampling(first=HELD_OUT_PAIRS)) >= set(HELD_OUT_PAIRS)
