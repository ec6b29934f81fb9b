"""A trained run on other data, and predictions from files: the official scores, and what cannot be scored."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import evaluate
from vlm_jax.data.user_files.prediction_files import match
from vlm_jax.errors import InputError

GOLDENS = Path(__file__).parent / "goldens"


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def printed(capsys):
    """The printed scores by name."""
    lines = (line.split() for line in capsys.readouterr().out.splitlines())
    return {words[0]: float(words[1]) for words in lines if len(words) == 2 and words[1].count(".") == 1}


@pytest.fixture(scope="module")
def coco():
    return json.loads(gzip.decompress((GOLDENS / "captions_gold.json.gz").read_bytes()))["corpora"][0]


def coco_files(coco, folder):
    """COCO's annotations, not in the order of its images, and results in another order."""
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in coco["image_ids"]]
    annotations = [
        {"image_id": number, "caption": caption}
        for number, captions in zip(coco["image_ids"], coco["references"], strict=True)
        for caption in captions
    ]
    annotations.sort(key=lambda row: -row["image_id"])
    results = [
        {"image_id": number, "caption": caption}
        for number, caption in zip(coco["image_ids"], coco["hypotheses"], strict=True)
    ]
    content = {"images": images, "annotations": annotations}
    return write(folder / "results.json", results[::-1]), write(folder / "annotations.json", content)


def test_captions_get_the_official_scores(coco, tmp_path, capsys):
    predictions, references = coco_files(coco, tmp_path)
    assert evaluate.main(["--predictions", predictions, "--references", references]) == 0
    scores, official = printed(capsys), coco["corpus"]
    for name, key in (("bleu_1", "Bleu_1"), ("bleu_4", "Bleu_4"), ("rouge_l", "ROUGE_L"), ("cider_d", "CIDEr-D")):
        assert scores[name] == pytest.approx(official[key], abs=6e-5)


def test_captions_are_scored_in_the_order_of_the_images(tmp_path):
    """The official tokenizer looks over the end of a line: in another order these captions have other words."""
    golden = json.loads(gzip.decompress((GOLDENS / "caption_order.json.gz").read_bytes()))["corpus"]
    numbers = [7 * number % 1009 for number in range(1, len(golden["references"]) + 1)]
    files = coco_files(golden | {"image_ids": numbers}, tmp_path)
    scores = match(Path(files[0]), [Path(files[1])]).scores("vqa")
    assert {name: scores[name] for name in golden["scores"]} == pytest.approx(golden["scores"], abs=1e-12)


def test_answers_get_the_official_accuracy(tmp_path, capsys):
    cases = json.loads(gzip.decompress((GOLDENS / "vqa_gold.json.gz").read_bytes()))["cases"]
    cases = list({case["question_id"]: case for case in cases}.values())
    results = [{"question_id": case["question_id"], "answer": case["prediction"]} for case in cases]
    annotations = [
        {
            "question_id": case["question_id"],
            "answer_type": "yes/no" if number % 2 else "other",
            "answers": [{"answer": answer, "answer_id": place} for place, answer in enumerate(case["answers"], 1)],
        }
        for number, case in enumerate(cases)
    ]
    files = (
        write(tmp_path / "results.json", results),
        write(tmp_path / "annotations.json", {"annotations": annotations}),
    )
    assert evaluate.main(["--predictions", files[0], "--references", files[1]]) == 0
    scores = printed(capsys)
    official = np.array([case["accuracy"] for case in cases]) / 100
    assert scores["accuracy"] == pytest.approx(official.mean(), abs=6e-5)
    assert scores["accuracy/yes/no"] == pytest.approx(official[1::2].mean(), abs=6e-5)


def test_tables_and_a_runs_own_predictions_are_read(trained, tmp_path, capsys):
    """What a run has written scores as in the run: against answers in a CSV file."""
    rows = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    with (tmp_path / "truth.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question_id", "answer", "answer_type"])
        table.writerows([row["question_id"], *row["answers"], row["kind"]] for row in rows)
    command = ["--predictions", str(trained / "predictions.jsonl"), "--references", str(tmp_path / "truth.csv")]
    assert evaluate.main([*command, "--accuracy", "soft"]) == 0
    metrics = json.loads((trained / "result.json").read_text())["metrics"]
    scores = printed(capsys)
    assert {name: scores[name] for name in ("accuracy", "accuracy/open", "accuracy/yes_no")} == pytest.approx(
        {name: metrics[name] for name in ("accuracy", "accuracy/open", "accuracy/yes_no")}, abs=6e-5
    )
    with pytest.raises(InputError, match="soft"):  # with one answer the official accuracy is 0
        evaluate.main(command)


