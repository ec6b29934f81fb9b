"""What a trained run leaves, and the commands that use it: evaluate and predict."""

import json
import runpy
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, predict, train
from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.run_folder import RunFolder
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.settings.groups import json_tree

ROOT = Path(__file__).parent.parent
SMALL = (
    "--data.limit", "4", "--training.steps", "2", "--training.batch-images", "2", "--training.evaluate-every", "2",
    "--training.evaluation-batch-images", "2",
)  # fmt: skip

SHALLOW = (
    "--model.num-layers", "1", "--model.image.stem-width", "8", "--model.image.widths", "8", "8", "16",
    "--model.image.blocks", "0", "0", "0",
)  # fmt: skip


@pytest.fixture
def images(tmp_path):
    """Two image files of a person's own, no square among them."""
    for name, colour, size in (("red.png", "red", (90, 60)), ("blue.jpg", "blue", (40, 200))):
        Image.new("RGB", size, colour).save(tmp_path / name)
    return [str(tmp_path / "red.png"), str(tmp_path / "blue.jpg")]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_result_is_complete(trained):
    result = json.loads((trained / "result.json").read_text(encoding="utf-8"))
    assert (result["task"], result["split"], result["seed"]) == ("vqa", "test", 0)
    assert set(result["metrics"]) == {
        "accuracy", "accuracy/yes_no", "accuracy/open", "baseline/question_only", "baseline/shuffled_images",
        "baseline/answer_prior", "baseline/majority",
        *(f"baseline/shuffled_images/{row}/accuracy" for row in ("difference", "difference_low", "difference_high")),
    }  # fmt: skip
    assert all(0 <= value <= 1 for name, value in result["metrics"].items() if "/difference" not in name)
    low, middle, high = (
        result["metrics"][f"baseline/shuffled_images/{row}/accuracy"]
        for row in ("difference_low", "difference", "difference_high")
    )
    assert -1 <= low <= middle <= high <= 1
    assert result["parameters"] > 10_000 and result["checkpoint_step"] in (20, 40)
    for name in ("examples_per_second", "wall_seconds", "compile_seconds", "waited_seconds"):
        assert result[name] > 0, name
    assert {"python", "jax", "flax", "optax", "orbax-checkpoint", "vlm_jax"} <= set(result["versions"])
    assert result["peak_memory_bytes"] > 2**26
    assert result["commit"] is None or len(result["commit"].removesuffix("+changes")) == 40
    assert result["config"] == json_tree(RunFolder(trained).config())


