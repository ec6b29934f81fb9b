"""Counts of a data set by hand, shared and unreadable images, histograms, and their text."""

import hashlib
import io
import itertools
from collections import Counter

import pytest
from PIL import Image

from vlm_jax.data.image_inspection import inspect_images
from vlm_jax.data.report import listing, plain, report
from vlm_jax.data.statistics import answers_of, describe, describe_captions, histogram, shared
from vlm_jax.types import Example, Text


def example(image_id, *answers, image=b"", text="what is it?"):
    questions = tuple(Text(f"{image_id}/{n}", text, references, "open") for n, references in enumerate(answers))
    return Example(image_id, image, questions)


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


TRAIN = [example("1", ("fat cat", "Fat cat.", "cat"), ("No",)), example("2", ("no",), text="is it?")]
TEST = [example("3", ("fat cat",), ("dog", "no"), ("dog",), ())]


def test_counts_are_those_made_by_hand():
    seen = answers_of(TRAIN)
    assert seen == {"fat cat", "cat", "no"}
    train, test = describe(TRAIN, seen), describe(TEST, seen)
    assert (train.images, train.kinds.total(), train.texts_per_image) == (2, 3, Counter({2: 1, 1: 1}))
    assert train.answers == Counter({"fat cat": 2, "cat": 1, "no": 2}) and train.kinds == Counter(open=3)
    assert train.text_words == Counter({3: 2, 2: 1}) and train.answer_words == Counter({2: 2, 1: 3})
    assert (train.some_answer_unseen, train.every_answer_unseen) == (0, 0)
    assert (test.kinds.total(), test.some_answer_unseen, test.every_answer_unseen) == (4, 2, 1)
    assert describe([], seen).images == 0


def test_shared_names_every_pair():
    names = {"train": "abc", "validation": ["c", "c", "d"], "test": iter("bdc")}
    assert shared(names) == {
        ("train", "validation"): ["c"],
        ("train", "test"): ["b", "c"],
        ("validation", "test"): ["c", "d"],
    }


@pytest.mark.parametrize("threads", [1, 4])
def test_every_image_is_hashed_and_decoded(tmp_path, threads):
    (tmp_path / "red.png").write_bytes(png("red"))
    (tmp_path / "half.png").write_bytes(png("red")[:45])
    examples = [
        example("0", image=png("red")),
        example("1", image=tmp_path / "red.png"),
        example("2", image=tmp_path / "half.png"),
        example("3", image=tmp_path / "missing.png"),
        example("4", image=b"none"),
    ]
    inspection = inspect_images(examples, max_pixels=100, threads=threads)
    assert inspection.digests["0"] == inspection.digests["1"] == hashlib.sha256(png("red")).hexdigest()
    assert list(inspection.digests) == ["0", "1", "2", "4"] and list(inspection.unreadable) == ["2", "3", "4"]
    assert inspection.unreadable["2"].startswith(f"{tmp_path}/half.png is ")
    assert inspection.unreadable["3"] == f"no image file {tmp_path}/missing.png"
    assert inspection.unreadable["4"].startswith("image 4 is not an image")
    assert inspect_images(examples[:1], max_pixels=15).unreadable["0"].startswith("image 0 has 4 x 4 pixels, over")


def test_a_histogram_has_equal_bins_without_gaps():
    assert histogram([]) == [] == histogram([{}, {}])
    assert histogram([{5: 2}]) == [("5", [2])]
    assert histogram([{1: 1, 4: 2}, {2: 3}]) == [("1", [1, 0]), ("2", [0, 3]), ("3", [0, 0]), ("4", [2, 0])]
    assert histogram([{0: 1, 9: 1}], most=4) == [("0-2", [1]), ("3-5", [0]), ("6-8", [0]), ("9-11", [1])]
    outlier = histogram([{1: 500, 3: 500, 10**6: 1}])
    assert outlier == [("1", [500]), ("2", [0]), ("3+", [501])]


def test_a_histogram_loses_nothing():
    for low, high, most in itertools.product((0, 3), (3, 7, 40, 41), (1, 2, 10)):
        counts = {value: value + 1 for value in range(low, high + 1)}
        table = histogram([counts], most=most)
        assert sum(row[0] for _, row in table) == sum(counts.values()) and len(table) <= most


