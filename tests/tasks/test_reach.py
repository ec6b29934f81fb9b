"""What a score can reach, said before training, against values counted by hand."""

import numpy as np
import pytest

from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.metrics.captions import score_captions
from vlm_jax.scenes.language import caption
from vlm_jax.scenes.sampling import Sampling, sample_scene
from vlm_jax.scenes.scene import to_json
from vlm_jax.tasks import reach
from vlm_jax.tasks.reach import answer_reach, caption_reach, image_token_reach
from vlm_jax.types import Example, Text


def answered(*answers):
    """An image a question."""
    return [Example(str(n), b"", (Text(str(n), "what?", given, "open"),)) for n, given in enumerate(answers)]


def lines(train, validation, accuracy="soft", **vocabulary):
    return answer_reach(train, validation, AnswerVocabulary.build(train, **vocabulary), accuracy=accuracy)


def reached(found):
    """(with the vocabulary, with any answer) as printed."""
    (line,) = [line for line in found if "can reach" in line]
    words = line.split()
    return float(words[words.index("reach") + 1]), float(words[-4])


def warned(found):
    return [line for line in found if line.startswith("warning: ")]


def test_the_best_answer_of_the_vocabulary_and_of_all():
    train = answered(("red",), ("blue", "blue", "teal"), ("red", "red"))
    found = lines(train, answered(("red", "blue", "red", "mauve"), ("mauve",), ("Blue!",)))
    assert "1 to 3 answers, median 2" in found[0]
    assert reached(found) == (pytest.approx((0.5 + 0 + 1) / 3, abs=1e-4), pytest.approx((0.5 + 1 + 1) / 3, abs=1e-4))
    assert warned(found) == []


def test_one_answer_a_question_is_never_right_by_the_official_accuracy():
    train = answered(("red",), ("blue",))
    found = lines(train, answered(("red",), ("blue",)), "vqa")
    assert "have 1 answer" in found[0] and reached(found) == (0, 0)
    assert len(warned(found)) == 1 and "data.accuracy soft" in warned(found)[0]
    assert reached(lines(train, answered(("red",), ("blue",)), "soft")) == (1, 1)  # the remedy


def test_capitals_that_the_official_accuracy_compares_are_found():
    """A hundred per cent "Yes": the model says yes, and the official evaluation calls that wrong."""
    train = answered(("Yes",) * 10, ("No",) * 10)
    found = lines(train, train, "vqa")
    assert reached(found) == (0, 1) and "data.accuracy soft" in warned(found)[0]
    assert reached(lines(train, train, "soft")) == (1, 1)


def test_answers_that_training_lacks_are_found():
    train = answered(("red",), ("red",), ("blue",))
    found = lines(train, answered(("teal",), ("mauve",)))
    assert reached(found) == (0, 1) and "vocabulary" in warned(found)[0]
    kept = lines(train, answered(("blue",)), min_count=2)
    assert reached(kept)[0] == 0 and "data.min_answer_count" in warned(kept)[-1]
    assert reached(lines(train, answered(("blue",))))[0] == 1  # the remedy


def test_a_single_answer_to_choose_is_found():
    found = lines(answered(("yes",), ("yes",)), answered(("yes",)))
    assert len(warned(found)) == 1 and "'yes'" in warned(found)[0]


def test_questions_without_answers_are_found():
    assert len(warned(lines(answered(("yes",), ("no",)), answered((), ())))) == 1


@pytest.mark.parametrize(("count", "best"), [(2, 1 / 3), (3, 2 / 3), (4, 1.0), (10, 1.0)])
def test_few_answers_limit_the_official_accuracy(count, best):
    train = answered(("yes",) * count, ("no",) * count)
    found = lines(train, train, "vqa")
    assert reached(found) == (pytest.approx(best, abs=1e-4),) * 2 and warned(found) == []
    assert any("100.0%" in line for line in found) == (count < 4)


def test_a_large_split_is_looked_into_at_equal_distances(monkeypatch):
    monkeypatch.setitem(reach.SCORED, "questions", 3)
    train = answered(("red",))
    validation = answered(("red",), ("blue",), ("red",), ("blue",), ("red",))
    assert reached(lines(train, validation))[0] == 1
    monkeypatch.setattr(reach, "COUNTED", 2)
    assert "2 images looked at" in lines(answered(("a",), ("b",), ("a", "b", "c"), ("a",)), validation)[0]


