"""Settings survive JSON, wrong ones are named with the nearest right one, and impossible pairs are refused."""

import dataclasses
import functools
import json
import math
import re
import runpy
import typing
from pathlib import Path

import pytest

from vlm_jax.config import (
    PAIRINGS,
    Config,
    Data,
    Fusion,
    Generation,
    Head,
    ImageEncoder,
    ImageInput,
    ImageTokenizerSettings,
    Model,
    Optimizer,
    Task,
    TextEncoder,
    Training,
)
from vlm_jax.config_checks import RULES, check
from vlm_jax.config_json import from_dict, from_json, to_dict, to_json
from vlm_jax.errors import InputError, nearest
from vlm_jax.identity import changes

PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
UNUSUAL = Config(
    name="größer",
    seed=7,
    data=Data(limit=5, image=ImageInput(size=(32, 48), mean=(0.1, 0.2, 0.3))),
    optimizer=Optimizer(multipliers=(("^image/", 0.1), ("bias$", 2.0)), frozen=("^text/",), clip_norm=None, ema=0.99),
    training=Training(steps=3),
)


@pytest.mark.parametrize("config", [Config(), UNUSUAL], ids=["default", "unusual"])
def test_a_config_survives_json(config):
    assert from_dict(json.loads(to_json(config))) == config
    assert from_json(to_json(config)) == check(config)  # what was left open is chosen


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid_and_survives_json(path):
    config = runpy.run_path(str(path))["get_config"]()
    assert from_json(to_json(config)) == check(config) == check(check(config))
    assert config.name == path.stem


