"""Which settings a run that has begun may go on with: each by its mark, and what is recorded of those that changed."""

import dataclasses
import json
import types
import typing
from typing import Literal

import jax.numpy as jnp
import pytest
from vlm_jax.config_checks import check
from vlm_jax.config_json import with_overrides
from vlm_jax.setting_kinds import Identity, Kind, Speed, kinds_of

from vlm_jax.config import KINDS, Config, Data, Optimizer, Training, leaves
from vlm_jax.errors import InputError
from vlm_jax.identity import changes, forbidden, same_schedule, with_settings_of
from vlm_jax.run_claim import claim
from vlm_jax.run_folder import RunFolder
from vlm_jax.training.optimizer import learning_rate_schedule

CONFIG = check(Config(name="run"))
# What a run may be started again with. All other settings are its identity: a new one that is not has to be added here.
MAY_CHANGE = {
    Kind.PLACE: {
        *("name", "data.directory", "data.image.max_pixels", "data.files.images", "data.files.train"),
        *("data.files.validation", "data.files.test", "data.files.bad_rows"),
    },
    Kind.SPEED: {"data.threads", "data.read_ahead", "training.log_every", "training.evaluation_batch_images"},
    Kind.ROUNDING: {"parallel.method", "parallel.devices"},
    Kind.USE: {
        *("data.accuracy", "data.evaluation_limit", "training.evaluate_every"),
        *(name for name in leaves(Config()) if name.startswith("decoding.")),
        *("generation.num_decoding_steps", "generation.num_refinement_rounds", "generation.guidance"),
        *("generation.temperature", "generation.choice_temperature"),
        *("generation.num_images", "generation.num_candidates", "generation.reranker", "generation.features"),
        "generation.features_sha256",
    },
    Kind.SOURCE: {
        *("model.init_from", "model.text.init_from", "model.image.init_from", "model.text.tokenizer"),
        "generation.tokenizer",
    },
    Kind.LENGTH: {"training.steps"},
}


def test_every_setting_has_one_mark_and_only_known_ones_may_change():
    assert set(KINDS) == set(leaves(Config()))
    assert [name for name, kind in KINDS.items() if kind is None] == []
    changeable = {
        kind: {name for name, mark in KINDS.items() if mark is kind} for kind in Kind if kind is not Kind.IDENTITY
    }
    assert changeable == MAY_CHANGE


def test_a_setting_without_a_mark_or_with_two_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Group:
        fine: Identity[int] = 1
        bare: int = 1
        torn: Speed[Identity[int]] = 1

    assert kinds_of(Group, "x.") == {"x.fine": Kind.IDENTITY, "x.bare": None, "x.torn": None}


