"""Outputs of a frozen image encoder are computed once: what a run learns from them, and when they are made again."""

import itertools
import pickle
from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.feature_data import COMMON, COUNT, TRUNK, save_image
from vlm_jax.config.captioning import Captioning
from vlm_jax.config.captioning import Model as CaptioningModel
from vlm_jax.config.encoders import FeatureFolder, Patches
from vlm_jax.config.image_tokenizer import ImageTokenizer
from vlm_jax.config.optimizers import SGD, AdamW
from vlm_jax.config.run import Training
from vlm_jax.config.use import ImageScoring
from vlm_jax.data.feature_rows import StoredFeatures
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.data.images import decode_image, normalise, resize_image
from vlm_jax.data.row_store import ROWS, RowStore
from vlm_jax.data.user_files.table import TableCaptions, TableImages
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.training import loop
from vlm_jax.training.scoring import rescore, with_settings
from vlm_jax.trees import flatten

VIEWS = {"image.flip": True, "image.shift": 2, "data.stored_views": 3}


def test_features_are_the_encoders_outputs_in_float16(feature_config, start_run):
    trainer = start_run(feature_config)
    image = COMMON["image"]
    for example in trainer.validation:
        pixels = jnp.asarray(normalise(resize_image(decode_image(example.image, max_pixels=10**6), image), image))
        grid = trainer.task.model.apply(
            {"params": trainer.state.params}, pixels[None], method=lambda model, image: model.image(image)
        )
        row = trainer.task.encode.cached.get(example.image)
        assert row.dtype == np.float16 and row.shape == (4, 4, 6)
        np.testing.assert_allclose(row, grid[0], rtol=2**-11, atol=1e-6)


@pytest.mark.parametrize("task", ["vqa", "captioning"])
def test_a_run_on_features_equals_one_end_to_end_within_rounding(feature_config, feature_files, start_run, task):
    if task == "captioning":
        feature_config = Captioning(data=TableCaptions(**feature_files), model=CaptioningModel(**TRUNK), **COMMON)
    feature_config = feature_config.model_copy(
        update={"optimizer": SGD(learning_rate=0.1, warmup_steps=0, frozen=("^image/",))}
    )
    trainers = start_run(feature_config), start_run(with_changes(feature_config, {"data.stored_views": 0}))
    assert [isinstance(trainer.task.encode.cached, StoredFeatures) for trainer in trainers] == [True, False]
    before = flatten(jax.device_get(trainers[0].state.params))
    results = [trainer.run() for trainer in trainers]
    first, second = (flatten(trainer.state.params) for trainer in trainers)
    assert first.keys() == second.keys() and any(path.startswith("image/") for path in first)
    moved = apart = 0.0
    for path, leaf in first.items():
        if path.startswith("image/"):
            np.testing.assert_array_equal(leaf, second[path])
            np.testing.assert_array_equal(leaf, before[path])
        moved = max(moved, np.abs(leaf - before[path]).max())
        apart = max(apart, np.abs(leaf - second[path]).max())
    assert 0 < apart < 2**-10 * moved
    assert results[0]["metrics"].keys() == results[1]["metrics"].keys()


def test_the_loss_is_that_of_pixels_within_rounding(feature_config, start_run):
    trainers = start_run(feature_config), start_run(with_changes(feature_config, {"data.stored_views": 0}))
    losses = []
    for trainer in trainers:
        batch = next(trainer.loader).batch
        losses.append(float(jax.jit(trainer.task.loss_sums)(trainers[0].state.params, batch, None).loss))
    assert losses[0] == pytest.approx(losses[1], rel=2**-11) and losses[0] != losses[1]