def test_the_report():
    seen = answers_of(TRAIN)
    splits = {"train": describe(TRAIN, seen), "validation": describe([], seen), "test": describe(TEST, seen)}
    ids = {"train": ["1", "2"], "validation": [], "test": ["2"]}
    lines = report(splits, ids, {"train": ["x", "y", "z"], "validation": ["y"], "test": ["x", "z"]}).splitlines()
    rows = {" ".join(line.split()) for line in lines}
    assert {
        "train validation test",
        "images 2 0 1",
        "questions 3 0 4",
        "questions of an image, mean 1.5 0.0 4.0",
        "the most 2 0 4",
        "distinct answers 3 0 3",
        "an answer unseen in training 0.0% 0.0% 50.0%",
        "every answer unseen 0.0% 0.0% 25.0%",
        "train and validation 0 1",
        "train and test 1 2",
        "validation and test 0 0",
        f"fat cat 2 0 1 {'#' * 24}",
        f"cat 1 0 0 {'#' * 12}",
        "1 answer of test that training lacks: dog (2)",
        f"3 2 0 4 {'#' * 24}",
    } <= rows


def captioned(image_id, *captions, kind="caption"):
    return Example(image_id, b"", tuple(Text(f"{image_id}#{n}", c, (), kind) for n, c in enumerate(captions)))


CAPTIONED = [captioned("1", "A cat.", "a cat", "Two cats sit"), captioned("2", "a dog", kind="tag")]
OTHERS = [captioned("3", "A zebra sits, a zebra!", "a cat", "...")]


def test_counts_of_captions_are_those_made_by_hand():
    train = describe_captions(CAPTIONED, None)
    assert (train.images, train.texts_per_image) == (2, Counter({3: 1, 1: 1}))
    assert train.kinds == Counter(caption=3, tag=1)
    assert train.texts == Counter({"a cat": 2, "two cats sit": 1, "a dog": 1}), "cut as the scores cut them"
    assert train.words == Counter(a=3, cat=2, two=1, cats=1, sit=1, dog=1)
    assert train.text_words == Counter({2: 3, 3: 1}) and train.unseen == 0
    test = describe_captions(OTHERS, train.words)
    assert test.words == Counter(a=3, zebra=2, sits=1, cat=1) and test.unseen == 3
    assert test.text_words == Counter({5: 1, 2: 1, 0: 1})
    assert describe_captions([], train.words).images == 0


def test_the_report_of_captions():
    train = describe_captions(CAPTIONED, None)
    others = {"validation": [], "test_style_unseen": OTHERS}
    splits = {"train": train, **{split: describe_captions(those, train.words) for split, those in others.items()}}
    ids = {"train": ["1", "2"], "validation": [], "test_style_unseen": ["2"]}
    lines = report(splits, ids, {"train": ["x"], "validation": ["x"], "test_style_unseen": []}).splitlines()
    assert lines[0].split() == ["test_style_"] and lines[1].split() == ["train", "validation", "unseen"]
    assert {len(line) for line in lines[:11]} == {34 + 3 * 12}, "columns stand below their names"
    assert {
        "images 2 0 1",
        "captions 4 0 3",
        "caption 3 0 3",
        "tag 1 0 0",
        "captions of an image, mean 2.0 0.0 3.0",
        "distinct captions 3 0 3",
        "words 9 0 7",
        "distinct words 6 0 4",
        "words unseen in training 0.0% 0.0% 42.9%",
        "train and validation 0 1",
        "train and test_style_unseen 1 0",
        f"a cat 2 0 1 {'#' * 24}",
        f"a 3 0 3 {'#' * 24}",
        "2 words of test_style_unseen that training lacks: zebra (2), sits (1)",
        f"2 3 0 1 {'#' * 24}",
    } <= {" ".join(line.split()) for line in lines}
    assert not any(line.split()[:2] == ["a", "dog"] for line in lines), (
        "a caption given once is none of the most common"
    )
    once = {"train": describe_captions(OTHERS, None)}
    assert "\n  none is given twice\n" in report(once, {"train": []}, {"train": []})


def test_long_lists_are_cut():
    assert listing("bad rows", [], 50) == "bad rows: 0"
    assert listing("bad rows", ["a", "b"], 2) == "bad rows: 2\n  a\n  b"
    assert listing("bad rows", ["a", "b", "c"], 2) == "bad rows: 3\n  a\n  b\n  and 1 more (--all lists them)"
    assert listing("bad rows", ["a\x1b[2J\n"] * 60, None).count("\n  a�[2J�") == 60


@pytest.mark.parametrize(
    ("text", "printed"),
    [("a cat", "a cat"), (" cat", "' cat'"), ("", "''"), ("a\x1b[31m", r"'a\x1b[31m'"), ("a" * 99, "a" * 30 + "…")],
)
def test_a_text_is_harmless_to_a_terminal(text, printed):
    assert plain(text) == printed
