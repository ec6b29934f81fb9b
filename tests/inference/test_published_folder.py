"""The folder that `save_pretrained` of published weights writes: others load it, and its card holds the proof."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import vlm_jax
from tests.weights import fixtures, own
from vlm_jax.data.image_settings import CenterCrop, Crop, ImageInput, Pad, Stretch, StretchCrop
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights import publish
from vlm_jax.weights.checks import Check
from vlm_jax.weights.import_folder import read
from vlm_jax.weights.preprocessor import read_preprocessor, write_preprocessor

TEXTS = ["a circle", "what color is the shape?", "is there a circle? is there a circle? is there a circle?"]


def stated(folder, pooling, *, normalize, longest):
    """The files of sentence-transformers beside an encoder."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")] + [("Normalize", "2_Normalize")] * normalize
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    (folder / "1_Pooling").mkdir()
    width = own.SETTINGS["hidden_size"]
    modes = {f"pooling_mode_{mode}": mode == pooling for mode in ("cls_token", "mean_tokens", "lasttoken")}
    for name, value in (
        ("modules.json", modules),
        ("1_Pooling/config.json", {"word_embedding_dimension": width} | modes),
        ("sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False}),
    ):
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder


def sentence_vectors(folder, texts):
    """The recipe of sentence-transformers in torch (float64), as the files of the folder state it."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    modules = json.loads((folder / "modules.json").read_text())
    pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text())
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    options = {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}
    inputs = AutoTokenizer.from_pretrained(folder)(texts, **options)
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None].double()
    last = inputs["attention_mask"].sum(1) - 1
    vectors = {
        "pooling_mode_cls_token": states[:, 0],
        "pooling_mode_mean_tokens": (states * mask).sum(1) / mask.sum(1),
        "pooling_mode_lasttoken": states[torch.arange(len(texts)), last],
    }
    (mode,) = (name for name in vectors if pooling[name])
    vectors = vectors[mode]
    return (torch.nn.functional.normalize(vectors) if len(modules) == 3 else vectors).numpy()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("pooling", "normalize", "longest"),
    [("cls_token", False, 6), ("lasttoken", True, 9), ("mean_tokens", False, None), (None, True, None)],
)
def test_a_saved_encoder_has_the_vectors_of_its_files(pooling, normalize, longest, tmp_path):
    pytest.importorskip("torch", reason="torch is the oracle")
    folder = own.write(tmp_path / "bert")
    if pooling:
        stated(folder, pooling, normalize=normalize, longest=longest)
    model = vlm_jax.from_pretrained(folder)
    vectors = model.embed_texts(TEXTS)
    model.save_pretrained(tmp_path / "saved", prove=False)
    np.testing.assert_allclose(vectors, sentence_vectors(tmp_path / "saved", TEXTS), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(vlm_jax.from_pretrained(tmp_path / "saved").embed_texts(TEXTS), vectors)
    assert (np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5) == normalize


@pytest.mark.parametrize(("limit", "first_position", "longest"), [(None, 0, 20), (7, 0, 7), (50, 0, 20), (None, 2, 18)])
def test_a_saved_encoder_states_the_longest_text_that_it_reads(limit, first_position, longest, tmp_path):
    """The least of the tokenizer's limit and of the positions that texts have."""
    folder = own.write(tmp_path / "bert")
    if limit is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}), encoding="utf-8")
    converted = read(str(folder))
    model = with_changes(converted.architecture.model, {"first_position": first_position})
    converted = dataclasses.replace(converted, architecture=converted.architecture._replace(model=model))
    publish.publish(converted, tmp_path / "saved", prove=False)
    settings = json.loads((tmp_path / "saved" / "sentence_bert_config.json").read_text(encoding="utf-8"))
    assert settings["max_seq_length"] == longest


def shaken(params):
    random = np.random.default_rng(3)
    leaves = {path: leaf + random.normal(0, 0.05, leaf.shape) for path, leaf in flatten(params).items()}
    return unflatten({path: leaf.astype(np.float32) for path, leaf in leaves.items()})


@pytest.mark.parity
def test_trained_parameters_are_those_that_transformers_loads(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from transformers import BertModel

    model = vlm_jax.from_pretrained(own.write(tmp_path / "bert"))
    model.params = shaken(model.params)
    model.save_pretrained(tmp_path / "assigned", prove=False)
    model.save_pretrained(tmp_path / "passed", params=jax.tree.map(jax.numpy.asarray, model.params))
    reference = BertModel.from_pretrained(tmp_path / "passed").eval()
    ids, mask = model.tokenizer.encode(TEXTS[:2], 9)
    with torch.no_grad():
        states = reference(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long()).last_hidden_state
    output = jax.jit(model.module.apply)({"params": model.params}, ids, mask).text
    np.testing.assert_allclose(np.asarray(output)[mask], states.numpy()[mask], rtol=0, atol=1e-6)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("assigned", "passed")]
    assert weights[0] == weights[1]
    np.testing.assert_array_equal(
        vlm_jax.from_pretrained(tmp_path / "assigned").embed_texts(TEXTS), model.embed_texts(TEXTS)
    )
    card = (tmp_path / "passed" / "README.md").read_text()
    assert f"{model.converted.parameter_count:,} of {model.converted.parameter_count:,} parameters" in card


