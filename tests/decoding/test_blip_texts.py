"""BLIP writes what transformers' `generate` writes, and ranks answers by the losses that transformers computes."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights.blip_models import IMAGE, TEXT, make
from vlm_jax.config.captioning import Beam, Greedy
from vlm_jax.decoding import Decoder, GivenTexts, Question, Special
from vlm_jax.decoding.given_texts import AT_ONCE
from vlm_jax.errors import InputError
from vlm_jax.weights.import_folder import read

torch = pytest.importorskip("torch", reason="torch is the oracle")
pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

from tests.weights.captioners import make_seeing  # noqa: E402  needs torch

IMAGES, TOKENS, END = 6, 11, 42  # a token that these weights write at several places
BOUND = 2e-5
WAYS = {"greedy": Greedy(), "beam": Beam(num_beams=3, length_penalty=1.0, early_stopping=False)}


def both_sides(name, folder):
    """The port of a tiny model whose texts depend on the image, and the model in float64."""
    model = make(name, text=TEXT | {"sep_token_id": END})
    make_seeing(model, gain=1.0)
    model.save_pretrained(folder)
    return read(str(folder)), model.double()


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return both_sides("BlipForConditionalGeneration", tmp_path_factory.mktemp("captions") / "model")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    return both_sides("BlipForQuestionAnswering", tmp_path_factory.mktemp("answers") / "model")


@pytest.fixture(scope="module")
def images():
    size = IMAGE["image_size"]
    return np.random.default_rng(1).normal(size=(IMAGES, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def questions():
    return np.random.default_rng(2).integers(4, 40, (IMAGES, 5)).astype(np.int32)


def pixels(images):
    return torch.tensor(images).permute(0, 3, 1, 2).double()


def decoder(converted, settings, **options):
    model = converted.architecture.model
    special = Special(model.bos_token_id, model.sep_token_id, model.pad_token_id)
    return Decoder(converted.module, settings, special, max_tokens=TOKENS, **options)


def cut(sequences):
    """What `generate` writes, without the first token and with padding behind the end."""
    ids = np.zeros((len(sequences), TOKENS), int)
    ids[:, : sequences.shape[1] - 1] = sequences[:, 1:].numpy()
    ended = np.cumsum(ids == END, axis=1) - (ids == END)
    return np.where(ended > 0, TEXT["pad_token_id"], ids), ended == 0


def options_of(way):
    return {"max_length": TOKENS + 1, "num_beams": getattr(WAYS[way], "num_beams", 1), "do_sample": False}


def log_probabilities(logits, ids):
    """Of each of the ids, from the logits at the tokens before."""
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[..., None])[..., 0].numpy()


def before(ids):
    """The tokens that the model reads: the first one and all but the last."""
    return torch.tensor(np.concatenate([np.full((len(ids), 1), TEXT["bos_token_id"]), ids[:, :-1]], axis=1))


@pytest.mark.parametrize("way", WAYS)
def test_captions_and_their_log_probabilities_are_those_of_transformers(way, captioner, images):
    converted, model = captioner
    texts = decoder(converted, WAYS[way])({"params": converted.params}, jnp.asarray(images))
    expected, shown = cut(model.generate(pixel_values=pixels(images), **options_of(way)))
    np.testing.assert_array_equal(texts.ids[:, 0], expected)
    assert len({tuple(ids) for ids in expected.tolist()}) == IMAGES  # each image has a caption of its own
    assert (~shown).sum() > 0  # some end early
    with torch.no_grad():
        logits = model(pixel_values=pixels(images), input_ids=before(expected)).logits
    difference = np.asarray(texts.token_log_probability[:, 0]) - np.where(shown, log_probabilities(logits, expected), 0)
    assert np.abs(difference).max() <= BOUND


def test_exchanged_images_have_exchanged_captions(captioner, images):
    converted, _ = captioner
    write = decoder(converted, Greedy())
    texts, turned = (write({"params": converted.params}, jnp.asarray(x)).ids[:, 0] for x in (images, images[::-1]))
    np.testing.assert_array_equal(texts, turned[::-1])
    assert not (np.asarray(texts) == np.asarray(turned)).all(-1).any()


def test_a_caption_goes_on_from_a_prompt(captioner, images):
    """transformers drops the last token of a prompt, and takes its first for [DEC]."""
    converted, model = captioner
    prompt = [7, 12, 9]
    texts = decoder(converted, WAYS["beam"], prefix=prompt)({"params": converted.params}, jnp.asarray(images))
    ids = torch.tensor([[1, *prompt, END]] * IMAGES)
    expected, _ = cut(model.generate(pixel_values=pixels(images), input_ids=ids, **options_of("beam")))
    np.testing.assert_array_equal(texts.ids[:, 0], expected)


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_those_of_transformers(way, answerer, images, questions):
    converted, model = answerer
    question = Question(jnp.asarray(questions), jnp.ones(questions.shape, bool))
    texts = decoder(converted, WAYS[way])({"params": converted.params}, jnp.asarray(images), question=question)
    ids = torch.tensor(questions).long()
    expected, _ = cut(model.generate(input_ids=ids, pixel_values=pixels(images), **options_of(way)))
    np.testing.assert_array_equal(texts.ids[:, 0], expected)
    assert len({tuple(ids) for ids in expected.tolist()}) > IMAGES // 2


def test_the_padding_of_a_question_changes_no_answer(answerer, images, questions):
    """It does in transformers 5.24, whose decoder attends to it."""
    converted, _ = answerer
    write, params = decoder(converted, Greedy()), {"params": converted.params}
    short = Question(jnp.asarray(questions), jnp.ones(questions.shape, bool))
    padded = Question(jnp.pad(short.input_ids, ((0, 0), (0, 4))), jnp.pad(short.text_mask, ((0, 0), (0, 4))))
    texts = [write(params, jnp.asarray(images), question=question) for question in (short, padded)]
    np.testing.assert_array_equal(*(text.ids for text in texts))
    np.testing.assert_allclose(*(text.token_log_probability for text in texts), atol=1e-6)


def test_answers_are_ranked_by_the_losses_of_transformers(answerer, images, questions):
    converted, model = answerer
    random = np.random.default_rng(3)
    answers = [random.integers(4, 40, random.integers(1, 5)).tolist() for _ in range(AT_ONCE + 3)]
    settings = converted.architecture.model
    special = Special(settings.bos_token_id, settings.sep_token_id, settings.pad_token_id)
    question = Question(jnp.asarray(questions), jnp.ones(questions.shape, bool))
    score = GivenTexts(converted.module, special, answers)
    scores = np.asarray(score({"params": converted.params}, jnp.asarray(images), question=question))
    assert scores.shape == (IMAGES, len(answers))
    ids = torch.tensor(questions).long()
    with torch.no_grad():
        for column, answer in enumerate(answers):
            labels = torch.tensor([[settings.bos_token_id, *answer, END]])
            for row in range(0, IMAGES, 2):
                inputs = {"input_ids": ids[row : row + 1], "pixel_values": pixels(images[row : row + 1])}
                loss = model(**inputs, labels=labels).loss.item()
                assert abs(-scores[row, column] / (len(answer) + 1) - loss) <= 1e-5
    assert len(set(scores.argmax(1).tolist())) > 1


def test_a_list_without_a_text_is_refused(answerer):
    with pytest.raises(InputError, match="at least one"):
        GivenTexts(answerer[0].module, Special(1, 2, 0), [])