def test_another_run_computes_nothing(feature_config, start_run, computed_views, capsys):
    start_run(feature_config)
    assert len(computed_views) == 2 * COUNT and "12 views" in capsys.readouterr().err
    other = with_changes(feature_config, {"model.image.projection": "mlp", "model.num_layers": 2, "optimizer.ema": 0.9})
    start_run(other)
    assert len(computed_views) == 2 * COUNT and "views" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"seed": 1}, 2 * COUNT),  # other weights
        ({"image.mean": (0.1, 0.2, 0.3)}, 2 * COUNT),
        ({"image.size": (10, 10)}, 2 * COUNT),
        ({"image.resize.kind": "stretch"}, 2 * COUNT),
        ({"compute.dtype": "bfloat16"}, 2 * COUNT),
        ({"data.stored_views": 9}, 0),  # without augmentation all views are one
        (VIEWS, 3 * COUNT),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_changes_features_computes_them_again(feature_config, start_run, computed_views, change, count):
    start_run(feature_config)
    computed_views.clear()
    start_run(with_changes(feature_config, change))
    assert len(computed_views) == count


def test_a_changed_file_is_computed_again_and_no_other(feature_config, start_run, computed_views):
    start_run(feature_config)
    computed_views.clear()
    save_image(feature_config.data.images / "3.png", 99)
    start_run(feature_config)
    assert len(computed_views) == 1


def test_a_damaged_row_is_named_and_computed_again(feature_config, start_run, computed_views):
    trainer = start_run(feature_config)
    with (trainer.task.encode.cached.store.directory / ROWS).open("r+b") as rows:
        rows.seek(2 * 4 * 4 * 6 * 2)
        rows.write(b"damage")
    computed_views.clear()
    again = start_run(feature_config)
    with pytest.raises(InputError, match=str(feature_config.data.directory)):
        for examples in (again.train, again.validation):
            list(map(again.task.encode, examples))
    start_run(feature_config)
    assert len(computed_views) == 1


def test_training_takes_stored_views_and_scoring_the_image(feature_config, start_run):
    feature_config = with_changes(feature_config, VIEWS | {"training.batch_images": 2})
    trainer = start_run(feature_config)
    features = trainer.task.encode.cached
    assert len(features.store) == 2 * COUNT + 3 * COUNT
    views = {example.image_id: [row.tobytes() for row in features.views(example.image)] for example in trainer.train}
    plain = {features.get(example.image).tobytes() for example in trainer.train}
    every = {row for rows in views.values() for row in rows} | plain
    assert 3 * COUNT < len(every) <= 4 * COUNT  # two of 50 augmentations may be one
    taken = {row.tobytes() for loaded in itertools.islice(trainer.loader, 40) for row in loaded.batch.image}
    assert taken == {row for rows in views.values() for row in rows}
    for example in trainer.validation:
        encoded = trainer.task.encode(example)
        assert encoded.views == () and encoded.image.tobytes() == features.get(example.image).tobytes()


def test_views_are_the_same_in_every_run_and_a_loader_goes_on_with_them(feature_config, start_run):
    feature_config = with_changes(feature_config, VIEWS)
    batches = list(itertools.islice(start_run(feature_config).loader, 6))
    again = start_run(feature_config).loader
    list(itertools.islice(again, 2))
    restored = pickle.loads(pickle.dumps(again))
    for batch, other in zip(batches[2:], restored, strict=False):
        np.testing.assert_array_equal(batch.batch.image, other.batch.image)
    restored.close()


def test_parts_of_images_are_stored_as_views(feature_config, start_run):
    """Evaluation reads the features of whole images, those of a run without parts."""
    whole = with_changes(feature_config, {"image.resize.kind": "stretch"})
    stretched = start_run(whole)
    change = {"image.resize.kind": "random_resized_crop", "data.stored_views": 3}
    trainer = start_run(with_changes(feature_config, change))
    features = trainer.task.encode.cached
    assert features.store.directory == stretched.task.encode.cached.store.directory
    assert len(features.store) == 2 * COUNT + 3 * COUNT
    for example in trainer.train:
        rows = {row.tobytes() for row in (features.get(example.image), *features.views(example.image))}
        assert len(rows) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ("random_resized_crop", "data.stored_views 1")),
        ({"data.stored_views": 0, "model.image": FeatureFolder(folder=Path("features"))}, ("random_resized_crop",)),
    ],
)
def test_one_stored_view_and_parts_of_images_are_refused_by_name(feature_config, change, words):
    with pytest.raises(InputError) as refusal:
        with_changes(feature_config, change | {"image.resize.kind": "random_resized_crop"})
    assert all(word in str(refusal.value) for word in words) and "\n" not in str(refusal.value)


