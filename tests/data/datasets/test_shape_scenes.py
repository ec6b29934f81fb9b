"""Shape scenes as a data set: splits that share nothing, records that agree with their pixels."""

import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from pydantic import ValidationError

from tests.scenes.reading import read_off
from vlm_jax.data.datasets import shape_scenes
from vlm_jax.data.datasets.builder import RecordBuilder
from vlm_jax.data.datasets.shape_scenes import SceneCaptions, ShapeScenes
from vlm_jax.data.preparation import prepare
from vlm_jax.data.records import Examples
from vlm_jax.data.sources import open_split
from vlm_jax.scenes.language import caption
from vlm_jax.scenes.rendering import render
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.sampling import ALL_PAIRS, HELD_OUT_PAIRS
from vlm_jax.scenes.scene import from_json

PUBLISHED = dict(shape_scenes.NUM_IMAGES)  # before a fixture makes them few
FEW = {"train": 150, "validation": 25, "test": 25, "held_out": 40, "unseen_prompts": 30}


def prepared(folder, num_images, **settings):
    """The records of each split by their id, with images still encoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_scenes, "NUM_IMAGES", num_images)
        builder = prepare(ShapeScenes(directory=folder, **settings))
    encoded = {"image": tfds.decode.SkipDecoding()}
    sources = {split: builder.as_data_source(split=split, decoders=encoded) for split in builder.info.splits}
    return {split: {record["image_id"].decode(): record for record in source} for split, source in sources.items()}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("shape_scenes"), FEW)


def pixels(record):
    return np.asarray(Image.open(io.BytesIO(record["image"])))


def texts(record):
    return [text.decode() for text in record["captions"]]


def scene_of(record):
    return from_json(record["scene"].decode())


def test_how_many_images_there_are(splits, tmp_path, monkeypatch):
    assert {split: len(records) for split, records in splits.items()} == FEW
    assert PUBLISHED == {"train": 12_000, "validation": 500, "test": 1_000, "held_out": 500, "unseen_prompts": 500}
    monkeypatch.setattr(shape_scenes, "NUM_IMAGES", PUBLISHED)
    assert ShapeScenes().variant == "size_64_objects_1_to_4_images_12000_500_1000_500_500_seed_0"
    builder = RecordBuilder(SceneCaptions(seed=7, size=128, objects=(2, 3), captions="first"), tmp_path)
    variant = "size_128_objects_2_to_3_images_12000_500_1000_500_500_seed_7"
    assert Path(builder.data_dir).relative_to(tmp_path) == Path("shape_scenes") / variant / "1.0.0"


def test_records_agree_with_their_pixels(splits):
    for record in itertools.chain(*(records.values() for records in splits.values())):
        scene, image = scene_of(record), pixels(record)
        assert image.shape == (64, 64, 3) and 1 <= len(scene.objects) <= 4
        seen = sorted(obj[:3] for obj in read_off(image))
        assert seen == sorted((obj.size, obj.color, obj.shape) for obj in scene.objects)
        assert (image == render(scene)).all()
        first, *others = texts(record)
        assert first == caption(scene) and len({first, *others}) == 5
        assert all(check_caption(text, scene).true for text in (first, *others))
        questions = record["questions"]
        kinds, answers = ([text.decode() for text in questions[name]] for name in ("kind", "answers"))
        assert set(kinds) <= {"count", "colour", "relation", "existence"} and len(set(questions["question_id"])) == len(
            kinds
        )
        for kind in ("relation", "existence"):
            yes_no = [answer for answer, of in zip(answers, kinds, strict=True) if of == kind]
            assert sorted(yes_no) == (["no", "yes"] if kind == "existence" or len(scene.objects) > 1 else [])


def test_records_are_examples(splits):
    record = splits["test"]["test/0"]
    (example,) = Examples([record])
    assert example.image_id == "test/0" and example.image == record["image"]
    assert example.texts[0].text_id == "test/0/0" and example.texts[0].kind == "count"
    assert len(example.texts) == len(record["questions"]["text"])


def test_no_image_is_in_two_splits(splits):
    shown = {split: {pixels(record).tobytes() for record in records.values()} for split, records in splits.items()}
    placed = {split: {scene_of(record).objects for record in records.values()} for split, records in splits.items()}
    for split, other in itertools.combinations(FEW, 2):
        assert not shown[split] & shown[other] and not placed[split] & placed[other]
    assert sum(map(len, shown.values())) == sum(map(len, placed.values())) == sum(FEW.values())


def test_scenes_of_one_object_do_not_repeat(tmp_path, monkeypatch):
    """With one kind of object and few places, the same scene is drawn again and again, and left out."""
    monkeypatch.setattr("vlm_jax.scenes.scene.SIZES", {"large": 31, "small": 31})
    monkeypatch.setattr("vlm_jax.scenes.sampling.SIZES", {"large": 31, "small": 31})
    splits = prepared(tmp_path, dict(zip(FEW, (60, 10, 10, 10, 10), strict=True)), objects=(1, 1))
    assert "unseen_prompts" not in splits, "every caption of one object is known"
    objects = [scene_of(record).objects for records in splits.values() for record in records.values()]
    assert len(set(objects)) == 90


def test_unseen_prompts_are_of_no_training_image(tmp_path):
    splits = prepared(tmp_path, dict(zip(FEW, (600, 2, 2, 2, 40), strict=True)), objects=(1, 2))
    known = {texts(record)[0] for record in splits["train"].values()}
    assert len(splits["unseen_prompts"]) == 40
    assert not known & {texts(record)[0] for record in splits["unseen_prompts"].values()}


def test_held_out_pairs_are_in_every_image_of_their_split_and_nowhere_else(splits):
    def pairs(text):
        phrases = re.split(r" (?:and|with|is|left|right|above|below|over|under|no) |[,?]", text)
        return {pair for phrase in phrases for pair in ALL_PAIRS if set(pair) <= set(phrase.split())}

    for split, records in splits.items():
        for record in records.values():
            shown = {tuple(obj[1:3]) for obj in read_off(pixels(record))}
            questions = [text.decode() for text in record["questions"]["text"]]
            stated = set().union(*(pairs(text) for text in (*texts(record), *questions)))
            if split == "held_out":
                assert shown & set(HELD_OUT_PAIRS)
            else:
                assert not (shown | stated) & set(HELD_OUT_PAIRS), (texts(record), questions)
    seen = {pair for record in splits["train"].values() for pair in pairs(texts(record)[0])}
    assert seen == set(ALL_PAIRS) - set(HELD_OUT_PAIRS)


def test_one_seed_gives_the_same_bits_and_another_other_images(splits, tmp_path):
    few = dict(zip(FEW, (20, 5, 5, 5, 5), strict=True))
    again, other = (prepared(tmp_path, few, seed=seed) for seed in (0, 7))
    del again["unseen_prompts"]  # what is unseen depends on how much is seen
    for split, records in again.items():
        for image_id, record in records.items():
            expected = splits[split][image_id]
            assert json.dumps(record, default=str) == json.dumps(expected, default=str)
            assert record["image"] == expected["image"] and texts(record) == texts(expected)
            assert record["image"] != other[split][image_id]["image"]
    assert {text for record in other["test"].values() for text in texts(record)} != {
        text for record in again["test"].values() for text in texts(record)
    }


def test_sizes_and_numbers_of_objects_are_arguments(tmp_path):
    few = dict(zip(FEW, (12, 2, 2, 2, 2), strict=True))
    splits = prepared(tmp_path, few, size=128, objects=(2, 3))
    for record in itertools.chain(*(records.values() for records in splits.values())):
        assert pixels(record).shape == (128, 128, 3) and len(scene_of(record).objects) in (2, 3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": 65}, "multiple of 64.*65"),
        ({"objects": (1, 7)}, r"\(1, 7\).*at most 6"),
        ({"objects": (3, 2)}, r"\(3, 2\).*smallest"),
    ],
)
def test_wrong_settings_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        ShapeScenes(**settings)


def test_seed_size_and_objects_are_those_of_the_settings(tmp_path):
    def scenes(**settings):
        examples = open_split(SceneCaptions(directory=tmp_path, **settings), "test")
        images = [Image.open(io.BytesIO(examples[place].image)) for place in range(len(examples))]
        return {image.size for image in images}, [from_json(example.scene) for example in examples]

    (sizes, two), (other_sizes, other) = scenes(seed=3, size=128, objects=(2, 2)), scenes(seed=4, objects=(1, 3))
    assert sizes == {(128, 128)} and other_sizes == {(64, 64)}
    assert {len(scene.objects) for scene in two} == {2} and {len(scene.objects) for scene in other} == {1, 2, 3}
    assert scenes(seed=3, objects=(1, 3))[1] != other