CAPTION = {"image_id": 1, "caption": "a cat"}
REFERENCE = {"image_id": 1, "captions": ["a cat"]}


@pytest.mark.parametrize(
    ("predictions", "references", "named"),
    [
        ([CAPTION, CAPTION], [REFERENCE], "entry 2"),
        ([CAPTION, {"image_id": 2, "caption": "a dog"}], [REFERENCE], "2"),
        ([], [REFERENCE], "no prediction"),
        ([{"image_id": 1}], [REFERENCE], "caption"),
        ([{"image_id": 1, "caption": 3}], [REFERENCE], "3"),
        ([CAPTION], [{"image_id": 1, "captions": []}], "entry 1"),
        ([CAPTION], [{"captions": ["a cat"]}], "image_id"),
        ({"image_id": 1}, [REFERENCE], "caption"),
        ([CAPTION], {"annotations": [{"image_id": [1], "caption": "a"}], "images": [{"id": {}}]}, "annotation 1"),
    ],
)
def test_what_cannot_be_scored_is_named(predictions, references, named, tmp_path):
    files = write(tmp_path / "predictions.json", predictions), write(tmp_path / "references.json", references)
    with pytest.raises(InputError, match=named):
        evaluate.main(["--predictions", files[0], "--references", files[1]])


@pytest.mark.parametrize("options", [["--predictions", "p.json"], ["--references", "r.json"], [],
                                     ["RUN", "--predictions", "p.json", "--references", "r.json"]])  # fmt: skip
def test_options_that_do_not_belong_together(options, trained):
    with pytest.raises(InputError):
        evaluate.main([str(trained) if word == "RUN" else word for word in options])


def test_files_that_are_missing_and_captions_that_are_empty(tmp_path, capsys):
    (tmp_path / "predictions.csv").write_text("image_id,caption\n1,\n")
    predictions = str(tmp_path / "predictions.csv")
    with pytest.raises(InputError, match="nowhere"):
        evaluate.main(["--predictions", predictions, "--references", str(tmp_path / "nowhere.json")])
    references = write(tmp_path / "references.json", [REFERENCE])
    assert evaluate.main(["--predictions", predictions, "--references", references]) == 0
    assert printed(capsys)["bleu_1"] == 0


def test_missing_predictions_are_counted(tmp_path, capsys):
    references = [REFERENCE, {"image_id": 2, "captions": ["a dog"]}]
    files = write(tmp_path / "predictions.json", [CAPTION]), write(tmp_path / "references.json", references)
    assert evaluate.main(["--predictions", files[0], "--references", files[1]]) == 0
    assert "note: 1 " in capsys.readouterr().out


@pytest.fixture
def photos(tmp_path):
    """Four images with a question each, one of which has an answer that the model does not know."""
    for number, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0))):
        Image.new("RGB", (80, 60), colour).save(tmp_path / f"{number}.png")
    rows = [["image", "question", "answer"]]
    rows += [[f"{number}.png", "is there a circle?", answer] for number, answer in enumerate(["no", "no", "yes", "mu"])]
    file = tmp_path / "questions.csv"
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return file


def test_a_run_is_scored_on_other_data(trained, photos, capsys):
    before = (trained / "result.json").read_bytes()
    run = trained / ".." / trained.name  # as a path from another directory
    assert evaluate.main([str(run), "--data", str(photos), "--change", "data.evaluation_limit=1"]) == 0
    scores = printed(capsys)
    assert scores["baseline/majority"] == 0.5  # of this data: two of four are "no"
    (result,) = (trained / name for name in map(str, trained.iterdir()) if "result-test,data." in name)
    content = json.loads(result.read_text())
    assert content["config"]["data"]["train"] == content["config"]["data"]["test"] == [str(photos)]
    assert content["metrics"]["accuracy"] == pytest.approx(scores["accuracy"], abs=6e-5)
    lines = result.with_name(result.name.replace("result", "predictions") + "l").read_text().splitlines()
    predicted = {row["image_id"]: row for row in map(json.loads, lines)}
    assert predicted.keys() == {"0.png", "1.png", "2.png", "3.png"}
    assert scores["accuracy"] == np.mean([row["prediction"] in row["answers"] for row in predicted.values()])
    assert (trained / "result.json").read_bytes() == before
    for file in trained.glob("*data=*"):
        file.unlink()


def test_other_data_that_is_not_there(trained, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        evaluate.main([str(trained), "--data", str(tmp_path / "nowhere.csv")])
    with pytest.raises(InputError, match="steps"):
        evaluate.main([str(trained), "--data", "x.csv", "--change", "training.steps=3"])
