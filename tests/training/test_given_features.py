"""Features that a user gives in the place of images: written by extract-features, or the user's own files."""

import itertools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments import extract_features, inspect_model, predict, train
from tests.training.feature_data import COMMON, COUNT, TRUNK, save_image
from vlm_jax.config.captioning import Captioning
from vlm_jax.config.captioning import Model as CaptioningModel
from vlm_jax.config.encoders import FeatureFolder
from vlm_jax.config.use import ImageScoring
from vlm_jax.data.row_store import INDEX, RowStore
from vlm_jax.data.tokenizer import Tokenizer
from vlm_jax.data.user_files.table import TableCaptions
from vlm_jax.errors import InputError
from vlm_jax.inference.sources import from_pretrained
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.tasks.examples import shuffled_images
from vlm_jax.training.feature_extraction import extract_features as extract
from vlm_jax.training.scoring import rescore, with_settings
from vlm_jax.training.stored_features import weights_digest
from vlm_jax.weights.import_folder import read


@pytest.fixture
def plain(feature_config):
    return with_changes(feature_config, {"data.stored_views": 0})


def reading(config, folder, **changes):
    """The config with given features in the place of its image encoder."""
    model = type(config.model)(**TRUNK | {"image": FeatureFolder(folder=folder)})
    optimizer = config.optimizer.model_copy(update={"frozen": ()})
    return with_changes(config.model_copy(update={"model": model, "optimizer": optimizer}), changes)


@pytest.mark.parametrize("task", ["vqa", "captioning"])
def test_a_run_reads_what_the_command_wrote(plain, feature_files, start_run, tmp_path, task):
    if task == "captioning":
        files = feature_files | {"stored_views": 0}
        plain = Captioning(data=TableCaptions(**files), model=CaptioningModel(**TRUNK), **COMMON)
    store = extract(plain, tmp_path / "features")
    assert len(store) == 3 * COUNT and store.shape == (4, 4, 6)
    stored = start_run(with_changes(plain, {"data.stored_views": 1}))
    given = start_run(reading(plain, tmp_path / "features"))
    assert "image" not in given.state.params
    for example in given.train:
        np.testing.assert_array_equal(
            given.task.encode.cached.get(example.image), stored.task.encode.cached.get(example.image)
        )
    result = given.run()
    assert result["split"] == "test"
    again = rescore(
        given.folder, with_settings(given.folder.config(), {}), split="test", checkpoint="best", scoring=ImageScoring()
    )
    assert again["metrics"] == result["metrics"]


def test_the_command_computes_what_is_missing(plain, tmp_path, computed_views, capsys):
    store = extract(plain, tmp_path / "features")
    assert len(computed_views) == 3 * COUNT
    index = store.directory / INDEX
    index.write_bytes(index.read_bytes()[:-10])  # a kill while the last line was written
    computed_views.clear()
    extract(plain, tmp_path / "features")
    assert len(computed_views) == 1
    save_image(plain.data.images / "3.png", 99)
    computed_views.clear()
    extract(plain, tmp_path / "features")
    assert len(computed_views) == 1


def test_the_command_writes_and_train_and_inspect_read(plain, tmp_path, capsys):
    file = tmp_path / "config.json"
    file.write_text(to_json(plain))
    folder = str(tmp_path / "features")
    preset = ["configs/tiny.py", "--data.kind", "table"]
    for split in ("train", "validation", "test"):
        preset += [f"--data.{split}", *map(str, getattr(plain.data, split))]
    preset += ["--data.images", str(plain.data.images), "--data.directory", str(plain.data.directory)]
    assert extract_features.main([*preset, "--output", folder]) == 0
    assert folder in capsys.readouterr().out and len(RowStore.open(tmp_path / "features")) == 3 * COUNT
    given = [*preset, "--model.image.kind", "features", "--model.image.folder", folder]
    assert inspect_model.main([*given, "--classes", "2"]) == 0
    assert "features" in capsys.readouterr().out
    steps = ["--training.steps", "2", "--training.batch-images", "2", "--workdir", str(tmp_path / "run")]
    assert train.main([*given, *steps]) == 0


