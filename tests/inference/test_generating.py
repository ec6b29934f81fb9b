"""BLIP and GIT in use: captions and answers in words are those of transformers' `generate`."""

import numpy as np
import pytest

import vlm_jax
from tests.weights import blip_models
from vlm_jax.errors import InputError

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

from tests.weights import captioners  # noqa: E402  needs torch

SEP = 42  # a token that these weights write at several places
WORDS = ["[PAD]", "[UNK]", "[CLS]", *(f"word{number}" for number in range(3, 58))]  # [DEC] and [ENC] follow
WORDS[SEP] = "[SEP]"
TEXT = blip_models.TEXT | {"sep_token_id": SEP}
VISION = blip_models.IMAGE
GIT = {
    "vision_config": VISION, "vocab_size": 58, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 14, "bos_token_id": 2, "eos_token_id": SEP, "pad_token_id": 0,
}  # fmt: skip
IMAGES = [np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8) for seed in range(5)]
QUESTIONS = ["word7 word8", "word3 word4 word5"]


def saved(model, folder):
    """The folder of a model with its vocabulary, and the model itself."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return vlm_jax.from_pretrained(folder), model


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    model = blip_models.make("BlipForConditionalGeneration", text=TEXT)
    captioners.make_seeing(model, gain=1.0)
    return saved(model, tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def git(tmp_path_factory):
    model = transformers.GitForCausalLM(transformers.GitConfig(**GIT)).eval()
    captioners.make_seeing(model, output="output.weight", gain=0.7)
    return saved(model, tmp_path_factory.mktemp("git"))


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    model = blip_models.make("BlipForQuestionAnswering", text=TEXT)
    captioners.make_seeing(model, gain=1.0)
    return saved(model, tmp_path_factory.mktemp("answerer"))


def pixels(model, images):
    return torch.tensor(np.stack([model.processor(image) for image in images])).permute(0, 3, 1, 2)


def in_words(sequences):
    """The texts of token ids, special tokens left out, as transformers' decoding does."""
    texts = []
    for ids in sequences[:, 1:].tolist():
        ids = ids[: ids.index(SEP)] if SEP in ids else ids
        texts.append(" ".join(WORDS[i] for i in ids if 2 < i < len(WORDS)))
    return texts


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("name", ["blip", "git"])
def test_captions_are_those_of_transformers(name, num_beams, request):
    model, reference = request.getfixturevalue(name)
    longest = 1 + model._text_settings.max_position_embeddings
    options = {"num_beams": num_beams, "max_length": longest, "do_sample": False}
    expected = in_words(reference.generate(pixel_values=pixels(model, IMAGES), **options))
    captions = model.generate_captions(IMAGES, num_beams=num_beams)
    assert [caption.text for caption in captions] == expected
    assert len(set(expected)) > 1
    assert model.generate_captions(IMAGES[0], num_beams=num_beams).text == expected[0]


def test_answers_are_those_of_transformers(answerer):
    model, reference = answerer
    answers = model.answer(IMAGES[:3], QUESTIONS)
    assert [answer.question for answer in answers] == QUESTIONS * 3
    for number, answer in enumerate(answers):
        image, question = divmod(number, len(QUESTIONS))
        ids = torch.tensor([[2, *(WORDS.index(word) for word in QUESTIONS[question].split()), SEP]])
        options = {"num_beams": 5, "max_length": 17, "do_sample": False, "attention_mask": torch.ones_like(ids)}
        sequences = reference.generate(input_ids=ids, pixel_values=pixels(model, [IMAGES[image]]), **options)
        assert answer.text == in_words(sequences)[0]
        assert len(answer.top) == 5 and answer.top[0] == (answer.text, answer.probability)
        assert all(0 < probability < 1 for _, probability in answer.top)


def test_a_call_has_the_outputs_of_transformers(blip):
    model, reference = blip
    texts = ["word5 word6", "word11"]
    arrays = model.encode(texts, images=IMAGES[:2])
    assert arrays["input_ids"].tolist() == [[2, 5, 6, SEP], [2, 11, SEP, 0]]
    output = model(texts, images=IMAGES[:2])
    inputs = {
        "input_ids": torch.tensor(arrays["input_ids"]).long(),
        "attention_mask": torch.tensor(arrays["text_mask"]),
    }
    with torch.no_grad():
        logits = reference(pixel_values=pixels(model, IMAGES[:2]), **inputs).logits.numpy()
    shown = arrays["text_mask"]
    np.testing.assert_allclose(np.asarray(output.logits)[shown], logits[shown], rtol=0, atol=2e-5)


def test_what_does_not_fit_is_refused_in_one_line(blip, git, answerer, tmp_path):
    for call, words in (
        (lambda: blip[0].generate_captions(IMAGES[0], num_beams=0), "num_beams is 0"),
        (lambda: blip[0].answer(IMAGES[0], "word9"), "no method answer"),
        (lambda: answerer[0].generate_captions(IMAGES[0]), "no method generate_captions"),
        (lambda: answerer[0].answer(IMAGES[0], "word9 " * 30), "this model reads 16"),
        (lambda: git[0]("word9"), "images"),
        (lambda: git[0](["word9"] * 2, images=IMAGES[:1]), "2 texts and 1 images"),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert words in str(error.value) and "\n" not in str(error.value)
    git[1].save_pretrained(tmp_path / "alone")
    with pytest.raises(InputError, match="no tokenizer"):
        vlm_jax.from_pretrained(tmp_path / "alone").generate_captions(IMAGES[0])


@pytest.mark.parametrize(
    ("name", "task"), [("blip", "image-to-text"), ("git", "image-to-text"), ("answerer", "visual-question-answering")]
)
def test_a_saved_model_has_its_proof_and_writes_the_same(name, task, request, tmp_path):
    model, _ = request.getfixturevalue(name)
    model.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert f'pipeline_tag: "{task}"' in card and "**PASS**" in card
    again = vlm_jax.from_pretrained(tmp_path / "saved")
    if name == "answerer":
        assert again.answer(IMAGES[0], QUESTIONS[0]) == model.answer(IMAGES[0], QUESTIONS[0])
    else:
        assert again.generate_captions(IMAGES[:2]) == model.generate_captions(IMAGES[:2])
