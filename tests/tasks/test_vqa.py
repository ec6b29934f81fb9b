"""Question answering: the loss, one image with many questions, predictions in order, baselines and scores."""

import io
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vlm_jax.config.encoders import SmallCNN
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import TextInput
from vlm_jax.config.vqa import VQA, Concat, Model, PerToken
from vlm_jax.data.answers import AnswerVocabulary
from vlm_jax.data.batches import Row, make_batch
from vlm_jax.data.datasets.easy_vqa import EasyVQA
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.images import normalise
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.errors import InputError
from vlm_jax.metrics.vqa import BlindPrior, accuracy_by_kind, soft_accuracy
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks.baselines import baseline_warnings, shuffled_difference
from vlm_jax.tasks.examples import shuffled_images
from vlm_jax.tasks.vqa import VisualQuestionAnswering, batch_sums
from vlm_jax.types import Batch, Example, Text

CONFIG = VQA(
    data=EasyVQA(threads=1),
    image=AugmentedImages(size=(8, 8)),
    model=Model(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        num_layers=2,
        fusion=Concat(attention_pattern="bidirectional"),
        image=SmallCNN(stem_width=4, widths=(8,), blocks=(0,)),
        text=TextInput(vocab_size=64, max_length=8),
    ),
    training=TextTraining(texts_per_image=3, label_smoothing=0.1, evaluation_batch_images=4),
)


def picture(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def example(number, *pairs):
    """An image and its questions, each given as (text, answers)."""
    questions = [
        Text(f"{number}/{i}", text, answers, "yes_no" if text.startswith("is") else "open")
        for i, (text, answers) in enumerate(pairs)
    ]
    return Example(f"image {number}", picture(number), tuple(questions))


COLOUR, SHAPE, RED, ROUND = "what colour is it?", "which shape is it?", "is it red?", "is it round?"
TALL, BIG = "is it tall?", "is it big?"
TRAIN = [
    example(100, (COLOUR, ("red",)), (RED, ("yes",)), (SHAPE, ("circle",)), (ROUND, ("yes",)), (TALL, ("no",))),
    example(101, (COLOUR, ("blue", "blue", "teal")), (RED, ("no",)), (SHAPE, ("square",)), (ROUND, ("no",))),
    example(102, (COLOUR, ("blue",)), (RED, ("no",)), (ROUND, ("yes",))),
]
EXAMPLES = [
    example(0, (RED, ("yes",)), (COLOUR, ("red", "blue", "blue", "blue"))),
    example(1, (COLOUR, ("blue",)), (RED, ("no",)), (SHAPE, ("circle",)), (ROUND, ("yes",)), (BIG, ("no",))),
    example(2),
    example(3, (COLOUR, ("mauve",)), (SHAPE, ("square", "oval")), (ROUND, ("no",))),
    example(4, (RED, ("no",))),
]
QUESTIONS = [question for each in EXAMPLES for question in each.texts]


def encoder(slots):
    texts = [question.text for each in TRAIN for question in each.texts]
    return ExampleEncoder(
        Tokenizer.build(texts, 64),
        AnswerVocabulary.build(TRAIN),
        CONFIG.image,
        max_length=8,
        texts_per_image=slots,
        accepted_answers=2,
    )


def make_task(slots=3, **changes):
    """The task; `changes` are settings of the fusion."""
    config = with_changes(CONFIG, {f"model.fusion.{name}": value for name, value in changes.items()})
    return VisualQuestionAnswering(config, encoder(slots))


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def params(task):
    """Weights so large that images and words change the answers."""
    random = np.random.default_rng(38)
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    return jax.tree.map(lambda x: random.normal(scale=1.0, size=x.shape).astype(x.dtype), shapes)


def oracle(logits, batch, smoothing):
    """Loss, weight and score, one question after the other, in float64."""
    loss = weight = correct = 0.0
    for place in np.ndindex(batch.weight.shape):
        row = logits[place].astype(np.float64)
        target = np.zeros(len(row))
        for answer, share in zip(batch.answers[place], batch.answer_weights[place], strict=True):
            target[answer] += share
        log_p = row - np.log(np.exp(row).sum())
        smooth = (1 - smoothing) * target + smoothing * target.sum() / len(row)
        loss -= batch.weight[place] * (smooth * log_p).sum()
        weight += batch.weight[place]
        correct += batch.weight[place] * target[row.argmax()]
    return loss, weight, correct, weight


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sums_are_those_of_a_plain_loop(smoothing):
    random = np.random.default_rng(0)
    logits = random.normal(scale=3.0, size=(5, 3, 6)).astype(np.float32)
    answers = np.argsort(random.random((5, 3, 6)), axis=-1)[..., :3].astype(np.int32)
    shares = random.dirichlet((1, 1, 1), (5, 3)).astype(np.float32)
    shares[0], answers[0] = (1, 0, 0), (4, 0, 0)  # one answer; the entries of weight 0 hold class 0 ...
    logits[0, 0, 0] = 9.0  # ... which is what the model says
    shares[1] = 0  # no accepted answer is in the vocabulary
    shares[2, :, 1] = 0  # some are
    weight = np.ones((5, 3), np.float32)
    weight[3, 1:] = weight[4] = 0
    empty = np.zeros((5, 3, 4), np.int32)
    batch = Batch(np.zeros((5, 2, 2, 3)), empty, empty > 0, answers, shares, weight, np.arange(5, dtype=np.int32))
    answers[2, 0, 0] = logits[2, 0].argmax()
    sums = batch_sums(jnp.asarray(logits), jax.tree.map(jnp.asarray, batch), label_smoothing=smoothing)
    np.testing.assert_allclose(sums, oracle(logits, batch, smoothing), rtol=1e-6)
    assert sums.weight == 10 and 0 < sums.correct < 10


def rows(encode, slots):
    """Four rows of up to three questions, each row spread over 3 / `slots` rows."""
    chosen = [(0, [0, 1]), (1, [0, 1, 2]), (1, [3, 4]), (3, [0, 1, 2])]
    return [
        Row(encode(EXAMPLES[number]), questions[first : first + slots])
        for number, questions in chosen
        for first in range(0, 3, slots)
    ]


def furthest(a, b):
    """The largest difference of a leaf's entries, as a share of its largest entry, or of 1 % of the tree's."""
    floor = 1e-2 * max(np.abs(x).max() for x in jax.tree.leaves(b))
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / max(floor, np.abs(y).max())) for x, y in pairs)