def test_a_loaded_model_reads_features_in_the_place_of_images(plain, start_run, tmp_path, capsys):
    extract(plain, tmp_path / "features")
    trainer = start_run(reading(plain, tmp_path / "features"))
    trainer.run()
    model = from_pretrained(trainer.folder.path)
    example = trainer.train[0]
    features, question = trainer.task.encode.cached.get(example.image), example.texts[0].text
    answer = model.answer([features, features.astype(np.float32)], question)[1]
    (predicted,) = trainer.task.predict(model.params, [example._replace(texts=example.texts[:1])])
    np.testing.assert_allclose([p for _, p in answer.top], [p for _, p in predicted.top], rtol=1e-5)
    assert model.processor is None and model.features(features, question).image.shape[0] == 16
    np.save(tmp_path / "one.npy", features)
    arguments = [str(trainer.folder.path), "--image", str(tmp_path / "one.npy"), "--question", question]
    assert predict.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["answers"][0]["answer"] == answer.text
    with pytest.raises(InputError, match="--output"):
        predict.main([*arguments, "--output", str(tmp_path / "sheet.png")])
    (tmp_path / "features").rename(tmp_path / "elsewhere")  # the features of the run's own images are not needed
    model.save_pretrained(tmp_path / "saved")
    for source in (trainer.folder.path, tmp_path / "saved"):
        again = from_pretrained(source).answer(features, question)
        assert again.text == answer.text and again.probability == pytest.approx(answer.probability, rel=1e-5)
    (tmp_path / "no.npy").write_bytes(b"no")
    for image in (np.zeros((8, 8, 3), np.uint8), features[:2], tmp_path / "no.npy", "photo.jpg"):
        with pytest.raises(InputError, match=r"expected grid features, float \[4, 4, 6\]"):
            model.answer(image, question)


def test_the_command_refuses_what_it_cannot_write(plain, tmp_path):
    folder = tmp_path / "features"
    extract(plain, folder)
    with pytest.raises(InputError, match=str(folder)):
        extract(with_changes(plain, {"seed": 5}), folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="other"):
        extract(plain, tmp_path / "other")
    with pytest.raises(InputError, match="image encoder"):
        extract(reading(plain, folder), tmp_path / "again")
    with pytest.raises(InputError, match="--output"):
        extract_features.main(["configs/tiny.py"])
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file"):
            extract(plain, place)


def test_other_files_weights_and_preprocessing_are_refused(plain, start_run, tmp_path):
    folder = tmp_path / "features"
    extract(plain, folder)
    config = reading(plain, folder)
    start_run(config, "run").run()
    with pytest.raises(InputError, match=r"image\.size"):
        start_run(with_changes(config, {"image.size": (10, 10)}))
    with pytest.raises(InputError, match=r"image\.mean"):
        start_run(with_changes(config, {"image.mean": (0.1, 0.1, 0.1)}))
    extract(with_changes(plain, {"seed": 5}), tmp_path / "others")
    with pytest.raises(InputError, match=r"\(weights\)"):
        start_run(with_changes(config, {"model.image.folder": tmp_path / "others"}), "run")
    folder.rename(tmp_path / "moved")
    start_run(with_changes(config, {"model.image.folder": tmp_path / "moved"}), "run")
    save_image(plain.data.images / "3.png", 99)
    with pytest.raises(InputError, match=f"1 of {2 * COUNT} images.*'3.png'"):
        start_run(reading(plain, tmp_path / "moved"))


def features_of(number):
    return np.random.default_rng(number).normal(size=(5, 7)).astype(np.float32)


def write_own(folder, kind, numbers=range(3 * COUNT)):
    """A file for each image, or one for all."""
    rows = {f"{number}.png": features_of(number) for number in numbers}
    if kind == "safetensors":
        save_file(rows, folder / "own.safetensors")
        return folder / "own.safetensors"
    (folder / "own").mkdir()
    for name, row in rows.items():
        np.save(folder / "own" / f"{name}.npy", row)
    return folder / "own"


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_own_features_are_read_by_image_id(plain, start_run, tmp_path, kind):
    trainer = start_run(reading(plain, write_own(tmp_path, kind)))
    seen = set()
    for loaded in itertools.islice(trainer.loader, 5):
        for row, ids in zip(loaded.batch.image, loaded.text_ids, strict=True):
            name = next(example.image_id for example in trainer.train if example.texts[0].text_id == ids[0])
            np.testing.assert_array_equal(row, features_of(int(name.removesuffix(".png"))))
            seen.add(name)
    assert len(seen) == COUNT
    shuffled = shuffled_images(trainer.validation, 0)
    for example, other in zip(trainer.validation, shuffled, strict=True):
        first, second = trainer.task.encode(example).image, trainer.task.encode(other).image
        assert example.image_id == other.image_id and not np.array_equal(first, second)
    assert trainer.run()["metrics"]["accuracy"] is not None