def another(hint, value):
    """A value of the type of a setting that is not its own."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return next(choice for choice in arguments if choice != value)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return another(next(argument for argument in arguments if argument is not type(None)), value)
    if hint is bool:
        return not value
    if typing.get_origin(hint) is tuple:
        fresh = (another(argument, None) for argument in arguments if argument is not Ellipsis)
        return (another(arguments[0], value[0]), *value[1:]) if value else tuple(fresh)
    return f"{value} else" if hint is str else (value or 0) + hint(1)


def hints_of(group, path=""):
    for name, hint in typing.get_type_hints(group).items():
        yield from hints_of(hint, f"{path}{name}.") if dataclasses.is_dataclass(hint) else [(path + name, hint)]


HINTS = dict(hints_of(Config))


@pytest.mark.parametrize("setting", HINTS)
def test_a_run_goes_on_with_another_value_of_a_setting_or_refuses_it_by_name(setting, tmp_path, monkeypatch):
    """`check` is left out: whether a value goes with others is not the question."""
    monkeypatch.setattr("vlm_jax.run_claim.check", lambda config: config)
    base = with_overrides(CONFIG, [(name, "a source") for name in MAY_CHANGE[Kind.SOURCE]])
    monkeypatch.setattr(RunFolder, "config", lambda folder: base)
    other = with_overrides(base, [(setting, another(HINTS[setting], leaves(base)[setting]))])
    assert [change.setting for change in changes(base, other)] == [setting]
    with claim(tmp_path / "run", base):
        pass
    before = (tmp_path / "run" / "config.json").read_bytes()
    if KINDS[setting] is Kind.IDENTITY:
        with pytest.raises(InputError, match=rf"other settings \({setting}: "), claim(tmp_path / "run", other):
            pass
    elif KINDS[setting] is Kind.LENGTH:
        with pytest.raises(InputError, match=r"training\.steps 1000, on which"), claim(tmp_path / "run", other):
            pass
    else:
        with claim(tmp_path / "run", other):
            pass
    assert (tmp_path / "run" / "config.json").read_bytes() == before


@pytest.mark.parametrize("setting", sorted(MAY_CHANGE[Kind.SOURCE]))
def test_a_source_may_move_but_not_come_or_go(setting):
    without, first, second = (with_overrides(CONFIG, [(setting, value)]) for value in (None, "here", "there"))
    assert forbidden(first, second) == []
    for old, new in ((without, first), (first, without)):
        assert [change.setting for change in forbidden(old, new)] == [setting]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("steps", [(10, 20), (20, 10), (10, 4), (4, 10), (3, 4), (7, 7)])
def test_training_may_be_longer_where_the_steps_that_are_done_had_the_same_rates(schedule, steps):
    settings = Optimizer(schedule=schedule, warmup_steps=5)
    first, second = (Config(optimizer=settings, training=Training(steps=count)) for count in steps)
    shared = jnp.arange(min(steps))
    rates = [learning_rate_schedule(settings, count)(shared) for count in steps]
    assert same_schedule(first, second) == bool((rates[0] == rates[1]).all())


def test_a_finished_run_may_be_longer_and_not_shorter(tmp_path):
    config = check(Config(optimizer=Optimizer(schedule="constant", warmup_steps=5), training=Training(steps=10)))
    longer, shorter = (dataclasses.replace(config, training=Training(steps=count)) for count in (20, 8))
    with claim(tmp_path, config) as folder:
        folder.write_json("result.json", {"steps": 10})
        folder.write_text("predictions.jsonl", "{}\n")
    with pytest.raises(InputError, match=r"has taken 10 optimizer steps; training\.steps 8 "), claim(tmp_path, shorter):
        pass
    with claim(tmp_path, longer) as folder:
        assert folder.finished
        assert [str(change) for change in folder.adopt(longer, 10)] == ["training.steps: 10 -> 20"]
        assert not folder.finished and folder.config() == longer
    assert json.loads((tmp_path / "result-step-10.json").read_text(encoding="utf-8")) == {"steps": 10}
    assert (tmp_path / "predictions-step-10.jsonl").exists() and not (tmp_path / "predictions.jsonl").exists()


def test_what_changed_is_recorded_once_each_time(tmp_path):
    with claim(tmp_path, CONFIG) as folder:
        assert folder.adopt(CONFIG, 0) == [] and folder.history() == []
        files = with_overrides(CONFIG, [("data.threads", 5), ("data.files.train", ["a", "b"])])
        folder.adopt(files, 3)
        rows = [
            {"step": 3, "setting": "data.files.train", "before": [], "after": ["a", "b"]},
            {"step": 3, "setting": "data.threads", "before": 2, "after": 5},
        ]
        assert folder.history() == rows and folder.config() == files
        folder.adopt(CONFIG, 3)
        folder.adopt(files, 3)
        assert len(folder.history()) == 6


def test_a_kill_between_the_two_files_records_nothing_twice(tmp_path, monkeypatch):
    other = with_overrides(CONFIG, [("data.threads", 5)])
    with claim(tmp_path, CONFIG) as folder:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("vlm_jax.run_folder.to_json", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            folder.adopt(other, 3)
        assert folder.config() == CONFIG and len(folder.history()) == 1
        folder.adopt(other, 3)
        assert folder.config() == other and len(folder.history()) == 1


def test_settings_of_some_kinds_are_taken_from_another_config():
    other = Config(name="other", seed=3, data=Data(threads=7, directory="elsewhere"))
    taken = with_settings_of(CONFIG, other, Kind.PLACE, Kind.SPEED)
    assert (taken.name, taken.seed, taken.data.threads, taken.data.directory) == ("other", 0, 7, "elsewhere")
    assert with_settings_of(CONFIG, other) == CONFIG