def captioned(*captions, scenes=None):
    rows = []
    for number, texts in enumerate(captions):
        questions = tuple(Text(f"{number}#{n}", text, (), "caption") for n, text in enumerate(texts))
        rows.append(Example(str(number), b"", questions, None if scenes is None else to_json(scenes[number])))
    return rows


def encoder(examples, *, max_length=12, vocabulary=128):
    texts = [text.text for each in examples for text in each.texts]
    tokenizer = Tokenizer.build(texts, vocabulary)
    return ExampleEncoder(tokenizer, None, ImageInput(size=(8, 8)), max_length=max_length, texts_per_image=1)


def value(found):
    return float(next(line for line in found if line.startswith("validation ")).rsplit(" ", 1)[1])


CAPTIONED = captioned(("a red cat", "the cat"), ("two dogs run",), ("a boat at sea", "sea", "the boat"))


def test_references_as_the_model_writes_them():
    found = caption_reach(CAPTIONED, CAPTIONED, encoder(CAPTIONED), metric="cider_d")
    assert "1 to 3 captions, median 2" in found[0]
    texts = [[text.text for text in each.texts] for each in CAPTIONED]
    assert value(found) == pytest.approx(score_captions([each[0] for each in texts], texts)["cider_d"], abs=1e-4)
    assert value(found) > 0 and warned(found) == []
    cut = caption_reach(CAPTIONED, CAPTIONED, encoder(CAPTIONED, max_length=4), metric="cider_d")
    assert 0 < value(cut) < value(found)


@pytest.mark.parametrize("captions", [(("a cat",),), (("a cat", "one cat"), ("a cat",)) * 3])
def test_cider_that_is_always_zero_is_found(captions):
    """One image, or captions that are the same for all: no word is rarer than another."""
    examples = captioned(*[captions[0]] * len(captions))
    found = caption_reach(CAPTIONED, examples, encoder(CAPTIONED), metric="cider_d")
    assert value(found) == 0 and len(warned(found)) == 1 and "validation images" in warned(found)[0]


def test_texts_too_short_for_a_true_caption_are_found():
    scenes = [sample_scene(np.random.default_rng(seed), Sampling(64, 2, 3)) for seed in range(4)]
    examples = captioned(*[(caption(scene),) for scene in scenes], scenes=scenes)
    long = encoder(examples, max_length=60)
    assert value(caption_reach(examples, examples, long, metric="rule_accuracy")) == 1
    found = caption_reach(examples, examples, encoder(examples, max_length=4), metric="rule_accuracy")
    assert value(found) == 0 and "model.text.max_length" in warned(found)[0]


def test_words_that_the_model_lacks_are_found():
    """A tokenizer of other texts knows no letter of these."""
    other = captioned(("猫",), ("犬",))
    found = caption_reach(CAPTIONED, CAPTIONED, encoder(other), metric="cider_d")
    assert value(found) == 0 and "model.text.vocab_size" in warned(found)[0]


def test_codes_that_lose_the_objects_are_found():
    from vlm_jax.scenes.rendering import render

    scenes = [sample_scene(np.random.default_rng(seed), Sampling(64, 1, 2)) for seed in range(3)]
    rows = [Example(str(n), b"", (), to_json(scene), np.full((2, 2), n, np.int32)) for n, scene in enumerate(scenes)]
    generated = np.stack([render(scene) for scene in scenes])
    found = image_token_reach(rows, lambda tokens: generated[tokens[:, 0, 0]], metric="objects_right")
    assert value(found) == 1 and warned(found) == []
    grey = image_token_reach(rows, lambda tokens: np.full_like(generated, 128), metric="objects_right")
    assert value(grey) == 0 and "tokenizer" in warned(grey)[0]
    same = [row._replace(image_tokens=rows[0].image_tokens) for row in rows]
    (warning,) = image_token_reach(same, lambda tokens: generated, metric="log_likelihood")
    assert (
        "same image tokens" in warning
        and image_token_reach(rows, lambda tokens: generated, metric="log_likelihood") == []
    )
