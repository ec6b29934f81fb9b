"""What a command line leaves to files: questions or captions, and all that an image encoder prescribes."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments import inspect_model, train
from experiments.train import parse_train
from tests.weights import fixtures, own
from vlm_jax.config.captioning import Captioning
from vlm_jax.config.tasks import TASKS
from vlm_jax.config.vqa import VQA
from vlm_jax.data.image_settings import CenterCrop, ImageInput, Stretch, StretchCrop
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import from_json, to_json
from vlm_jax.weights.import_folder import read

CONFIGS = Path(__file__).parents[2] / "configs"
PHOTOS, QUICKSTART, EMOJI = (str(CONFIGS / f"{name}.py") for name in ("photos", "quickstart", "emoji_captioning"))
CNNS = ("resnet18", "efficientnet_lite0")
TRANSFORMERS = ("Dinov2Model", "CLIPVisionModel", "SiglipVisionModel")


def write_table(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def parse(*arguments):
    return parse_train([str(argument) for argument in arguments])[0]


def refused(*arguments):
    with pytest.raises(InputError) as error:
        parse(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder_of_classes(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        (tmp_path / "classes" / name / "1.jpg").touch()
    return tmp_path / "classes"


def test_the_columns_decide(tmp_path, folder_of_classes):
    lines = tmp_path / "questions.jsonl"
    lines.write_text(json.dumps({"image": "a.png", "question": "what?", "answers": ["a"]}) + "\n")
    questions = write_table(tmp_path / "q.csv", ("image", "question", "answer"), ("a.png", "what?", "a"))
    other_names = write_table(tmp_path / "o.csv", ("image", "q", "answer"), ("a.png", "what?", "a"))
    captions = write_table(tmp_path / "c.csv", ("file_name", "text"), ("a.png", "a cat"))
    assert type(parse(PHOTOS, "--data", questions)) is VQA
    assert type(parse(PHOTOS, "--data.train", lines)) is VQA
    assert type(parse(PHOTOS, "--data", folder_of_classes)) is VQA
    assert type(parse(PHOTOS, "--data", other_names, "--data.columns", "question=q")) is VQA
    assert type(parse(PHOTOS, "--data", captions)) is Captioning
    assert type(parse(PHOTOS, "--data", tmp_path / "missing.csv")) is Captioning  # named where it is read
    files = ("--data", questions, "--images", tmp_path)
    assert type(parse(PHOTOS, "--data.kind", "coco_captions", *files)) is Captioning
    assert type(parse(PHOTOS, "--data.kind", "vqa_v2", *files)) is VQA


def test_a_table_without_columns_is_refused(tmp_path):
    table = write_table(tmp_path / "t.csv", ("a.png", "a cat"))
    assert "no header" in refused(PHOTOS, "--data", table)


def test_questions_and_captions_differ_in_the_preset_alone(tmp_path):
    questions = write_table(tmp_path / "q.csv", ("image", "question", "answer"), ("a.png", "what?", "a"))
    captions = write_table(tmp_path / "c.csv", ("image", "caption"), ("a.png", "a cat"))
    asked, written = parse(PHOTOS, "--data", questions), parse(PHOTOS, "--data", captions)
    for group in ("image", "init", "optimizer"):
        assert getattr(asked, group) == getattr(written, group)
    assert asked.model.image == written.model.image and asked.data.stored_views == written.data.stored_views == 1


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    place = tmp_path_factory.mktemp("published")
    folders = {name: fixtures.publish(fixtures.BY_NAME[name].fixtures[0], place / name) for name in CNNS}
    if find_spec("torch"):  # it writes the files
        from tests.weights.test_image_transformers import publish

        folders |= {name: publish(name, place / name) for name in TRANSFORMERS}
    return folders


def of(published, name):
    if name not in published:
        pytest.skip("torch, which writes the file, is not installed")
    return published[name]


@pytest.mark.parametrize("name", CNNS + TRANSFORMERS)
@pytest.mark.parametrize("preset", [QUICKSTART, EMOJI, PHOTOS], ids=["quickstart", "emoji_captioning", "photos"])
def test_one_option_sets_all_that_an_image_encoder_prescribes(tmp_path, published, preset, name):
    files = {QUICKSTART: (), EMOJI: ("--images", tmp_path), PHOTOS: ("--data", tmp_path / "c.csv")}[preset]
    source, before = of(published, name), parse(preset, *files)
    config, architecture = parse(preset, *files, "--image-encoder", source), read(str(source)).architecture
    encoder = architecture.model
    assert type(config.model.image) is type(encoder)
    for setting in set(type(encoder).model_fields) - {"positions", "projection", "output"}:
        assert getattr(config.model.image, setting) == getattr(encoder, setting), setting
    assert config.model.image.positions == before.model.image.positions
    for setting in ("size", "resize", "mean", "std"):
        assert getattr(config.image, setting) == getattr(architecture.input, setting), setting
    assert config.image.shift == before.image.shift
    assert config.init.image == str(source)
    assert getattr(config.init, "text", None) == getattr(before.init, "text", None)
    assert from_json(to_json(config), TASKS) == config


def test_settings_come_before_what_the_encoder_prescribes(published):
    size = ("--image.size", "16", "16", "--image.resize.kind", "stretch")
    config = parse(
        QUICKSTART, "--image-encoder", of(published, "Dinov2Model"), *size, "--model.image.positions", "grid"
    )
    assert config.image.size == (16, 16) and config.image.resize.kind == "stretch"
    assert config.model.image.positions == "grid" and config.model.image.kind == "vit"


def test_another_size_keeps_the_part_of_an_image_that_is_seen(tmp_path, published):
    """The recipe of a ResNet: a cut of 224 out of a short side of 256."""
    option = (QUICKSTART, "--image-encoder", published["resnet18"])
    assert parse(*option).image.resize.short_side == 256
    config = parse(*option, "--image.size", "112", "112")
    assert config.image.size == (112, 112) and config.image.resize.short_side == 128
    assert parse(*option, "--image.size", "448,448").image.resize.short_side == 512
    given = ("--image.size", "112", "112", "--image.resize.short-side", "120")
    assert parse(*option, *given).image.resize.short_side == 120
    assert "image.size" in refused(*option, "--image.size", "0", "112")
    wide = ImageInput(size=(224, 224), resize=StretchCrop(scaled_size=(256, 300))).at_size((112, 56))
    assert wide.size == (112, 56) and wide.resize.scaled_size == (128, 75)
    assert ImageInput(size=(224, 224), resize=CenterCrop(short_side=256)).at_size((112, 56)).resize.short_side == 128
    assert ImageInput(size=(224, 224), resize=Stretch(resample="box")).at_size((8, 9)).resize == Stretch(resample="box")


def test_other_sources_and_tasks_are_refused(tmp_path, published):
    text = own.write(tmp_path / "bert")
    assert "no image encoder" in refused(QUICKSTART, "--image-encoder", text)
    assert "nowhere" in refused(QUICKSTART, "--image-encoder", "./nowhere")
    for task in ("image_tokenizer", "image_generation"):
        assert task in refused(task, "--image-encoder", published["resnet18"])


def test_other_commands_take_the_option(published, capsys):
    assert inspect_model.main([QUICKSTART, "--image-encoder", str(of(published, "Dinov2Model"))]) == 0
    assert "images by vit" in capsys.readouterr().out


def test_help_names_the_option(capsys):
    with pytest.raises(SystemExit):
        train.main([QUICKSTART, "--help"])
    assert "--image-encoder" in capsys.readouterr().out