def test_visual_bert_is_trained_further_on_features(plain, start_run, tmp_path):
    """A published model that has no image encoder: its projection of features starts from its weights."""
    from tests.weights import fixtures

    source = fixtures.publish(fixtures.BY_NAME["visual_bert_answers"].fixtures[-1], tmp_path / "visual_bert")
    Tokenizer.build(["what 0 1"], fixtures.WORDS).save(source)
    converted = read(str(source))
    model = converted.architecture.model
    rows = np.random.default_rng(0).normal(size=(3 * COUNT, 4, fixtures.FEATURES)).astype(np.float32)
    save_file({f"{number}.png": row for number, row in enumerate(rows)}, tmp_path / "own.safetensors")
    layout = ("max_position_embeddings", "max_image_positions", "modality_type_vocab_size")
    trunk = ("hidden_size", "num_attention_heads", "num_layers", "intermediate_size")
    changes = {
        "model.text.vocab_size": fixtures.WORDS,
        "model.image.positions": "shared",
        "model.fusion.attention_pattern": "bidirectional",
        "model.fusion.head.kind": "token_before_sep",
        "init.kind": "model",
        "init.model": str(source),
        "model.layout.kind": "custom",
        **{f"model.layout.{name}": getattr(model, name) for name in layout},
        **{f"model.{name}": getattr(model, name) for name in trunk},
    }
    trainer = start_run(reading(plain, tmp_path / "own.safetensors", **changes))
    np.testing.assert_array_equal(
        trainer.state.params["embed"]["image_fc"]["kernel"], converted.params["embed"]["image_fc"]["kernel"]
    )
    batch = next(trainer.loader).batch
    assert np.isfinite(jax.jit(trainer.task.loss_sums)(trainer.state.params, batch, None).loss)


def test_own_features_that_are_missing_or_damaged_are_named(plain, start_run, tmp_path):
    config = reading(plain, write_own(tmp_path, "npy"))
    (tmp_path / "own" / "4.png.npy").unlink()
    with pytest.raises(InputError, match=f"1 of {2 * COUNT} images.*'4.png'"):
        start_run(config)
    for content in (features_of(4)[:3], np.zeros((5, 7), np.int64)):
        np.save(tmp_path / "own" / "4.png.npy", content)
        with pytest.raises(InputError, match=r"'4\.png'"):
            list(map(start_run(config).task.encode, start_run(config).train))
    (tmp_path / "own" / "4.png.npy").write_bytes(b"\x93NUMPY damage")
    with pytest.raises(InputError, match=r"'4\.png'"):
        list(map(start_run(config).task.encode, start_run(config).train))


def test_an_image_id_may_not_lead_out_of_the_directory(plain, tmp_path):
    from vlm_jax.data.feature_folder import open_features

    source = open_features(write_own(tmp_path, "npy"), plain.image)
    np.save(tmp_path / "secret.npy", features_of(0))
    for image_id in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(InputError, match="leads out"):
            source.read(image_id)


@pytest.mark.parametrize("name", ["nothing", "empty", "damaged.safetensors"])
def test_a_place_without_features_is_named(plain, start_run, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.safetensors").write_bytes(b"damage")
    with pytest.raises(InputError, match=name):
        start_run(reading(plain, tmp_path / name))


def test_pixels_for_a_model_of_features_are_refused(plain, start_run, tmp_path):
    trainer = start_run(reading(plain, write_own(tmp_path, "npy")))
    with pytest.raises(InputError, match="features"):
        trainer.task.top_answers(
            trainer.state.params,
            jax.numpy.zeros((1, 8, 8, 3)),
            jax.numpy.ones((1, 1, 8), int),
            jax.numpy.ones((1, 1, 8), bool),
        )


def test_weights_of_other_values_types_and_names_have_other_digests():
    weights = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    others = [
        weights | {"a": np.float32([0, 0, 1e-30])},
        weights | {"a": np.zeros(3, np.float16)},
        {"c": weights["a"], "b": weights["b"]},
        weights | {"a": np.zeros((3, 1), np.float32)},
    ]
    assert len({weights_digest(tree) for tree in [weights, *others]}) == 5
    assert weights_digest(dict(reversed(weights.items()))) == weights_digest(weights)


def test_a_config_without_the_folder_is_refused(capsys):
    with pytest.raises(InputError, match="folder"):
        train.main(["configs/tiny.py", "--model.image.kind", "features"])
