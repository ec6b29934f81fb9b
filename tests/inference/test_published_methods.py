"""Vectors, masked words and classes of published models, beside transformers' own in float64."""

import json

import numpy as np
import pytest

import vlm_jax
from tests.weights import fixtures, own, test_image_transformers, text_models
from vlm_jax.errors import InputError

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity
WORDS = [*own.WORDS, *(f"word{number}" for number in range(text_models.WORDS - len(own.WORDS)))]


def text_folder(kind, folder, **settings):
    """A tiny BERT of a class with a vocabulary."""
    text_models.publish("bert", kind, folder, **settings)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder


def tokenized(folder, texts):
    return transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")


def test_masks_are_filled_as_transformers_fills_them(tmp_path):
    folder = text_folder("BertForMaskedLM", tmp_path / "bert")
    model = vlm_jax.from_pretrained(folder)
    assert model.methods == ("embed_texts", "fill_mask")
    text = "is there a [MASK] the [MASK]?"
    reference = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float64).eval()
    inputs = tokenized(folder, [text])
    with torch.no_grad():
        shares = reference(**inputs).logits[0].softmax(-1)[inputs["input_ids"][0] == WORDS.index("[MASK]")]
    filled = model.fill_mask(text, top=3)
    best = shares.topk(3)
    for guesses, values, indices in zip(filled.masks, best.values.numpy(), best.indices.tolist(), strict=True):
        assert [guess.token for guess in guesses] == [WORDS[index] for index in indices]
        np.testing.assert_allclose([guess.probability for guess in guesses], values, rtol=0, atol=2e-5)
    first, second = (guesses[0].token for guesses in filled.masks)
    assert filled.text == f"is there a {first} the {second}?"
    assert model.fill_mask([text, "a [MASK]"], top=3)[0] == filled
    with pytest.raises(InputError, match="tokens; this encoder has positions"):
        model.fill_mask("a " * 50 + "[MASK]")
    with pytest.raises(InputError, match="no method classify"):
        model.classify("a circle")


@pytest.mark.parametrize(
    ("problem", "activation"),
    [(None, "softmax"), ("single_label_classification", "softmax"), ("multi_label_classification", "sigmoid")],
)
def test_texts_are_classified_as_transformers_does_it(problem, activation, tmp_path):
    settings = {} if problem is None else {"problem_type": problem}
    folder = text_folder("BertForSequenceClassification", tmp_path / "bert", **settings)
    model = vlm_jax.from_pretrained(folder)
    assert model.methods == ("embed_texts", "classify")
    texts = ["is there a circle?", "what color is the shape?", "the"]
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        logits = reference(**tokenized(folder, texts)).logits
    shares = (logits.softmax(-1) if activation == "softmax" else logits.sigmoid()).numpy()
    results = model.classify(texts)
    for result, row in zip(results, shares, strict=True):
        order = np.argsort(-row)
        assert [label for label, _ in result.top] == [f"label {index}" for index in order]
        np.testing.assert_allclose([share for _, share in result.top], row[order], rtol=0, atol=2e-5)
    single = model.classify(texts[0], top=1)
    assert (single.label, len(single.top)) == (results[0].label, 1)
    with pytest.raises(InputError, match=f"top is 6; expected 1 to {text_models.CLASSES}"):
        model.classify(texts, top=6)
    with pytest.raises(InputError, match="texts is empty"):
        model.classify([])
    with pytest.raises(InputError, match="a text is of type ndarray"):
        model.classify(np.zeros((8, 8, 3), np.uint8))


PAIRS = ["the shape", "a circle is there?", "what [MASK]"]


@pytest.mark.parametrize("types", [2, 1])
def test_the_second_texts_of_pairs_are_read(types, tmp_path):
    """As transformers reads them, also where they have no token types of their own."""
    texts = ["is there a [MASK]?", "what color is the shape?", "the"]
    folder = text_folder("BertForMaskedLM", tmp_path / "words", type_vocab_size=types)
    model = vlm_jax.from_pretrained(folder)
    reference = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float64).eval()
    told = transformers.AutoTokenizer.from_pretrained(folder)(texts[0], PAIRS[2], return_tensors="pt")
    if types == 1:
        del told["token_type_ids"]
    with torch.no_grad():
        shares = reference(**told).logits[0].softmax(-1)[told["input_ids"][0] == WORDS.index("[MASK]")]
    filled = model.fill_mask(texts[0], top=2, pairs=PAIRS[2])
    assert len(filled.masks) == 2 == len(shares)
    for guesses, values in zip(filled.masks, shares.topk(2).values.numpy(), strict=True):
        np.testing.assert_allclose([guess.probability for guess in guesses], values, rtol=0, atol=2e-5)
    words = tuple(guesses[0].token for guesses in filled.masks)
    assert filled.text == "is there a {}? what {}".format(*words)
    assert model.fill_mask(["[MASK]", texts[0]], top=2, pairs=["a", PAIRS[2]])[1] == filled