def test_tuples_come_back_as_tuples():
    back = from_json(to_json(UNUSUAL))
    assert back.optimizer.multipliers == (("^image/", 0.1), ("bias$", 2.0))
    hash(back)  # a list anywhere inside would raise


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("modle", {}, r"no setting 'modle'; did you mean 'model'\?"),
        ("model.fusoin", "concat", r"no setting 'model.fusoin'; did you mean 'fusion'\?"),
        ("data.image.sise", 3, r"no setting 'data.image.sise'; did you mean 'size'\?"),
        ("model.fusion", "concatt", r"setting 'model.fusion' is 'concatt'; choose one of: concat, cross"),
        ("model.hidden_size", "128", r"setting 'model.hidden_size' must be int, not '128'"),
        ("model.hidden_size", 1.5, r"setting 'model.hidden_size' must be int, not 1.5"),
        ("model.hidden_size", True, r"setting 'model.hidden_size' must be int, not True"),
        ("optimizer.learning_rate", True, r"setting 'optimizer.learning_rate' must be float, not True"),
        ("optimizer.learning_rate", None, r"setting 'optimizer.learning_rate' must be float, not None"),
        ("model.remat", 1, r"setting 'model.remat' must be bool, not 1"),
        ("data.limit", "5", r"setting 'data.limit' must be int, not '5'"),
        ("data.image.size", [64], r"setting 'data.image.size' must be .*, not \[64\]"),
        ("data.image.size", [64, "64"], r"setting 'data.image.size' must be int, not '64'"),
        ("optimizer.multipliers", [["a"]], r"setting 'optimizer.multipliers' must be .*, not \['a'\]"),
        ("model", 3, r"setting 'model.?' must be a group of settings, not 3"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest(path, value, message):
    values = to_dict(Config())
    *groups, name = path.split(".")
    group = values
    for part in groups:
        group = group[part]
    group[name] = value
    with pytest.raises(InputError, match=message):
        from_dict(values)


def test_a_whole_number_may_stand_for_a_float():
    learning_rate = from_dict({"optimizer": {"learning_rate": 1}}).optimizer.learning_rate
    assert learning_rate == 1.0
    assert type(learning_rate) is float


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (
            "model",
            {"attention_pattern": "prefix"},
            r"'prefix' does not go with model.fusion 'concat' in the task 'vqa'; choose one",
        ),
        (
            "model",
            {"fusion": "late", "head": "cls"},
            r"model.head 'cls' .* 'late' .*: product, concatenation, or",
        ),
        (
            "model",
            {"fusion": "cross", "attention_pattern": "bidirectional"},
            r"'cross' .*; choose one of: image_to_text, or leave",
        ),
        (
            "model",
            {"fusion": "co_attention", "attention_pattern": "dual_encoder"},
            r"choose one of: bidirectional, or leave it out",
        ),
        (
            "model",
            {"hidden_size": 130},
            r"model.hidden_size 130 is not a multiple of model.num_attention_heads 4; the nearest hidden_size is 128",
        ),
        ("model", {"num_attention_heads": 0}, r"model.num_attention_heads is 0; it must be at least 1"),
        ("model", {"hidden_dropout_prob": 1.0}, r"model.hidden_dropout_prob is 1.0; it must be at least 0 and below 1"),
        ("model", {"num_layers": 0}, r"model.num_layers is 0"),
        ("training", {"accumulation": 5}, r"training.batch_images 32 does not divide .* nearest batch is 30"),
        ("training", {"accumulation": 0}, r"training.accumulation is 0; it must be at least 1"),
        ("training", {"steps": 0}, r"training.steps is 0"),
        ("training", {"label_smoothing": -0.1}, r"training.label_smoothing is -0.1"),
        ("data", {"texts_per_image": 0}, r"data.texts_per_image is 0"),
        ("data", {"image": ImageInput(size=(0, 4))}, r"data.image.size is \(0, 4\); it must be at least 1"),
        ("data", {"image": ImageInput(short_side=0)}, "data.image.short_side is 0; it must be at least 1"),
        ("data", {"image": ImageInput(size=(64, 80), short_side=79)}, "the smallest is 80"),
        ("data", {"image": ImageInput(short_side=80, resize="pad")}, "needs data.image.resize crop, not pad"),
        ("data", {"image": ImageInput(std=(1.0, 0.0, 1.0))}, r"data.image.std is .*; it must be above 0"),
        (
            "model",
            {"image": ImageEncoder(cnn="features")},
            r"'easy_vqa' holds images; choose one of: efficientnet_lite0, mobilenet_v2, patches, resnet101",
        ),
        ("model", {"text": TextEncoder(max_length=2)}, r"model.text.max_length is 2; it must be at least 3"),
        ("optimizer", {"learning_rate": math.nan}, r"optimizer.learning_rate is nan; it must be at least 0 and finite"),
        ("optimizer", {"ema": 1.0}, r"optimizer.ema is 1.0; it must be at least 0 and below 1"),
        ("optimizer", {"multipliers": (("a", -1.0),)}, r"optimizer.multipliers has the factor -1.0"),
    ],
)
def test_impossible_settings_are_refused_with_the_remedy(group, values, message):
    config = Config()
    wrong = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **values)})
    with pytest.raises(InputError, match=message):
        check(wrong)


@pytest.mark.parametrize(("task", "fusion"), [(task, fusion) for task in PAIRINGS for fusion in PAIRINGS[task]])
def test_a_fusion_alone_chooses_what_goes_with_it(task, fusion):
    model = check(Config(task=task, model=Model(fusion=fusion), generation=Generation(tokenizer="run"))).model
    assert (model.attention_pattern, model.head) == tuple(allowed[0] for allowed in PAIRINGS[task][fusion])


def test_every_fusion_pattern_and_head_has_its_place():
    assert {name for fusions in PAIRINGS.values() for name in fusions} == set(typing.get_args(Fusion))
    assert set(PAIRINGS) == set(typing.get_args(Task)) - {"image_tokenizer"}  # which has no trunk
    used = [pair for fusions in PAIRINGS.values() for pair in fusions.values()]
    assert {head for _, heads in used for head in heads} == set(typing.get_args(Head))