def test_a_stopped_run_on_features_ends_as_if_it_never_was(feature_config, start_run, monkeypatch):
    feature_config = with_changes(feature_config, VIEWS | {"optimizer.ema": 0.9})
    whole = start_run(feature_config)
    whole.run()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_requests", lambda: nullcontext(lambda: 15))
        with pytest.raises(loop.Interrupted):
            start_run(feature_config, "stopped").run()
    resumed = start_run(feature_config, "stopped")
    resumed.run()
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_run_reads_the_features_of_its_weights(feature_config, start_run, computed_views, monkeypatch):
    """Not those of fresh weights: what the run began with may come from a source that is there no more."""
    real = loop.start

    def from_elsewhere(config, params, *read_by):
        params, weights = real(config, params, *read_by)
        return params | {"image": jax.tree.map(lambda leaf: leaf * 2, params["image"])}, weights

    with monkeypatch.context() as patch:
        patch.setattr(loop, "start", from_elsewhere)
        patch.setattr(loop, "stop_requests", lambda: nullcontext(lambda: 15))
        first = start_run(feature_config, "stopped")
        store = first.task.encode.cached.store
        with pytest.raises(loop.Interrupted):
            first.run()
    computed_views.clear()
    resumed = start_run(feature_config, "stopped")
    assert resumed.task.encode.cached.store.directory == store.directory and computed_views == []
    resumed.run()
    assert resumed.task.encode.cached.store.directory == store.directory  # of the test split as well


def test_a_run_is_scored_on_the_same_features_later(feature_config, start_run, computed_views):
    feature_config = with_changes(feature_config, {"optimizer.ema": 0.9})
    trainer = start_run(feature_config)
    trainer.run()
    computed_views.clear()
    scored = with_settings(trainer.folder.config(), {})
    result = rescore(trainer.folder, scored, split="validation", checkpoint="best", scoring=ImageScoring())
    assert computed_views == [] and result["metrics"]["accuracy"] is not None


@pytest.mark.parametrize("gigabytes", [0, 1e-6])
def test_without_room_a_run_is_refused(feature_config, start_run, computed_views, gigabytes):
    """Computed in every step, features would be others, and a run that goes on would not be the same run."""
    with pytest.raises(InputError, match=r"data\.cache_gigabytes"):
        start_run(with_changes(feature_config, {"data.cache_gigabytes": gigabytes}))
    assert computed_views == []


def test_stored_views_of_an_encoder_that_is_trained_or_missing_are_refused(feature_config, feature_files, start_run):
    with pytest.raises(InputError, match=r"optimizer\.frozen"):
        start_run(with_changes(feature_config, {"optimizer.frozen": ()}))
    with pytest.raises(InputError, match=r"optimizer\.frozen"):
        start_run(with_changes(feature_config, {"optimizer.frozen": ("image/stem",)}))
    patches = feature_config.model.model_copy(update={"image": Patches(patch_size=4)})
    with pytest.raises(InputError, match="stored_views"):
        start_run(feature_config.model_copy(update={"model": patches, "optimizer": AdamW()}))
    tokenizer = ImageTokenizer(
        data=TableImages(**feature_files),
        image=AugmentedImages(size=(16, 16)),
        image_tokenizer={"patch_size": 4, "widths": (8, 8), "depths": (1, 0)},
        training=Training(steps=2, batch_images=4),
    )
    with pytest.raises(InputError, match="stored_views"):
        start_run(tokenizer)


def test_a_store_is_found_by_its_specification(feature_config, start_run):
    store = start_run(feature_config).task.encode.cached.store
    known = RowStore.open(store.directory).specification
    assert known["encoder"]["kind"] == "small" and known["layer"] == "grid" and len(known["weights"]) == 64
