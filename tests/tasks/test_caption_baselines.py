"""The constant caption and the consensus of the nearest images, against choosing by the score of every caption."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.metrics.cider_formula import cider, rarity_in
from vlm_jax.metrics.captions import cider_d
from vlm_jax.metrics.ptb_tokens import ptb_tokenize
from vlm_jax.scenes.language import caption, free_captions
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.sampling import Sampling, sample_scene
from vlm_jax.scenes.scene import to_json
from vlm_jax.tasks import caption_baselines
from vlm_jax.tasks.caption_baselines import consensus_captions, constant_captions, nearest_captions
from vlm_jax.types import Example, Text

GOLDENS = Path(__file__).parents[1] / "goldens" / "captions_gold.json.gz"


def example(*captions):
    return Example(captions[0], b"", tuple(Text("", caption, (), "caption") for caption in captions))


@pytest.fixture(scope="module")
def coco():
    with gzip.open(GOLDENS, "rt", encoding="utf-8") as file:
        (corpus,) = json.load(file)["corpora"]
    return [example(one, *more) for one, more in zip(corpus["hypotheses"], corpus["references"], strict=True)]


def texts_of(train):
    return [[text.text for text in each.texts] for each in train]


def words_of(train):
    return [[ptb_tokenize(text) for text in item] for item in texts_of(train)]


def test_the_constant_caption_is_the_best_of_all(coco):
    # 54 captions, fewer than would be drawn: all are tried. An image counts once, however many captions it has.
    train = [each._replace(texts=each.texts[: 1 + place % 5]) for place, each in enumerate(coco[:18])]
    references = words_of(train)
    best = {text: cider_d([word] * 18, references)
            for texts, words in zip(texts_of(train), references, strict=True)
            for text, word in zip(texts, words, strict=True)}  # fmt: skip
    chosen = constant_captions(train, 0)["constant"]
    assert best[chosen] == max(best.values())
    assert constant_captions(train, 7)["constant"] == chosen


def test_a_frequent_caption_that_suits_few_images_is_not_the_constant(coco):
    """The first in the alphabet of the most frequent captions was the rule of old."""
    odd = "2 quiet giraffes"
    train = [*coco[:250], example(odd, odd, odd)]
    texts = [text for item in texts_of(train) for text in item]
    assert min(set(texts), key=lambda text: (-texts.count(text), text)) == odd
    for images in (train, coco[1000:1250]):  # what suits the training images suits others
        words = words_of(images)
        chosen = constant_captions(train, 0)["constant"]
        scores = [cider_d([ptb_tokenize(text)] * len(words), words) for text in (chosen, odd)]
        assert scores[0] > 2 * scores[1]


def test_the_seed_chooses_candidates_and_choosers(coco, monkeypatch):
    monkeypatch.setattr(caption_baselines, "CANDIDATES", 8)
    monkeypatch.setattr(caption_baselines, "IMAGES", 30)
    seen = []

    class Watched(caption_baselines.CiderPairs):
        def __init__(self, captions, item_of):
            seen.append((captions, item_of))
            super().__init__(captions, item_of)

    monkeypatch.setattr(caption_baselines, "CiderPairs", Watched)
    chosen = [constant_captions(coco[:200], seed)["constant"] for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1] and len(set(chosen)) > 1
    for (given, item_of), text in zip(seen, chosen, strict=True):
        assert (item_of == -1).sum() == 8 and len(np.unique(item_of)) == 31 and len(given) == 8 + 150
        items = [[given[place] for place in np.flatnonzero(item_of == item)] for item in range(30)]
        scores = [cider_d([candidate] * 30, items) for candidate in given[:8]]
        assert given[int(np.argmax(scores))] == ptb_tokenize(text)
    assert seen[0][0] == seen[1][0] != seen[2][0]


def test_one_training_image_has_a_constant_caption_too():
    assert constant_captions([example("a cat", "a dog")], 0)["constant"] in ("a cat", "a dog")
    assert constant_captions([example("")], 0)["constant"] == ""


def test_the_caption_true_of_most_scenes_is_a_baseline():
    """A caption that says little is true of nearly all scenes, and its CIDEr-D with their captions is low."""
    scenes = [sample_scene(np.random.default_rng(seed), Sampling(64, 1, 4)) for seed in range(12)]
    train = [
        example(caption(scene), *free_captions(scene, np.random.default_rng(seed)))._replace(scene=to_json(scene))
        for seed, scene in enumerate(scenes)
    ]
    chosen = constant_captions(train, 0)
    true = {text: sum(check_caption(text, scene).true for scene in scenes) for item in texts_of(train) for text in item}
    assert true[chosen["constant_true"]] == max(true.values()) > 6 > true[chosen["constant"]]
    assert constant_captions([each._replace(scene=None) for each in train], 0) == {"constant": chosen["constant"]}


def test_the_consensus_is_the_caption_most_like_the_others(coco):
    known = coco[:30]
    nearest = np.random.default_rng(0).permutation(30).reshape(6, 5)
    words, texts = words_of(known), texts_of(known)
    rarity, expected = rarity_in(words), []
    for row in nearest:
        raw, cut = ([caption for image in row for caption in item[image]] for item in (texts, words))
        means = [cider(caption, cut[:place] + cut[place + 1 :], rarity) for place, caption in enumerate(cut)]
        expected.append(raw[int(np.argmax(np.round(means, 9)))])
    assert consensus_captions(known, nearest) == expected
    assert nearest_captions(known, nearest) == {
        "nearest_image": [texts[row[0]][0] for row in nearest],
        "nearest_consensus": expected,
    }


def test_the_consensus_of_one_caption_is_itself():
    known = [example("a cat"), example("a dog"), example("three", "four")]
    assert consensus_captions(known, np.array([[1], [0]])) == ["a dog", "a cat"]
    assert consensus_captions(known[:1], np.array([[0]])) == ["a cat"]
    assert consensus_captions(known, np.array([[2], [2]])) == ["three"] * 2, "of equal ones the first"


def test_a_caption_is_no_other_of_its_own():
    """Two words have no n-grams of three or four, and so are no full match of themselves; that counts for nothing."""
    known = [example("red bus", "red bus here today", "a kite in the blue sky", "kites fly in some sky"), example("x")]
    for row in ([0], [0, 1]):
        assert consensus_captions(known, np.array([row])) == ["red bus"]


def test_more_captions_than_data_sets_have_are_left_out(monkeypatch):
    monkeypatch.setattr(caption_baselines, "CAPTIONS", 2)
    known = [example("a cat", "a dog", "one big bird", "one big bird"), example("one big bird"), example("x")]
    assert consensus_captions(known, np.array([[0, 1]])) == ["a cat"]