@pytest.mark.parametrize("attention_pattern", ["image_to_text", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_many_questions_per_image_have_the_loss_of_one_per_image(params, attention_pattern):
    smaller = jax.tree.map(lambda x: 0.4 * x, params)  # sums of float32 agree the better, the flatter the model
    results = []
    for slots in (3, 1):
        task = make_task(slots, attention_pattern=attention_pattern)
        batch = make_batch(rows(task.encode, slots), task.encode, size=15 // slots).batch

        def objective(params, batch, task=task):
            sums = task.loss_sums(params, batch, None)
            return sums.loss, sums

        results.append(jax.device_get(jax.jit(jax.grad(objective, has_aux=True))(smaller, batch)))
    (gradient, sums), (expected, of_single_questions) = results
    assert of_single_questions.weight == 10 and of_single_questions.loss > 1
    np.testing.assert_allclose(sums, of_single_questions, rtol=1e-5)
    assert furthest(gradient, expected) < 1e-5


def expected_probabilities(task, params):
    """Of the 7 known answers to each question asked alone."""
    alone = encoder(1)
    question_rows = [Row(alone(item), [place]) for item in EXAMPLES for place in range(len(item.texts))]
    batch = make_batch(question_rows, alone, size=len(question_rows)).batch
    inputs = (normalise(batch.image, alone.image), batch.input_ids, batch.text_mask)
    logits = jax.jit(task.model.apply, static_argnames="method")({"params": params}, *inputs, method="task_logits")
    return np.asarray(jax.nn.softmax(logits[:, 0, :7]))


def test_predictions_are_every_question_in_order(task, params):
    predictions = task.predict(params, EXAMPLES)
    assert [prediction.question for prediction in predictions] == QUESTIONS
    assert [p.image_id for p in predictions] == [each.image_id for each in EXAMPLES for _ in each.texts]
    expected = expected_probabilities(task, params)
    assert len(task.encode.answers) == 7
    for prediction, probabilities in zip(predictions, expected, strict=True):
        names, shares = zip(*prediction.top, strict=True)
        order = np.argsort(-probabilities)[:5]
        assert names == tuple(task.encode.answers.answers[answer] for answer in order)
        # Weights this large amplify rounding: batches of another size are 6e-6 apart here, each within 4e-6 of float64.
        np.testing.assert_allclose(shares, probabilities[order], rtol=0, atol=2e-5)
        assert all(a >= b for a, b in itertools.pairwise(shares)) and 0 < sum(shares) < 1
        assert prediction.score == soft_accuracy(names[0], prediction.question.answers)
    assert len({prediction.top for prediction in predictions}) == len(QUESTIONS)


def test_predictions_do_not_depend_on_the_batch(task, params):
    expected = task.predict(params, EXAMPLES)
    for predictions in (task.predict(params, EXAMPLES, batch_images=2), make_task(5).predict(params, EXAMPLES)):
        assert [p.question for p in predictions] == QUESTIONS
        assert [p.top[0][0] for p in predictions] == [p.top[0][0] for p in expected]
    assert task.predict(params, []) == task.predict(params, EXAMPLES[2:3]) == []


def test_a_prediction_line_has_every_field(task, params):
    line = task.predict(params, EXAMPLES)[1].as_dict()
    assert {name: line[name] for name in ("question_id", "image_id", "question", "kind", "answers")} == {
        "question_id": "0/1", "image_id": "image 0", "question": COLOUR, "kind": "open",
        "answers": ["red", "blue", "blue", "blue"],
    }  # fmt: skip
    assert line["prediction"] == line["top"][0]["answer"]
    assert line["score"] == {"blue": 0.75, "red": 0.25}.get(line["prediction"], 0.0)


def test_without_the_image_no_image_matters(task, params):
    derangement = [item._replace(image=picture(50 + place)) for place, item in enumerate(EXAMPLES)]
    blind = task.predict(params, EXAMPLES, see_image=False)
    assert task.predict(params, derangement, see_image=False) == blind
    seen = task.predict(params, EXAMPLES)
    assert task.predict(params, derangement) != seen != blind
    same = [prediction.top for prediction in blind if prediction.question.text == RED]
    assert len(same) == 3 and same[0] == same[1] == same[2]


def test_controls_are_what_is_reached_without_looking(task, params):
    seen, blind = task.predict(params, EXAMPLES), task.predict(params, EXAMPLES, see_image=False)
    shuffled = task.predict(params, list(shuffled_images(EXAMPLES, CONFIG.seed)))
    accuracies = [np.mean([prediction.score for prediction in each]) for each in (seen, blind, shuffled)]
    assert len(set(accuracies)) == 3
    scores = [[prediction.score for prediction in each] for each in (seen, shuffled)]
    baselines = task.baselines(params, EXAMPLES, TRAIN, seen)
    rows = shuffled_difference("shuffled_images", "accuracy", seen, *scores)
    assert rows["baseline/shuffled_images/difference/accuracy"] == pytest.approx(accuracies[0] - accuracies[2])
    assert baselines == rows | {
        "baseline/question_only": accuracies[1],
        "baseline/shuffled_images": accuracies[2],
        # Most common in TRAIN: colour blue, red no, shape circle, round yes; "is it big?" is new: no, the majority.
        "baseline/answer_prior": pytest.approx((0 + 0.75 + 1 + 1 + 1 + 1 + 1 + 0 + 0 + 0 + 1) / 11),
        "baseline/majority": pytest.approx((1 + 1 + 1 + 1) / 11),
    }


@pytest.mark.parametrize("count", [2, 3, 10])
def test_shuffling_moves_every_image_and_no_question(count):
    examples = [example(number, (COLOUR, (str(number),))) for number in range(count)]
    for seed in range(5):
        shuffled = list(shuffled_images(examples, seed))
        assert [each._replace(image=b"") for each in shuffled] == [each._replace(image=b"") for each in examples]
        assert Counter(each.image for each in shuffled) == Counter(each.image for each in examples)
        assert all(a.image != b.image for a, b in zip(shuffled, examples, strict=True))
    assert list(shuffled_images(examples, 3)) == list(shuffled_images(examples, 3))


def test_more_answers_than_classes_are_refused():
    with pytest.raises(InputError, match=r"classes is 6, the training set has 7 answers; raise it to 7"):
        make_task(**{"head": PerToken(classes=6)})
    assert make_task().model.classes == 7


def test_a_split_may_have_more_answers_a_question_than_training(task, params):
    item = [example(7, (COLOUR, ("red", "blue", "teal", "mauve")), (RED, ()))]
    assert task.encode.accepted_answers == 2
    first, second = task.predict(params, item)
    assert first.score in (0, 0.25) and second.score == 0
    assert task.baselines(params, item * 2, item, [])["baseline/majority"] == 0.125


def test_one_image_is_not_shuffled(task, params):
    """Its baseline would be the image itself: it is left out, and a warning says so."""
    twice = EXAMPLES[:1] * 2
    predictions = task.predict(params, twice)
    baselines = task.baselines(params, twice, TRAIN, predictions)
    assert set(baselines) == {"baseline/question_only", "baseline/answer_prior", "baseline/majority"}
    messages = baseline_warnings(task.score(predictions) | baselines, task.metric, task.shuffled)
    assert any("shuffled_images is left out" in text for text in messages)


def test_accuracy_overall_and_by_kind():
    scores = np.array([1.0, 0.0, 0.5, 1.0])
    kinds = ["open", "yes_no", "open", "open"]
    assert accuracy_by_kind(scores, kinds) == {
        "accuracy": 0.625, "accuracy/open": pytest.approx(2.5 / 3), "accuracy/yes_no": 0.0
    }  # fmt: skip
    assert accuracy_by_kind(np.array([]), []) == {}


def test_a_score_is_the_share_of_people():
    assert soft_accuracy("red", ("red",)) == 1
    assert soft_accuracy("red", ("blue", "red", "red", "teal")) == 0.5
    assert soft_accuracy("red", ("blue",)) == soft_accuracy("red", ()) == 0
    assert soft_accuracy("two", ("2", "Two.", "a two", "three")) == 0.75  # one answer in three spellings
    assert soft_accuracy("The dogs!", ("dogs", "dog")) == 0.5 and soft_accuracy("a", ("a", "the")) == 0.5


def test_the_blind_prior_counts_training_answers():
    prior = BlindPrior([("a?", ("yes", "no", "no")), ("b?", ("yes",)), ("b?", ("yes", "no")), ("c?", ("tree", "ash"))])
    assert prior.answer("a?") == "no"
    assert prior.answer("b?") == "yes"
    assert prior.answer("c?") == "ash"  # as common as the other: the first in the alphabet
    assert prior.majority == prior.answer("never asked?") == "no"
    assert BlindPrior([("what?", ())]).answer("what?") == ""
