"""Sort-of-CLEVR: what is drawn, what is asked, and that answers are true of the pixels."""

import io
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vlm_jax.data.datasets import sort_of_clevr
from vlm_jax.data.datasets.sort_of_clevr import SortOfClevr
from vlm_jax.data.sources import open_split
from vlm_jax.data.splits import tenth
from vlm_jax.scenes.sort_of_clevr import COLOURS, NON_RELATIONAL, RELATIONAL, Scene, paint, sample_scene

SPLITS = ("train", "validation", "test")
FEW = {"train": 300, "test": 200}


def examples(directory, **settings):
    data = SortOfClevr(directory=directory, **settings)
    return {split: list(open_split(data, split)) for split in SPLITS}


@pytest.fixture(scope="module")
def clevr(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sort_of_clevr, "NUM_IMAGES", FEW)
        return examples(tmp_path_factory.mktemp("few"))


def pixels(example):
    return np.asarray(Image.open(io.BytesIO(example.image)))


def read_off(image):
    """The scene as the pixels show it: of each colour, the middle of its pixels, and whether corners are missing."""
    centres, circles = [], []
    for colour in COLOURS.values():
        down, across = np.nonzero((image == colour).all(-1))
        assert (np.ptp(down), np.ptp(across)) == (9, 9)
        centres.append(((across.min() + across.max() + 1) / 2, (down.min() + down.max() + 1) / 2))
        circles.append(len(down) < 100)
    return np.array(centres), circles


def expected(example, question):
    """The answer, from the pixels and the words of the question alone."""
    centres, circles = read_off(pixels(example))
    words = question.text.lower().strip("?.").split()
    (this,) = [number for number, colour in enumerate(COLOURS) if colour in words]
    distances = np.linalg.norm(centres - centres[this], axis=1)
    shape = ["circle" if circle else "square" for circle in circles]
    if {"closest", "nearest"} & set(words):
        return shape[min((distance, i) for i, distance in enumerate(distances) if i != this)[1]]
    if {"furthest", "farthest"} & set(words):
        return shape[int(distances.argmax())]
    if {"many", "count"} & set(words):
        return str(shape.count(shape[this]))
    if "left" in words:
        return "yes" if centres[this][0] < 37.5 else "no"
    if {"top", "upper", "above"} & set(words):
        return "yes" if centres[this][1] < 37.5 else "no"
    return shape[this]


@pytest.mark.slow
def test_the_published_sizes(data_directory):
    clevr = examples(data_directory)
    assert len(clevr["train"]) + len(clevr["validation"]) == 9_800 and len(clevr["test"]) == 200
    assert 880 < len(clevr["validation"]) < 1_080
    check_every_image_once(clevr)


def test_every_image_has_its_questions(clevr):
    assert sort_of_clevr.NUM_IMAGES == {"train": 9_800, "test": 200}
    assert len(clevr["train"]) + len(clevr["validation"]) == FEW["train"] and len(clevr["test"]) == FEW["test"]
    for example in itertools.chain(*clevr.values()):
        assert Counter(question.kind for question in example.texts) == {"relational": 10, "non_relational": 10}
        assert len({question.text_id for question in example.texts}) == 20
    assert pixels(clevr["test"][0]).shape == (75, 75, 3)


def test_every_answer_is_true_of_the_pixels(clevr):
    answers = Counter()
    for example in clevr["test"]:
        for question in example.texts:
            assert question.answers == (expected(example, question),), (example.image_id, question.text)
            answers[question.answers[0]] += 1
    assert set(answers) == {"yes", "no", "circle", "square", "1", "2", "3", "4", "5", "6"}
    assert 0.45 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.55
    assert 0.45 < answers["circle"] / (answers["circle"] + answers["square"]) < 0.55


def test_every_wording_occurs_with_every_colour(clevr):
    questions = {question.text for example in clevr["train"] for question in example.texts}
    wordings = [w for topics in (RELATIONAL, NON_RELATIONAL) for listed in topics.values() for w in listed]
    assert questions == {wording.format(colour) for wording in wordings for colour in COLOURS}
    assert len(set(wordings)) == len(wordings) == 18


def test_no_image_is_in_two_splits(clevr):
    check_every_image_once(clevr)


def check_every_image_once(clevr):
    shown = {split: {pixels(example).tobytes() for example in examples} for split, examples in clevr.items()}
    for split, other in itertools.combinations(SPLITS, 2):
        assert not shown[split] & shown[other]
    assert sum(map(len, shown.values())) == sum(map(len, clevr.values()))
    assert all(tenth(example.image_id) == 0 for example in clevr["validation"])


def test_no_answer_is_a_toss_up():
    random = np.random.default_rng(1)
    for _ in range(200):
        centres = sample_scene(random).centres
        for this in range(6):
            distances = np.sort(np.square(centres - centres[this]).sum(1))
            assert distances[1] < distances[2] and distances[4] < distances[5]
            assert centres.min() >= 5 and centres.max() <= 70


def test_shapes_do_not_overlap():
    """Squares that touch at their sides keep all their pixels."""
    centres = np.array([[5, 5], [15, 5], [15, 15], [40, 40], [70, 70], [60, 20]])
    image = paint(Scene(centres, (False, False, False, True, False, False)))
    covered = [int((image == colour).all(-1).sum()) for colour in COLOURS.values()]
    assert covered[:3] == [100, 100, 100] and covered[4:] == [100, 100] and 70 < covered[3] < 90


def test_one_seed_gives_the_same_bits_and_another_other_images(clevr, tmp_path, monkeypatch):
    monkeypatch.setattr(sort_of_clevr, "NUM_IMAGES", {"train": 30, "test": 5})

    def generate(name, seed):
        listed = itertools.chain(*examples(tmp_path / name, seed=seed).values())
        return {example.image_id: example for example in listed}

    again, other = generate("again", 0), generate("other", 7)
    examples_by_id = {example.image_id: example for example in itertools.chain(*clevr.values())}
    assert all(examples_by_id[image_id] == example for image_id, example in again.items())
    assert len(again) == len(other) == 35
    assert not {example.image for example in again.values()} & {example.image for example in other.values()}
    listed = json.dumps([question._asdict() for question in other["test/0"].texts])
    assert listed != json.dumps([question._asdict() for question in again["test/0"].texts])
