"""Dual encoders in use: vectors, similarities and classes by name are those of transformers' classes."""

import numpy as np
import pytest

import vlm_jax
from tests.weights.test_dual_encoders import CLASSES, publish
from tests.weights.test_parity import verified
from vlm_jax.errors import InputError

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"acdfghiopst", "##a", "##o", "##t", "##g", "cat", "dog", "."]
LETTERS = [*"catdogis", *(f"{letter}</w>" for letter in "catdogis")]
TEXTS = ["a cat", "dog", "a dog is a cat"]
LABELS, TEMPLATES = ["cat", "dog", "a a a"], ["a {}", "is a {}"]


def write_tokenizer(name, folder):
    """CLIP's byte pairs, or the words of a BERT; SigLIP's own needs the package sentencepiece."""
    if name == "CLIPModel":
        letters = list(dict.fromkeys(LETTERS))
        vocabulary = {token: index for index, token in enumerate(letters)}
        vocabulary |= {"ca": len(letters), "cat</w>": len(letters) + 1, "<|startoftext|>": 21, "<|endoftext|>": 22}
        merges = [("c", "a"), ("ca", "t</w>")]
        transformers.CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    else:
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a class with a tokenizer, written once."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = publish(name, tmp_path_factory.mktemp("published") / name, std=0.2)
            write_tokenizer(name, folders[name])
        return folders[name]

    return folder


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(5)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((50, 70), (64, 33))]


def tokens(name, folder, texts):
    """What transformers' tokenizer makes of texts; SigLIP has its full length and no mask."""
    kind = transformers.CLIPTokenizer if name == "CLIPModel" else transformers.BertTokenizer
    whole = {"padding": "max_length", "max_length": 12} if name == "SiglipModel" else {"padding": True}
    encoded = kind.from_pretrained(folder)(texts, return_tensors="pt", **whole)
    return {"input_ids": encoded["input_ids"]} if name == "SiglipModel" else dict(encoded)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def close(ours, theirs):
    assert ours.shape == tuple(theirs.shape)
    assert np.abs(ours - theirs.numpy()).max() <= 1e-5 * max(1, np.abs(theirs.numpy()).max())


@pytest.mark.parametrize("name", CLASSES)
def test_vectors_products_and_classes_are_those_of_transformers(name, folder_of, images):
    folder = folder_of(name)
    model = vlm_jax.from_pretrained(folder)
    assert model.methods == ("embed_texts", "embed_images", "classify", "similarity")
    theirs = getattr(transformers, name).from_pretrained(folder, dtype=torch.float64).eval()
    pixels = torch.tensor(np.stack([model.processor(image) for image in images])).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        output = theirs(pixel_values=pixels, **tokens(name, folder, TEXTS))
        image = unit(theirs.get_image_features(pixels).pooler_output)
        text = unit(theirs.get_text_features(**tokens(name, folder, TEXTS)).pooler_output)
        close(model.embed_images(images), image)
        close(model.embed_texts(TEXTS), text)
        close(model.embed_texts(TEXTS[1]), text[1])
        close(model.embed_images(images[0]), image[0])
        similarity, activation = model.similarity(images, TEXTS), torch.sigmoid if "Siglip" in name else torch.softmax
        expected = output.logits_per_image
        close(similarity.logits_per_image, expected)
        more = {} if "Siglip" in name else {"dim": -1}
        close(similarity.probabilities, activation(expected, **more))
        close(np.asarray(model(TEXTS, images=images).logits_per_text), output.logits_per_text)
        close(np.asarray(model(model.encode(TEXTS, images=images)).text_embeds), output.text_embeds)

        wordings = [template.format(label) for label in LABELS for template in TEMPLATES]
        vectors = unit(theirs.get_text_features(**tokens(name, folder, wordings)).pooler_output)
        classes = unit(vectors.reshape(3, 2, -1).mean(1))
        biased = image @ classes.T * (1 / theirs.temperature if name == "AlignModel" else theirs.logit_scale.exp())
        probabilities = activation(biased + (theirs.logit_bias if "Siglip" in name else 0), **more)
    found = model.classify(images, top=3, candidate_labels=LABELS, hypothesis_template=TEMPLATES)
    for row, expected in zip(found, probabilities, strict=True):
        close(np.array([dict(row.top)[label] for label in LABELS]), expected)
        assert row.label == LABELS[int(expected.argmax())]