def test_every_question_has_its_prediction(trained):
    lines = [json.loads(line) for line in (trained / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    result = json.loads((trained / "result.json").read_text(encoding="utf-8"))
    assert len({line["question_id"] for line in lines}) == len(lines) > 500
    assert len({line["image_id"] for line in lines}) == 64
    assert np.mean([line["score"] for line in lines]) == pytest.approx(result["metrics"]["accuracy"])
    answers = Counter(line["prediction"] for line in lines)
    assert set(answers) <= set(json.loads((trained / "answers.json").read_text(encoding="utf-8")))


def test_a_contact_sheet_is_written(trained):
    with Image.open(trained / "predictions.png") as contact_sheet:
        assert contact_sheet.width > 1000 and contact_sheet.height > 1000
        assert len(contact_sheet.convert("RGB").getcolors(10**7)) > 100


def test_the_test_split_is_scored_once(trained, capsys):
    before = contents(trained)
    assert evaluate.main([str(trained)]) == 0
    output = capsys.readouterr().out
    assert "scored once" in output and "baseline/question_only" in output
    assert contents(trained) == before


FILES = (("predictions", "jsonl"), ("predictions", "png"), ("result", "json"))


def test_another_split_gets_files_of_its_own(trained, capsys):
    before = contents(trained)
    assert evaluate.main([str(trained), "--split", "validation", "--checkpoint", "latest"]) == 0
    new = {path.name for path in contents(trained).keys() - before.keys()}
    assert new == {f"{kind}-validation,checkpoint=latest.{end}" for kind, end in FILES}
    assert before.items() <= contents(trained).items()
    result = json.loads((trained / "result-validation,checkpoint=latest.json").read_text(encoding="utf-8"))
    assert result["split"] == "validation" and result["checkpoint_step"] == 40
    logged = [json.loads(line) for line in (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert result["metrics"]["accuracy"] == pytest.approx(logged[-1]["validation/accuracy"])
    assert f"{result['metrics']['accuracy']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "40"], "scored with the best checkpoint, not '40'"),
        (["--split", "valid"], r"no split 'valid'; choose one of: .*validation"),
        (["--split", "validation", "--checkpoint", "39"], r"no checkpoint '39' in .*; "),
        (["--split", "validation", "--checkpoint", "bst"], r"no checkpoint 'bst' in .*choose one of: .*best, latest"),
    ],
)
def test_evaluate_names_the_nearest(trained, options, message):
    with pytest.raises(InputError, match=message):
        evaluate.main([str(trained), *options])


def test_an_unfinished_run_keeps_its_test_split(trained, tmp_path):
    """Also one that has taken all its steps: training scores it, with what it knows of the way there."""
    config = RunFolder(trained).config()
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    with pytest.raises(InputError, match=r"stands at optimizer step 0 of 40.*finish it with python -m vlm_jax train"):
        evaluate.main([str(tmp_path)])
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "result.json").unlink()
    with pytest.raises(InputError, match=r"stands at optimizer step 40 of 40.*finish it with python -m vlm_jax train"):
        evaluate.main([str(copy)])
    assert not (copy / "result.json").exists()


def test_a_score_that_is_no_number_is_called_missing(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    result = json.loads((copy / "result.json").read_text(encoding="utf-8"))
    result["metrics"] = {"accuracy": 0.5, "accuracy/open": None}
    RunFolder(copy).write_json("result.json", result)
    assert evaluate.main([str(copy)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["accuracy", "0.5000"],
        ["accuracy/open", "missing"],
    ]


def test_predict_answers_every_question_about_every_image(trained, images, capsys):
    questions = ["what color is the shape?", "is there a circle?", "what shape is in the image?"]
    assert predict.main([str(trained), "--image", *images, "--question", *questions, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["image"], line["question"]) for line in lines] == [(p, q) for p in images for q in questions]
    for line in lines:
        probabilities = [answer["probability"] for answer in line["answers"]]
        assert len(probabilities) == 5 and probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1.0001


def test_predict_prints_for_people(trained, images, tmp_path, capsys):
    contact_sheet = tmp_path / "sheet.png"
    arguments = ["--image", images[0], "--question", "is there a circle?", "--output", str(contact_sheet)]
    assert predict.main([str(trained), *arguments]) == 0
    assert contact_sheet.stat().st_size > 1_000
    first, *answers = capsys.readouterr().out.splitlines()
    assert first == f"{images[0]}: is there a circle?"
    assert len(answers) == 5 and all("%" in answer for answer in answers)


def test_more_questions_than_slots_are_all_answered(trained, images, capsys):
    questions = [f"is there a {word}?" for word in ["circle", "triangle", "rectangle", "shape", "red", "blue", "black"]]
    assert predict.main([str(trained), "--image", *images, "--question", *questions, "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 14


def test_the_batch_does_not_change_an_answer(trained, images, capsys):
    def ask(*files):
        predict.main([str(trained), "--image", *files, "--question", "what color is the shape?", "--json"])
        return [json.loads(line)["answers"] for line in capsys.readouterr().out.splitlines()]

    together, alone = ask(*images), [ask(file)[0] for file in images]
    for a, b in zip(together, alone, strict=True):
        assert [x["answer"] for x in a] == [x["answer"] for x in b]
        np.testing.assert_allclose([x["probability"] for x in a], [x["probability"] for x in b], rtol=1e-5)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("is there a 猫?", "cannot read '猫'"),
        ("what colour is the shape?", "not a word of the training texts: 'colour'"),
        ("is there a circle " * 9, "only the first 14 tokens are read"),
        ("", "no word is in ''"),
        (" \n", "no word is in ' \\n'"),
        (" " * 99_999, "no word is in '  "),
        ("猫 zebra " * 9_999, "cannot read '猫', 'zebra'\n"),
        ("".join(map(chr, range(0x4E00, 0x5E00))), "cannot read '一', '丁'"),
        ("\x00 \u202e?", ""),
    ],
)
def test_any_text_is_answered_and_lost_words_are_noted(trained, images, capsys, question, message):
    with pytest.raises(SystemExit) as end:
        run_command(predict.main, [str(trained), "--image", images[0], "--question", question, "--json"])
    output, notes = capsys.readouterr()
    assert end.value.code == 0 and message in notes and len(notes) < 1_000
    line = json.loads(output)
    assert line["question"] == question
    assert line["notes"] == [note.removeprefix("note: ") for note in notes.splitlines() if "note: " in note]


def test_an_unreadable_image_is_named(trained, tmp_path):
    (tmp_path / "notes.png").write_text("not an image", encoding="utf-8")
    for name, message in (("cat.png", "no image file .*cat.png"), ("notes.png", "notes.png is not an image")):
        with pytest.raises(InputError, match=message):
            predict.main([str(trained), "--image", str(tmp_path / name), "--question", "is there a circle?"])
    with pytest.raises(InputError, match=r"image is \(\)"):
        predict.main([str(trained), "--image", "--question", "is there a circle?"])


def test_a_folder_that_is_no_run_is_named(trained, images):
    for command in (evaluate.main, lambda run: predict.main([*run, "--image", images[0], "--question", "red?"])):
        with pytest.raises(InputError, match=r"tinny is no run folder.*did you mean 'tiny'\?"):
            command([str(trained.with_name("tinny"))])


def test_the_step_is_compiled_once(data_directory, tmp_path, monkeypatch):
    from vlm_jax.run_claim import claim
    from vlm_jax.tasks.vqa import VisualQuestionAnswering
    from vlm_jax.training.loop import Trainer
    from vlm_jax.training.parallel import CompiledAhead

    preset = runpy.run_path(str(ROOT / "configs" / "tiny.py"))["get_config"]()
    config = with_changes(preset, {"data.directory": data_directory, "data.limit": 30, "training.steps": 8})
    traced, predict_batch = [], VisualQuestionAnswering._predict_batch
    monkeypatch.setattr(
        VisualQuestionAnswering, "_predict_batch", lambda *inputs: traced.append(1) or predict_batch(*inputs)
    )
    with claim(tmp_path / "run", config) as folder:
        trainer = Trainer(config, folder, write_line=lambda text: None)
        trainer.run()
    assert isinstance(trainer.step, CompiledAhead)  # it refuses other shapes, and never compiles again
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sort_of_clevr", SHALLOW),
        *(
            pytest.param(name, changes, marks=pytest.mark.slow)
            for name, changes in (
                ("sort_of_clevr", ()),
                ("tiny", ("--model.fusion.kind", "co_attention", "--compute.parallelism", "pmap")),
                ("easy_vqa", ()),
                ("tiny", ("--model.fusion.kind", "late", "--model.fusion.join", "concatenation")),
            )
        ),
    ],
)
def test_every_preset_trains(name, changes, data_directory, tmp_path, monkeypatch):
    if name == "sort_of_clevr":  # all of it takes a minute to draw, and is drawn by the tests of its builder
        monkeypatch.setattr("vlm_jax.data.datasets.sort_of_clevr.NUM_IMAGES", {"train": 100, "test": 20})
        data_directory = str(tmp_path / "data")
    options = ["--workdir", str(tmp_path / name), "--data.directory", str(data_directory)]
    assert train.main([str(ROOT / "configs" / f"{name}.py"), *options, *SMALL, *changes]) == 0
    assert (tmp_path / name / "result.json").exists()


@pytest.fixture
def own(tmp_path):
    """Forty images and two questions about each, as a person would write them down."""
    (tmp_path / "images").mkdir()
    lines = []
    for number in range(40):
        name, colour = f"{number}.jpg", ("red", "blue")[number % 2]
        Image.new("RGB", (30 + number, 20), colour).save(tmp_path / "images" / name)
        is_red = ["yes" if colour == "red" else "No."] * 3
        lines.append({"image": name, "question": "what colour is it?", "answers": [colour]})
        lines.append({"image": name, "question": "is it red?", "answers": is_red})
    return tmp_path, lines


def train_own(folder, lines, *options):
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    files = ["--data.images", str(folder / "images"), "--data.train", str(folder / "rows.jsonl")]
    where = ["--workdir", str(folder / "run"), "--data.directory", str(folder / "kept")]
    return train.main([str(ROOT / "configs" / "vqa_table.py"), *files, *where, *SMALL[2:], *SHALLOW, *options])


def test_your_own_files_train_and_are_scored(own):
    folder, lines = own
    assert train_own(folder, lines, "--data.accuracy", "vqa") == 0
    result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    assert {"accuracy", "accuracy_lenient", "accuracy/yes_no", "accuracy/open"} <= set(result["metrics"])
    assert set(json.loads((folder / "run" / "answers.json").read_text(encoding="utf-8"))) == {
        "yes",
        "no",
        "red",
        "blue",
    }
    predictions = (folder / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["image_id"].endswith(".jpg") for line in predictions)


def test_test_questions_without_answers_are_answered_for_an_evaluation_server(own, capsys):
    folder, lines = own
    rows = [f"{number}.jpg,{question},{900 + number}" for number, question in enumerate(("is it red?", "what is it?"))]
    (folder / "test.csv").write_text("image,question,question_id\n" + "\n".join(rows), encoding="utf-8")
    assert train_own(folder, lines, "--data.test", str(folder / "test.csv")) == 0
    result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["metrics"] == {} and any("no answers" in warning for warning in result["warnings"])
    assert capsys.readouterr().out.count("no answers") == 1
    written = json.loads((folder / "run" / "vqa_results.json").read_text(encoding="utf-8"))
    assert [set(row) for row in written] == [{"question_id", "answer"}] * 2
    assert [row["question_id"] for row in written] == [900, 901]
    assert {row["answer"] for row in written} <= {"yes", "no", "red", "blue"}
    elsewhere = ["--data", str(folder / "test.csv"), "--images", str(folder / "images")]
    assert evaluate.main([str(folder / "run"), *elsewhere, "--data.directory", str(folder / "kept")]) == 0
    assert capsys.readouterr().out.count("no answers") == 1
    (other,) = (folder / "run").glob("vqa_results-test,*.json")
    assert json.loads(other.read_text(encoding="utf-8")) == written


def test_bad_rows_stop_a_training_before_it_starts_or_are_left_out(own, capfd):
    folder, lines = own
    (folder / "images" / "39.jpg").write_text("no image", encoding="utf-8")
    lines.append({"image": "../rows.jsonl", "question": "what is it?", "answers": ["a secret"]})
    with pytest.raises(InputError, match=r"2 bad rows, the first .*rows\.jsonl:81: .*'\.\.'.*data.bad_rows skip"):
        train_own(folder, lines)
    assert not (folder / "run" / "metrics.jsonl").exists()
    assert train_own(folder, lines, "--data.bad-rows", "skip", "--workdir", str(folder / "run2")) == 0
    assert "2 bad rows left out" in capfd.readouterr().err


@pytest.mark.slow
def test_the_reference_takes_a_real_step(data_directory, tmp_path):
    """From pixels through ResNet-50 and BERT-base to 30,522 classes, at batch 2."""
    options = [
        "--workdir",
        str(tmp_path / "run"),
        "--data.directory",
        str(data_directory),
        *SMALL,
        "--training.steps",
        "1",
    ]
    assert train.main([str(ROOT / "configs" / "reference_base.py"), *options]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["parameters"] > 155e6
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    # Two questions, and fresh logits of variance one: the uniform guess, give or take a few of their deviations.
    assert first["loss"] == pytest.approx(np.log(30_522) + 0.5, abs=3)
