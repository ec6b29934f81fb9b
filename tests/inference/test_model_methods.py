"""What models of other tasks and published weights can do from Python."""

import jax
import numpy as np
import pytest
from PIL import Image

import vlm_jax
from tests.weights import fixtures, own
from vlm_jax.config.captioning import Beam, Greedy, Sample
from vlm_jax.errors import InputError
from vlm_jax.inference.captioning import beam_search
from vlm_jax.run_folder import IMAGE_TOKENIZER
from vlm_jax.weights.import_folder import read, write_import

TEXTS = ["a circle", "what color is the shape?", "is there a circle?"]


def noise(size=(40, 30), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_captions_are_those_of_a_beam_search(captioning_run):
    model = vlm_jax.from_pretrained(captioning_run.path)
    assert model.methods == ("generate_captions", "features")
    images = [noise(seed=seed) for seed in range(3)]
    captions = model.generate_captions(images, num_beams=3)
    pixels = np.stack([model.processor(image) for image in images])
    wanted = model.task.generate(model.params, [pixels], decoding=Beam(num_beams=3))
    assert [caption.text for caption in captions] == [hypotheses[0].text for hypotheses in wanted]
    assert captions[0].log_probability == pytest.approx(wanted[0][0].log_probability, abs=1e-4)
    assert captions[0].probability == pytest.approx(np.exp(captions[0].log_probability))
    assert model.generate_captions(images[0], num_beams=3).text == captions[0].text
    assert (
        model.generate_captions(images[0], num_beams=1).hypotheses
        == model._captions(images[:1], Greedy())[0].hypotheses
    )
    with pytest.raises(InputError, match="num_beams"):
        model.generate_captions(images[0], num_beams=0)
    assert model.features(images[0], "a red circle").text.shape == (24, 16)


def test_a_beam_search_keeps_what_the_run_says_of_captions():
    decoding = Sample(min_length=3, no_repeat_ngram_size=2, prefix="a", temperature=2.0)
    assert beam_search(decoding, 4) == Beam(num_beams=4, min_length=3, no_repeat_ngram_size=2, prefix="a")
    assert beam_search(decoding, 1) == Greedy(min_length=3, no_repeat_ngram_size=2, prefix="a")
    several = Beam(num_beams=3, num_return_sequences=3, length_penalty=0.5)
    assert beam_search(several, 2) == Beam(num_beams=2, length_penalty=0.5)


def test_images_are_generated_from_a_seed(generation_run, tmp_path):
    model = vlm_jax.from_pretrained(generation_run.path)
    assert model.methods == ("generate_images",)
    first, second = model.generate_images(["a red circle", "a xylophone"], num_images=3, seed=1)
    assert first.images.shape == (3, *model.config.image.size, 3) and first.images.dtype == np.uint8
    assert first.warnings == () and "xylophone" in second.warnings[0]
    alone = model.generate_images("a red circle", num_images=3, seed=1)
    np.testing.assert_array_equal(alone.images, first.images)
    assert (model.generate_images("a red circle", num_images=3, seed=2).images != first.images).any()
    with pytest.raises(InputError, match="num_images"):
        model.generate_images("a red circle", num_images=0)
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / IMAGE_TOKENIZER).is_file()
    again = vlm_jax.from_pretrained(tmp_path / "model").generate_images("a red circle", num_images=3, seed=1)
    np.testing.assert_array_equal(again.images, first.images)


def test_a_tokenizer_run_has_its_parts_alone(tokenizer_run):
    model = vlm_jax.from_pretrained(tokenizer_run.path)
    assert model.methods == () and model.tokenizer is None
    output = jax.jit(model.module.apply)({"params": model.params}, model.processor(noise())[None])
    assert output.image.shape == (1, *model.config.image.size, 3)
    with pytest.raises(InputError, match="no method classify; it has module and params alone"):
        model.classify(noise())


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    return vlm_jax.from_pretrained(own.write(tmp_path_factory.mktemp("published") / "bert"))


def test_texts_become_vectors(text_model, tmp_path):
    assert text_model.methods == ("embed_texts",)
    vectors = text_model.embed_texts(TEXTS)
    assert vectors.shape == (3, 16) and text_model.embed_texts(TEXTS[0]).shape == (16,)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    write_import(text_model.converted, tmp_path / "import")
    again = vlm_jax.from_pretrained(tmp_path / "import")
    np.testing.assert_array_equal(again.embed_texts(TEXTS), vectors)
    (tmp_path / "import" / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(InputError, match=r"vocab.txt has 6 bytes"):
        vlm_jax.from_pretrained(tmp_path / "import")
    with pytest.raises(InputError, match="checkpoint is 'latest'"):
        vlm_jax.from_pretrained(tmp_path / "import", checkpoint="latest")


def test_a_text_beyond_the_positions_is_refused(text_model):
    assert text_model.embed_texts("a " * 18).shape == (16,)
    with pytest.raises(InputError, match="19 tokens; this encoder has positions for 18"):
        text_model.embed_texts([*TEXTS, "a " * 19])
    with pytest.raises(InputError, match="texts is empty"):
        text_model.embed_texts([])


def test_images_are_classified(tmp_path):
    folder = fixtures.publish(fixtures.BY_NAME["torchvision_resnet18"].fixtures[0], tmp_path / "resnet")
    model = vlm_jax.from_pretrained(folder)
    assert model.methods == ("embed_images", "classify")
    images = [noise(seed=seed) for seed in range(3)]
    results = model.classify(images, top=4)
    pixels = np.stack([model.processor(image) for image in images])
    logits = np.asarray(jax.jit(model.module.apply)({"params": model.params}, pixels)[1])
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    for result, row in zip(results, shares, strict=True):
        order = np.argsort(-row)[:4]
        assert [label for label, _ in result.top] == [f"class {index}" for index in order]
        np.testing.assert_allclose([share for _, share in result.top], row[order], rtol=1e-4)
        assert (result.label, result.probability) == result.top[0]
    compiled = model._probabilities._cache_size()
    model.classify([*images, Image.fromarray(images[0])])
    assert model._probabilities._cache_size() == compiled
    for top in (0, fixtures.CLASSES + 1):
        with pytest.raises(InputError, match=f"top is {top}; expected 1 to {fixtures.CLASSES}"):
            model.classify(images, top=top)


def test_grid_features_are_fused_with_texts(tmp_path):
    folder = fixtures.publish(fixtures.BY_NAME["visual_bert"].fixtures[0], tmp_path / "visual_bert")
    rows = read(str(folder)).architecture.model.vocab_size
    words = [*own.WORDS, *(f"word{number}" for number in range(rows - len(own.WORDS)))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    model = vlm_jax.from_pretrained(folder)
    assert model.methods == ("features",)
    size = model.config.model.image.feature_size
    images = [np.random.default_rng(count).normal(size=(count, size)).astype(np.float32) for count in (3, 5)]
    results = model.features(images, TEXTS[:2])
    assert [len(result.image) for result in results] == [3, 3, 5, 5] and results[0].text_mask.sum() == 4
    ids, mask = model.tokenizer.encode(TEXTS[1:2], results[1].text.shape[0])
    output = jax.jit(model.module.apply)({"params": model.params}, ids, mask, image=images[0][None])
    np.testing.assert_allclose(results[1].text, output.text[0], atol=2e-5)
    np.testing.assert_allclose(results[1].image, output.image[0], atol=2e-5)
    with pytest.raises(InputError, match=r"an image is uint8\[40, 30, 3\]; expected grid features"):
        model.features(noise(), "a circle")