def test_the_padding_of_a_text_counts_in_siglip_alone(folder_of, images):
    """Elsewhere a longer text in the same call changes no vector."""
    for name in CLASSES:
        model = vlm_jax.from_pretrained(folder_of(name))
        ids = np.asarray(model.encode("a cat")["input_ids"])
        assert ids.shape[1] == (12 if name == "SiglipModel" else len(model.tokenizer.tokens(["a cat"])[0]) + 2)
        alone, beside = model.embed_texts("a cat"), model.embed_texts(["a cat", TEXTS[2]])[0]
        assert np.abs(alone - beside).max() <= 1e-6


def test_the_default_template_is_that_of_transformers(folder_of, images):
    model = vlm_jax.from_pretrained(folder_of("ChineseCLIPModel"))
    found = model.classify(images[0], candidate_labels=["cat", "dog"])
    expected = model.similarity(images[0], ["This is a photo of cat.", "This is a photo of dog."])
    assert found.probability == pytest.approx(float(expected.probabilities.max()), abs=1e-6) and len(found.top) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, image: model.classify(image), "candidate_labels"),
        (lambda model, image: model.classify(image, candidate_labels=[]), "candidate labels is empty"),
        (lambda model, image: model.classify(image, candidate_labels=["cat"], hypothesis_template="a"), "'a'.*{}"),
        (lambda model, image: model.classify(image, 3, candidate_labels=["cat", "dog"]), "top is 3"),
        (lambda model, image: model.similarity(image, []), "texts is empty"),
        (lambda model, image: model.similarity(image, "cat " * 20), "22 tokens .* reads 12"),
        (lambda model, image: model("cat"), "give both"),
        (lambda model, image: model({"input_ids": np.array([[2, 99, 3]])}), "99"),
        (lambda model, image: model({"image_mask": np.ones((1, 3))}), "image_mask"),
        (lambda model, image: model("cat", images=image, pairs="dog"), "pairs"),
        (lambda model, image: model.classify(image, candidate_labels=["cat"], pairs="a"), "leave pairs out"),
        (lambda model, image: model.answer(image, "what?"), "no method answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_input_is_one_line(call, words, folder_of, images):
    model = vlm_jax.from_pretrained(folder_of("AlignModel"))
    with pytest.raises(InputError, match=words) as refusal:
        call(model, images[0])
    assert "\n" not in str(refusal.value)


def test_without_a_tokenizer_ids_are_taken(tmp_path, images):
    model = vlm_jax.from_pretrained(publish("SiglipModel", tmp_path / "bare"))
    arrays = model.encode(images=images) | {"input_ids": np.array([[4, 5, 6], [7, 8, 9]])}
    assert model(arrays).logits_per_image.shape == (2, 2)
    with pytest.raises(InputError, match="no tokenizer"):
        model.similarity(images, "a cat")


def test_a_tokenizer_that_is_not_read_is_named(tmp_path, images):
    """SigLIP's own: everything but texts works, and `verify` compares everything else."""
    folder = publish("SiglipModel", tmp_path / "own")
    write_tokenizer("SiglipModel", folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    model = vlm_jax.from_pretrained(folder)
    assert model.embed_images(images).shape == (2, 24)
    with pytest.raises(InputError, match="SiglipTokenizer"):
        model.embed_texts("a cat")
    assert "logits_per_image" in verified(folder, ("tokenizer",))


def test_another_model_compares_no_images_with_texts(tmp_path):
    from tests.weights.test_image_transformers import publish as publish_encoder

    model = vlm_jax.from_pretrained(publish_encoder("ViTForImageClassification", tmp_path / "vit"))
    with pytest.raises(InputError, match="candidate_labels"):
        model.classify(np.zeros((40, 40, 3), np.uint8), candidate_labels=["cat"])
    with pytest.raises(InputError, match="no method similarity"):
        model.similarity(np.zeros((40, 40, 3), np.uint8), "cat")
