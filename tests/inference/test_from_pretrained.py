"""`vlm_jax.from_pretrained`: from a run, a model directory and a package to results, and what is refused."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import jax
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from PIL import Image

import vlm_jax
from experiments import predict
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.inference.model import METHODS
from vlm_jax.inference.runs import AT_ONCE, TEXTS_AT_ONCE
from vlm_jax.integrity import MANIFEST
from vlm_jax.run_folder import MODEL, RESULT
from vlm_jax.settings.presets import load_preset

ROOT = Path(__file__).parent.parent.parent
TRIANGLE = ROOT / "docs" / "triangle.png"
QUICKSTART = "package:vlm_jax/quickstart"
QUESTION = "what color is the shape?"


@pytest.fixture(scope="module")
def quickstart():
    return vlm_jax.from_pretrained(QUICKSTART)


@pytest.fixture(scope="module")
def run_model(trained):
    return vlm_jax.from_pretrained(trained)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def pixels():
    with Image.open(TRIANGLE) as image:
        return np.asarray(image.convert("RGB"))


def test_the_import_is_cheap_and_lazy():
    code = "import sys, vlm_jax; print('jax' in sys.modules, 'numpy' in sys.modules, sorted(vlm_jax.__all__))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.stdout == f"False False {sorted(vlm_jax.__all__)}\n", answer.stderr
    assert all(callable(getattr(vlm_jax, name)) for name in vlm_jax.__all__) and set(vlm_jax.__all__) <= set(
        dir(vlm_jax)
    )
    with pytest.raises(AttributeError, match="nothing"):
        _ = vlm_jax.nothing


def test_the_packaged_quickstart_answers(quickstart):
    answer = quickstart.answer(TRIANGLE, QUESTION)
    assert answer.text == "blue" and answer.probability > 0.9 and answer.top[0] == (answer.text, answer.probability)
    assert quickstart.answer(TRIANGLE, "is there a circle?").text == "no"
    assert len(answer.top) == 5 and answer.warnings == () and dataclasses.is_dataclass(answer)
    assert sum(leaf.size for leaf in jax.tree.leaves(quickstart.params)) == 1_016_413
    folder = Path(vlm_jax.__file__).parent / "quickstart"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5_000_000
    # After a new setting, the README beside the model says what to do.
    assert quickstart.config == load_preset(Path("quickstart"), TASKS)
    assert QUICKSTART in vlm_jax.list_models() and "quickstart" in vlm_jax.list_presets()


def test_every_form_of_an_image_has_the_same_answer(run_model):
    with Image.open(TRIANGLE) as opened:
        forms = [TRIANGLE, str(TRIANGLE), TRIANGLE.read_bytes(), opened, pixels()]
        answers = [run_model.answer(image, QUESTION) for image in forms]
        (together,) = {answer.top for answer in run_model.answer(forms, QUESTION)}
    assert {answer.top for answer in answers} == {answers[0].top}
    np.testing.assert_allclose([p for _, p in together], [p for _, p in answers[0].top], rtol=1e-5)


def test_lists_give_lists_image_by_image(run_model):
    images = [pixels(), np.full((20, 30, 3), 255, np.uint8)]
    questions = [QUESTION, "is it red?", "is there a circle?"]
    answers = run_model.answer(images, questions)
    assert [answer.question for answer in answers] == questions * 2
    alone = [run_model.answer(image, question) for image in images for question in questions]
    for answer, single in zip(answers, alone, strict=True):
        assert answer.text == single.text and abs(answer.probability - single.probability) < 1e-5
    assert len(run_model.answer(images[:1], QUESTION)) == 1 and len(run_model.answer(images[0], [QUESTION])) == 1


def test_more_images_and_texts_than_a_batch_holds_keep_their_places(quickstart):
    """Shapes and colours that are there or not: answers that differ, in an order that repeats nowhere."""
    nouns = ("circle", "triangle", "rectangle")
    colors = ("blue", "red", "green", "yellow", "teal", "gray", "black", "brown")
    questions = [f"is there a {color} {noun}?" for noun in nouns for color in colors][: TEXTS_AT_ONCE + 5]
    alone = [quickstart.answer(TRIANGLE, question) for question in questions]
    white = quickstart.answer(np.full((9, 9, 3), 255, np.uint8), questions[0])
    images = [*[np.full((9, 9, 3), 255, np.uint8)] * (AT_ONCE + 1), TRIANGLE]
    answers = quickstart.answer(images, questions)
    assert len(answers) == len(images) * len(questions)
    assert abs(answers[0].probability - white.probability) < 1e-5
    for answer, single in zip(answers[-len(questions) :], alone, strict=True):
        assert answer.question == single.question and answer.text == single.text
        assert abs(answer.probability - single.probability) < 1e-5
    features = quickstart.features(TRIANGLE, questions)
    last = quickstart.features(TRIANGLE, questions[-1])
    np.testing.assert_allclose(features[-1].text, last.text, atol=1e-4)
    assert abs(features[-2].text - last.text).max() > 1e-2


def test_what_is_not_read_is_a_warning(run_model):
    (unknown,) = run_model.answer(TRIANGLE, "is there a xylophone?").warnings
    assert "'xylophone'" in unknown
    (empty,) = run_model.answer(TRIANGLE, "  ").warnings
    assert "empty" in empty
    (cut,) = run_model.answer(TRIANGLE, "is " * 40).warnings
    assert "14 tokens" in cut  # of 16: [CLS] and [SEP] are there too


def test_a_batch_of_another_size_in_the_bucket_compiles_nothing(run_model):
    images = [pixels()] * 4
    run_model.answer(images, [QUESTION] * 4)
    compiled = run_model._top_answers._cache_size()
    for count in (3, 4):
        assert len(run_model.answer(images[:count], [QUESTION] * 3)) == 3 * count
    assert run_model._top_answers._cache_size() == compiled
    run_model.answer(images[:2], [QUESTION] * 5)
    assert run_model._top_answers._cache_size() == compiled + 1


def test_an_answer_takes_little_more_than_the_compiled_forward_pass(quickstart):
    """The fastest of many calls each, in turn: another process slows some of them down."""
    image, times = pixels(), {"answer": [], "forward": []}
    ids, mask = quickstart.tokenizer.encode([QUESTION], quickstart.config.model.text.max_length)
    inputs = jax.device_put((quickstart.processor(image)[None], ids[None], mask[None]))
    calls = {
        "answer": lambda: quickstart.answer(image, QUESTION),
        "forward": lambda: jax.block_until_ready(quickstart._top_answers(quickstart.params, *inputs)),
    }
    for _ in range(30):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    assert min(times["answer"]) < min(times["forward"]) + 0.003


def test_features_are_the_fused_streams(run_model):
    features = run_model.features(TRIANGLE, "is it red?")
    config, width = run_model.config, run_model.config.model.hidden_size
    assert features.image.shape[1] == width and features.text.shape == (config.model.text.max_length, width)
    tokens = run_model.tokenizer.tokens(["is it red?"])[0]
    assert features.image_mask.all() and features.text_mask.sum() == len(tokens) + 2
    ids, mask = run_model.tokenizer.encode(["is it red?"], config.model.text.max_length)
    image = run_model.processor(TRIANGLE)[None]
    output = jax.jit(run_model.module.apply)({"params": run_model.params}, image, ids, mask)
    np.testing.assert_allclose(features.image, output.image[0], atol=2e-5)
    np.testing.assert_allclose(features.text, output.text[0], atol=2e-5)
    assert len(run_model.features([TRIANGLE] * 2, ["red?", "blue?"])) == 4


def test_a_method_that_a_model_lacks_names_those_it_has(run_model):
    assert run_model.methods == ("answer", "features")
    calls = {
        "generate_captions": [TRIANGLE],
        "generate_images": ["red"],
        "embed_texts": ["red"],
        "embed_images": [TRIANGLE],
        "fill_mask": ["red"],
        "classify": [TRIANGLE],
        "similarity": [TRIANGLE, "red"],
    }
    assert set(calls) | set(run_model.methods) == set(METHODS)
    for name, arguments in calls.items():
        with pytest.raises(InputError, match=rf"no method {name}; it has answer, features"):
            getattr(run_model, name)(*arguments)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32\[8, 8, 3\]; expected uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8\[8, 8, 4\]"),
        (np.zeros((8, 8), np.uint8), r"uint8\[8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), "8 x 0 pixels"),
        (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (8_000, 8_000, 3)), "over the limit"),
        ([], "list of images is empty"),
        ("nowhere.png", "no image file nowhere.png"),
    ],
)
def test_what_is_no_image_is_refused(run_model, image, message):
    with pytest.raises(InputError, match=message):
        run_model.answer(image, QUESTION)


@pytest.mark.parametrize(("image", "question"), [(3, QUESTION), (TRIANGLE, 3), (TRIANGLE, [None])])
def test_another_type_is_refused(run_model, image, question):
    with pytest.raises((InputError, TypeCheckError), match=r"(?i)type int|NoneType|type-check"):
        run_model.answer(image, question)


def test_no_question_is_refused(run_model):
    with pytest.raises(InputError, match="questions is empty"):
        run_model.answer(TRIANGLE, [])


def test_predict_answers_as_the_model_does(trained, run_model, capsys):
    arguments = ["--image", str(TRIANGLE), "--question", QUESTION, "xylophone?", "--json"]
    assert predict.main([str(trained), *arguments]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, answer in zip(lines, run_model.answer(TRIANGLE, [QUESTION, "xylophone?"]), strict=True):
        assert [(row["answer"], row["probability"]) for row in line["answers"]] == list(answer.top)
        assert line["notes"] == list(answer.warnings)


def test_compiled_programs_are_kept(tmp_path):
    code = f"import vlm_jax; print(vlm_jax.from_pretrained({QUICKSTART!r}).answer({str(TRIANGLE)!r}, 'red?').text)"
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name} | {"HOME": str(tmp_path)}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    answer = subprocess.run([sys.executable, "-c", code], **options)
    assert answer.returncode == 0, answer.stderr
    programs = [file.name for file in (tmp_path / ".cache" / "vlm_jax" / "compiled").iterdir()]
    assert any("top_answers" in name for name in programs)


def test_predict_imports_nothing_that_it_does_not_need(trained):
    arguments = [str(trained), "--image", str(TRIANGLE), "--question", QUESTION]
    heavy = ("grain", "optax", "orbax", "matplotlib", "transformers", "tensorflow_datasets", "scipy.special", "torch")
    code = f"import sys; from experiments.predict import main; main({arguments})\n"
    code += f"print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.stdout.endswith("\n[]\n"), answer.stderr


def test_a_model_directory_is_the_run(run_model, tmp_path):
    run_model.save_pretrained(tmp_path / "model")
    again = vlm_jax.from_pretrained(tmp_path / "model")
    assert again.answer(TRIANGLE, QUESTION) == run_model.answer(TRIANGLE, QUESTION)
    assert again.config == run_model.config and again.step == run_model.step and again.warnings == ()
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / MODEL).read_bytes() == (tmp_path / "model" / MODEL).read_bytes()
    with pytest.raises(InputError, match="again is there already"):
        run_model.save_pretrained(tmp_path / "again")
    with pytest.raises(InputError, match=r"no checkpoint '7'; choose one of: best, latest, \d+"):
        vlm_jax.from_pretrained(tmp_path / "model", checkpoint="7")
    for file in (tmp_path / "model").iterdir():
        damaged = Path(shutil.copytree(tmp_path / "model", tmp_path / "damaged"))
        (damaged / file.name).write_bytes(file.read_bytes()[:-1])
        with pytest.raises(InputError, match=rf"{file.name} (has|is not)"):
            vlm_jax.from_pretrained(damaged)
        (damaged / file.name).unlink()
        with pytest.raises(InputError):
            vlm_jax.from_pretrained(damaged)
        shutil.rmtree(damaged)


def test_a_model_on_the_hub_is_read(run_model, tmp_path, monkeypatch):
    """Every file of a model directory is among those that are downloaded."""
    run_model.save_pretrained(tmp_path / "model")
    commit = tmp_path / "snapshots" / "0123"

    def download(repository, *, allow_patterns, **options):
        assert (repository, options["revision"]) == ("somebody/model", "main")
        commit.mkdir(parents=True)
        for file in (tmp_path / "model").iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, commit)
        return str(commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model = vlm_jax.from_pretrained("somebody/model@main")
    assert model.source == "somebody/model@main"
    assert model.answer(TRIANGLE, QUESTION) == run_model.answer(TRIANGLE, QUESTION)


def test_an_unfinished_run_gives_its_best_checkpoint_and_a_warning(run, run_model, caplog):
    (run / RESULT).unlink()
    model = vlm_jax.from_pretrained(run)
    (warning,) = model.warnings
    assert str(run) in warning and f"step {model.step}" in warning and warning in caplog.text
    assert model.answer(TRIANGLE, QUESTION) == run_model.answer(TRIANGLE, QUESTION)
    assert not run_model.warnings


def test_a_checkpoint_can_be_chosen_and_a_damaged_one_is_refused_by_name(run):
    steps = sorted(int(path.parent.name) for path in run.glob(f"checkpoints/*/{MANIFEST}"))
    assert [vlm_jax.from_pretrained(run, checkpoint=str(step)).step for step in steps] == steps
    with pytest.raises(InputError, match="no checkpoint '7'"):
        vlm_jax.from_pretrained(run, checkpoint="7")
    best = vlm_jax.from_pretrained(run).step
    file = max((run / "checkpoints" / str(best)).rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    file.write_bytes(file.read_bytes()[:-1])
    others = ", ".join(str(step) for step in steps if step != best)
    with pytest.raises(
        InputError, match=rf"checkpoint {best} in .* is damaged: .*{file.name}.*choose one of: {others}"
    ):
        vlm_jax.from_pretrained(run)
    assert vlm_jax.from_pretrained(run, checkpoint=others).step != best
    (run / "answers.json").write_text("[]")
    with pytest.raises(InputError, match=r"answers.json has 2 bytes"):
        vlm_jax.from_pretrained(run, checkpoint=others)


def test_parameters_of_other_code_are_named(run_model, monkeypatch):
    params = {**run_model.params, "embed": {}}
    monkeypatch.setattr(run_model, "params", params)
    with pytest.raises(InputError, match=r"do not fit the model: missing embed/"):
        run_model.answer(TRIANGLE, QUESTION)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no weights at 'nowhere'"),
        ("package:vlm_jax/nowhere", "holds no 'nowhere'"),
        ("package:nowhere/quickstart", "not installed"),
    ],
)
def test_a_source_that_is_none_is_named(source, message):
    with pytest.raises(InputError, match=message):
        vlm_jax.from_pretrained(source)


def test_a_run_without_checkpoint_is_named(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoint yet"):
        vlm_jax.from_pretrained(run)