def test_pairs_are_classified_as_transformers_does_it(tmp_path):
    texts = ["is there a circle?", "what color is the shape?", "the"]
    folder = text_folder("BertForSequenceClassification", tmp_path / "bert")
    model = vlm_jax.from_pretrained(folder)
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    told = transformers.AutoTokenizer.from_pretrained(folder)(texts, PAIRS, padding=True, return_tensors="pt")
    with torch.no_grad():
        shares = reference(**told).logits.softmax(-1).numpy()
    for result, row in zip(model.classify(texts, pairs=PAIRS), shares, strict=True):
        np.testing.assert_allclose([share for _, share in result.top], -np.sort(-row), rtol=0, atol=2e-5)
    many = model.classify(texts * 11, pairs=PAIRS * 11)  # more than a batch
    np.testing.assert_allclose([result.probability for result in many[-3:]], shares.max(-1), rtol=0, atol=2e-5)
    with pytest.raises(InputError, match="3 texts and 1 pairs"):
        model.classify(texts, pairs="a circle")
    with pytest.raises(InputError, match="with its second text has"):
        model.classify("a", pairs="a " * 40)


def test_an_image_has_no_second_text(tmp_path):
    model = vlm_jax.from_pretrained(fixtures.publish(fixtures.BY_NAME["resnet18"].fixtures[0], tmp_path / "resnet"))
    with pytest.raises(InputError, match="leave pairs out"):
        model.classify(np.zeros((8, 8, 3), np.uint8), pairs="a circle")


def test_one_class_is_a_probability_and_a_number_is_none(tmp_path):
    """`num_labels` 1 is what a cross-encoder has."""
    one = {"id2label": {0: "relevant"}}
    model = vlm_jax.from_pretrained(text_folder("BertForSequenceClassification", tmp_path / "one", **one))
    logit = model.encoder.class_logits(["a circle"])[0, 0]
    assert model.classify("a circle").probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
    numbers = one | {"problem_type": "regression"}
    model = vlm_jax.from_pretrained(text_folder("BertForSequenceClassification", tmp_path / "number", **numbers))
    with pytest.raises(InputError, match="regression"):
        model.classify("a circle")


def image_references(folder, kind, pixels):
    """`image_embeds` or `pooler_output` of a class."""
    reference = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        output = reference(torch.tensor(pixels).permute(0, 3, 1, 2).double())
    return output["image_embeds" if "image_embeds" in output else "pooler_output"].flatten(1).numpy()


@pytest.mark.parametrize(
    "kind",
    ["ViTModel", "DeiTModel", "Dinov2Model", "CLIPVisionModel", "CLIPVisionModelWithProjection", "SiglipVisionModel"],
)
def test_images_become_the_vectors_of_transformers(kind, tmp_path):
    model = vlm_jax.from_pretrained(test_image_transformers.publish(kind, tmp_path / kind))
    assert model.methods == ("embed_images",)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (60, 40 + size, 3), np.uint8) for size in range(18)]  # more than a batch
    vectors = model.embed_images(images)
    pixels = np.stack([model.processor(image) for image in images])
    references = image_references(tmp_path / kind, kind, pixels)
    assert vectors.shape == references.shape
    assert np.abs(vectors - references).max() <= 2e-5 * max(1, np.abs(references).max())
    np.testing.assert_allclose(model.embed_images(images[2]), vectors[2], atol=1e-5)
    with pytest.raises(InputError, match="images is empty"):
        model.embed_images([])


def test_the_vector_of_a_cnn_is_the_mean_of_its_grid(tmp_path):
    model = vlm_jax.from_pretrained(fixtures.publish(fixtures.BY_NAME["resnet18"].fixtures[0], tmp_path / "resnet"))
    assert model.methods == ("embed_images", "classify")
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    references = image_references(tmp_path / "resnet", "ResNetModel", model.processor(image)[None])
    np.testing.assert_allclose(model.embed_images([image]), references, atol=2e-5)
    assert len(model.classify(image).top) == 5  # of so many classes


@pytest.mark.parametrize(("stated", "length"), [({"max_seq_length": 5}, 5), ({}, None)])
def test_a_text_is_cut_where_the_files_state_a_length(stated, length, tmp_path):
    folder = text_folder("BertModel", tmp_path / "bert")
    (folder / "sentence_bert_config.json").write_text(json.dumps(stated), encoding="utf-8")
    model = vlm_jax.from_pretrained(folder)
    if length is None:
        with pytest.raises(InputError, match="60 tokens; this encoder has positions for 38"):
            model.embed_texts("a " * 60)
        return
    np.testing.assert_allclose(model.embed_texts("a circle " * 30), model.embed_texts("a circle a"), atol=1e-6)


def test_a_model_in_bfloat16_returns_and_saves_float32(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    folder = test_image_transformers.publish("Dinov2Model", tmp_path / "dinov2")
    short, full = (vlm_jax.from_pretrained(folder, dtype=dtype) for dtype in ("bfloat16", "float32"))
    vectors = [model.embed_images([image]) for model in (short, full)]
    assert {x.dtype for x in vectors} == {np.dtype(np.float32)}
    assert 1e-5 < np.abs(vectors[0] - vectors[1]).max() < 0.1 * np.abs(vectors[1]).max()
    short.save_pretrained(tmp_path / "saved")
    assert "**PASS**" in (tmp_path / "saved" / "README.md").read_text()
    np.testing.assert_array_equal(vlm_jax.from_pretrained(tmp_path / "saved").embed_images([image]), vectors[1])
    words = vlm_jax.from_pretrained(text_folder("BertForMaskedLM", tmp_path / "bert"), dtype="bfloat16")
    assert words.embed_texts("a circle").dtype == np.float32 and words.fill_mask("a [MASK]", top=2).text