def lacking(params):
    params["embed"].pop("norm")


def widened(params):
    params["embed"]["norm"]["scale"] = np.ones(3, np.float32)


def broken(params):
    params["embed"]["norm"]["scale"] = np.full(16, np.nan, np.float32)


@pytest.mark.parametrize(("change", "word"), [(lacking, "missing"), (widened, r"float32\[3\]"), (broken, "NaN")])
def test_parameters_that_do_not_fit_write_nothing(change, word, tmp_path):
    model = vlm_jax.from_pretrained(own.write(tmp_path / "bert"))
    params = shaken(model.params)
    change(params)
    with pytest.raises(InputError, match=word):
        model.save_pretrained(tmp_path / "saved", params=params)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parity
def test_the_card_holds_the_proof(tmp_path):
    pytest.importorskip("torch", reason="torch is the oracle")
    from huggingface_hub import ModelCard

    model = vlm_jax.from_pretrained(own.write(tmp_path / "bert"))
    model.save_pretrained(tmp_path / "saved")
    card = ModelCard.load(tmp_path / "saved" / "README.md")
    assert card.data.library_name == "sentence-transformers" and card.data.pipeline_tag == "sentence-similarity"
    for name in ("embeddings", "layer 1", "layer 2", "pooled"):
        value = card.text.split(f"| {name} | ")[1].split(" ")[0]
        assert 0 < float(value) < 2e-5
    assert "**PASS**" in card.text and model.converted.origin.sha256 in card.text
    assert str(tmp_path) not in card.text and "unchanged" in card.text
    with pytest.raises(InputError, match="is there already"):
        model.save_pretrained(tmp_path / "saved")


def test_a_proof_that_fails_or_is_left_out_is_said(tmp_path, monkeypatch, caplog):
    model = vlm_jax.from_pretrained(own.write(tmp_path / "bert"))
    model.save_pretrained(tmp_path / "unproven", prove=False)
    assert "PASS" not in (tmp_path / "unproven" / "README.md").read_text() and not caplog.records
    monkeypatch.setattr(publish, "verify_export", lambda *_: iter([Check("layer 1", "1.0e-01", "FAIL")]))
    model.save_pretrained(tmp_path / "saved")
    assert "**FAIL**" in (tmp_path / "saved" / "README.md").read_text()
    assert "FAIL" in caplog.text and str(tmp_path / "saved") in caplog.text


@pytest.mark.parity
def test_a_saved_image_encoder_has_its_image_processor(tmp_path):
    pytest.importorskip("torch", reason="torch is the oracle")
    from transformers import AutoImageProcessor

    model = vlm_jax.from_pretrained(fixtures.publish(fixtures.BY_NAME["resnet18"].fixtures[0], tmp_path / "resnet"))
    model.save_pretrained(tmp_path / "saved")
    assert "**PASS**" in (tmp_path / "saved" / "README.md").read_text()
    assert vlm_jax.from_pretrained(tmp_path / "saved").processor.settings == model.processor.settings
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8)
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "saved", backend="pil")(image, return_tensors="np")
    difference = np.abs(pixels["pixel_values"][0].transpose(1, 2, 0) - model.processor(image))
    assert difference.max() * 255 * min(model.processor.settings.std) <= 0.01


@pytest.mark.parametrize(
    "resize",
    [
        Stretch(resample="lanczos"),
        StretchCrop(scaled_size=(60, 50), corner="floored"),
        CenterCrop(short_side=50, resample="bilinear", corner="floored"),
        Crop(),
    ],
    ids=lambda resize: resize.kind,
)
def test_an_image_processor_is_written_as_it_is_read(resize):
    image = ImageInput(size=(48, 48), resize=resize, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    wanted = CenterCrop(short_side=48, corner="floored") if resize.kind == "crop" else resize
    assert read_preprocessor(write_preprocessor(image)) == with_changes(image, {"resize": wanted})
    assert write_preprocessor(with_changes(image, {"resize": Pad()})) == {}


@pytest.mark.parametrize("name", ["torchvision_resnet18", "efficientnet_lite0"])
def test_a_network_that_transformers_lacks_is_read_again(name, tmp_path):
    model = vlm_jax.from_pretrained(fixtures.publish(fixtures.BY_NAME[name].fixtures[0], tmp_path / name))
    model.save_pretrained(tmp_path / "saved", prove=False)
    again = vlm_jax.from_pretrained(tmp_path / "saved")
    assert (again.config, again.processor.settings) == (model.config, model.processor.settings)
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    np.testing.assert_array_equal(again.embed_images(image), model.embed_images(image))
    assert "transformers import" not in (tmp_path / "saved" / "README.md").read_text()


def test_the_card_names_the_package(tmp_path, monkeypatch):
    own.write(tmp_path / "site" / "a_package" / "bert")
    (tmp_path / "site" / "a_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    vlm_jax.from_pretrained("package:a_package/bert").save_pretrained(tmp_path / "saved", prove=False)
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "package:a_package/bert" in card and str(tmp_path) not in card
