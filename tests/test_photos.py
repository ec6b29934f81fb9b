"""The preset for photographs at a tiny size, from the command to its scores; and wrong input in one line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import predict, train
from tests.weights import fixtures, own
from vlm_jax.errors import InputError

PHOTOS = str(Path(__file__).parents[1] / "configs" / "photos.py")
SMALL = (
    "--training.steps", "2", "--training.evaluate-every", "2", "--training.batch-images", "4",
    "--training.evaluation-batch-images", "4", "--model.num-layers", "1", "--model.hidden-size", "16",
    "--model.intermediate-size", "16", "--optimizer.warmup-steps", "1", "--model.text.vocab-size", "64",
    "--model.layout.text-feature-size", "16", "--image.size", "32", "32",
)  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A word table, and a tiny CNN in the place of DINOv2."""
    place = tmp_path_factory.mktemp("sources")
    bert, cnn = own.write(place / "bert"), fixtures.publish(fixtures.BY_NAME["resnet18"].fixtures[0], place / "cnn")
    return "--init.text", str(bert), "--image-encoder", str(cnn)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Twelve images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(random.integers(0, 256, (40, 30, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def write_table(path, column, count, answers=True):
    """A caption or a question of each image."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", column, *(["answer"] if column == "question" else [])])
        for number in range(count):
            answer = ["a circle" if number % 2 else "a shape"] if column == "question" else []
            writer.writerow([f"{number}.png", "what is the shape?" if answer else "there is a circle", *answer])
    return path


def command(table, sources, *others):
    data = ("--data", str(table), "--images", "images", "--data.directory", "kept")
    return train.main([PHOTOS, *data, *SMALL, *sources, *others])


@pytest.mark.parametrize("column", ["caption", "question"])
def test_a_table_becomes_a_scored_run(photographs, sources, column, capfd):
    tokenizer = ("--model.text.tokenizer", sources[1]) if column == "question" else ()
    table = write_table(photographs / "table.csv", column, 12)
    assert command(table, sources, *tokenizer, "--workdir", "run") == 0
    result = json.loads((photographs / "run" / "result.json").read_text())
    metric = "accuracy" if column == "question" else "cider_d"
    assert np.isfinite(result["metrics"][metric])
    assert result["config"]["init"]["image"] == sources[3] and result["config"]["model"]["image"]["kind"] == "resnet"
    weights = json.loads((photographs / "run" / "weights.json").read_text())
    taken = {source["setting"]: source["taken"] for source in weights["sources"]}
    assert taken == {"init.text": ["text/word"], "init.image": ["image"]}
    assert "caching 11 views" in capfd.readouterr().err
    if column == "caption":  # a second run computes none
        assert command(table, sources, "--workdir", "again", "--seed", "1") == 0
        assert "caching" not in capfd.readouterr().err


def refused(table, sources, *others):
    with pytest.raises(InputError) as error:
        command(table, sources, *others, "--workdir", "run")
    assert "\n" not in str(error.value) and not Path("run").exists()
    return str(error.value)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_too_few_images_are_refused(photographs, sources, count):
    message = refused(write_table(photographs / "few.csv", "caption", count), sources)
    assert str(photographs / "few.csv") in message
    if count == 2:
        assert "at least 3 images" in message
    else:
        assert f"{count} images in" in message and "at least 10" in message


def test_ten_images_or_splits_of_their_own_are_enough(photographs, sources, capfd):
    three = write_table(photographs / "three.csv", "caption", 3)
    held_out = ("--data.validation", str(three), "--data.test", str(three))
    assert command(three, sources, *held_out, "--workdir", "own") == 0
    assert command(write_table(photographs / "ten.csv", "caption", 10), sources, "--workdir", "ten") == 0
    assert "10 images divided into train 8, validation 1, test 1" in capfd.readouterr().err
    assert command(photographs / "ten.csv", sources, "--data.limit", "3", "--workdir", "limited") == 0


def test_a_strip_is_a_bad_row(photographs, sources, capfd):
    table = write_table(photographs / "table.csv", "caption", 12)
    Image.new("RGB", (1, 5000)).save(photographs / "images" / "3.png")
    message = refused(table, sources)
    assert message.startswith("1 bad row") and "3.png" in message and "1 x 5000 pixels" in message
    assert command(table, sources, "--data.bad-rows", "skip", "--workdir", "skipped") == 0
    assert "1 bad row left out" in capfd.readouterr().err
    with pytest.raises(InputError, match=r"3\.png has 1 x 5000 pixels") as refusal:
        predict.main(["skipped", "--image", "images/3.png"])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("captions", [("image,caption,caption", "a,b"), ("image,caption", "a")])
def test_captions_for_a_preset_of_questions_are_refused(photographs, sources, captions):
    """One caption or two of an image, in a table whose preset wants questions."""
    header, values = captions
    table = photographs / "captions.csv"
    table.write_text("\n".join([header, *(f"{number}.png,{values}" for number in range(12))]))
    with pytest.raises(InputError) as refusal:
        train.main(["vqa_table", "--data", str(table), "--images", "images", "--workdir", "run"])
    assert "\n" not in str(refusal.value) and str(table) in str(refusal.value) and not Path("run").exists()
    lines = [json.dumps({"image": f"{number}.png", "captions": ["a", "b"]}) for number in range(12)]
    (photographs / "captions.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="rows with captions are for the task captioning") as refusal:
        train.main(["vqa_table", "--data", "captions.jsonl", "--images", "images", "--workdir", "run"])
    assert "\n" not in str(refusal.value) and "captions.jsonl:1" in str(refusal.value)


def test_captions_among_questions_are_bad_rows(photographs, sources):
    rows = [{"image": f"{number}.png", "question": "what?", "answers": ["a"]} for number in range(6)]
    rows += [{"image": "6.png", "captions": ["a circle", "a shape"]}]
    table = photographs / "mixed.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    assert "mixed.jsonl:7" in refused(table, sources)


def test_weights_that_are_not_here_are_named_with_the_ways_to_get_them(photographs, monkeypatch):
    from vlm_jax.weights import source

    def nowhere(name):
        raise InputError(name)

    monkeypatch.setattr(source, "package_path", nowhere)
    monkeypatch.setattr(source, "_from_hub", nowhere)
    message = refused(write_table(photographs / "table.csv", "caption", 12), ("--image.size", "28", "28"))
    assert "pip install" in message and "hub" in message


def test_a_line_names_the_run_that_would_not_fit(photographs, sources):
    table = write_table(photographs / "table.csv", "caption", 12)
    assert "image.mean" in refused(table, sources, "--image.mean", "0.1", "0.1", "0.1")
