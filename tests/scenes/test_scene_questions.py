"""Questions about scenes: their answers are those of the pixels, and the words alone do not tell them."""

from collections import Counter, defaultdict

import numpy as np

from tests.scenes.reading import read_off
from vlm_jax.scenes.questions import generate_questions
from vlm_jax.scenes.rendering import render
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS, SEEN_PAIRS, Sampling, sample_scene
from vlm_jax.scenes.scene import COLOURS, SHAPES, SIZES


def matching(words, detected):
    """The objects on an image that these words may mean."""
    stated = [word.removesuffix("s") if word not in ("cross", "crosses") else "cross" for word in words.split()]
    stated = [word for word in stated if word in (*SIZES, *COLOURS, *SHAPES)]
    return [obj for obj in detected if set(stated) <= {obj.size, obj.color, obj.shape}]


def expected(text, detected):
    """The answer, from what the pixels show and the words of the question alone."""
    text = text.removesuffix("?")
    if text.startswith("how many"):
        return str(len(matching(text, detected)))
    if text.startswith("what colour"):
        (obj,) = matching(text, detected)
        return obj.color
    for relation, far in (
        ("left of", lambda subject, reference: reference.x - subject.x),
        ("right of", lambda subject, reference: subject.x - reference.x),
        ("above", lambda subject, reference: reference.y - subject.y),
        ("below", lambda subject, reference: subject.y - reference.y),
    ):
        if relation in text:
            (subject,), (reference,) = (matching(words, detected) for words in text.split(relation))
            assert abs(far(subject, reference)) > 6
            return "yes" if far(subject, reference) > 0 else "no"
    return "yes" if matching(text, detected) else "no"


def test_every_answer_is_that_of_the_pixels(scenes):
    answers = Counter()
    for number, scene in enumerate(scenes):
        detected, questions = read_off(render(scene)), generate_questions(scene, np.random.default_rng(number))
        assert questions == generate_questions(scene, np.random.default_rng(number))
        assert len({question.text for question in questions}) == len(questions) <= 8
        for kind, text, answer in questions:
            assert answer == expected(text, detected), (text, scene)
            answers[kind, answer] += 1
        kinds = Counter(question.kind for question in questions)
        assert kinds["count"] == kinds["existence"] == 2 and kinds["relation"] == (2 if len(scene.objects) > 1 else 0)
    assert answers["relation", "yes"] == answers["relation", "no"] > 120
    assert answers["existence", "yes"] == answers["existence", "no"]
    assert {answer for kind, answer in answers if kind == "count"} >= {"0", "1", "2", "3", "4"}
    assert {answer for kind, answer in answers if kind == "colour"} == set(COLOURS)


def test_yes_and_no_are_about_equally_frequent_for_any_words():
    """Of each colour, shape, size and relation, and for each number of attributes."""
    random = np.random.default_rng(0)
    answers = defaultdict(Counter)
    for _ in range(500):
        for kind, text, answer in generate_questions(sample_scene(random, Sampling()), random):
            if kind in ("relation", "existence"):
                words = text.strip("?").split()
                stated = [
                    word for word in words if word in (*SIZES, *COLOURS, *SHAPES, "left", "right", "above", "below")
                ]
                for word in (*stated, len(stated)):
                    answers[kind, word][answer] += 1
    for questions, counts in answers.items():
        if counts.total() > 80:
            assert 0.34 < counts["yes"] / counts.total() < 0.66, (questions, counts)
    assert len([questions for questions, counts in answers.items() if counts.total() > 80]) > 30


def test_held_out_pairs_occur_only_where_they_are_shown():
    random = np.random.default_rng(0)

    def question_pairs(sampling):
        pairs = set()
        for _ in range(200):
            for question in generate_questions(sample_scene(random, sampling), random):
                for part in question.text.strip("?").split(" the "):
                    pairs |= {pair for pair in ALL_PAIRS if set(pair) <= set(part.split())}
        return pairs

    assert question_pairs(Sampling()) == set(SEEN_PAIRS)
    assert question_pairs(Sampling(first=HELD_OUT_PAIRS)) >= set(HELD_OUT_PAIRS)