def test_every_number_has_a_rule():
    """A new setting without one could be zero, negative or not a number, and fail late."""
    ruled = [setting for _, _, settings in RULES for setting in settings]
    assert len(ruled) == len(set(ruled))
    kinds = {path: kind for path, kind in kinds_of(Config) if re.search(r"\b(int|float)\b", kind)}
    assert set(ruled) == set(kinds) - {"optimizer.multipliers"}


def kinds_of(group, path=""):
    for name, kind in typing.get_type_hints(group).items():
        yield from kinds_of(kind, f"{path}{name}.") if dataclasses.is_dataclass(kind) else [(path + name, str(kind))]


def test_settings_inside_the_encoders_are_checked_too():
    image = dataclasses.replace(Model().image, blocks=(1,))
    with pytest.raises(InputError, match=r"model.image.blocks has 1 stages, model.image.widths 3"):
        check(Config(model=Model(image=image)))
    text = dataclasses.replace(Model().text, max_length=600)
    with pytest.raises(InputError, match=r"model.text.max_length 600 needs 600 positions"):
        check(Config(model=Model(text=text)))


def test_a_saved_config_is_checked_when_read():
    values = to_dict(Config())
    values["model"]["hidden_size"] = 130
    with pytest.raises(InputError, match=r"model.hidden_size 130"):
        from_json(json.dumps(values))


@pytest.mark.parametrize("group", [(), ("model", "image")])
def test_a_saved_config_has_every_setting_and_no_other(group):
    values = to_dict(Config())
    level = functools.reduce(dict.get, group, values)
    name, value = level.popitem()
    with pytest.raises(InputError, match=f"{'.'.join([*group, name])}.* is missing"):
        from_json(json.dumps(values))
    level |= {name: value, "former": 1}
    with pytest.raises(InputError, match=f"no setting '{'.'.join([*group, 'former'])}'"):
        from_json(json.dumps(values))


def test_each_changed_setting_is_named_once():
    assert changes(Config(), Config()) == []
    new = Config(seed=1, model=Model(hidden_size=64), data=Data(image=ImageInput(size=(32, 48))))
    assert list(map(str, changes(Config(), new))) == [
        "seed: 0 -> 1",
        "data.image.size: (64, 64) -> (32, 48)",
        "model.hidden_size: 128 -> 64",
    ]
    assert changes(check(Config()), from_json(to_json(Config()))) == []


def test_every_setting_has_a_meaning():
    """The line under a field is what `--help` shows."""
    source = (Path(__file__).parent.parent / "vlm_jax" / "config.py").read_text(encoding="utf-8")
    for group in (Config, Data, ImageInput, Model, ImageTokenizerSettings, Optimizer, Training, Generation):
        body = source.split(f"class {group.__name__}:")[1].split("\n\n\n")[0]
        for field in dataclasses.fields(group):
            if not dataclasses.is_dataclass(field.type):
                assert re.search(rf'\n    {field.name}: [^\n]*\n    """', body), f"{group.__name__}.{field.name}"


def test_nearest_names_one_choice_or_all():
    assert nearest("concta", ["concat", "cross"]) == "did you mean 'concat'?"
    assert nearest("zzz", ["cross", "concat"]) == "choose one of: concat, cross"


def test_only_names_of_settings_and_files_are_hinted_by_spelling():
    """A wrong guess at a family, an activation, a split or a score changes a number: there all choices are listed."""
    root = Path(__file__).parent.parent
    users = {path for folder in ("vlm_jax", "experiments") for path in (root / folder).rglob("*.py")}
    users = {str(path.relative_to(root)) for path in users if re.search(r"errors import .*nearest", path.read_text())}
    assert users == {
        "vlm_jax/ablation/study.py",  # a study's file
        "vlm_jax/command_line.py",  # a config file, a setting
        "vlm_jax/config_json.py",  # a setting
        "vlm_jax/data/split_files.py",  # a file
        "vlm_jax/data/json_files.py",  # a key
        "vlm_jax/run_folder.py",  # a run
        "vlm_jax/scenes/scene.py",  # a key
    }
