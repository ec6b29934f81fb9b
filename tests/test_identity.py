"""Which settings a run that has begun may go on with: each by its mark, and what is recorded of those that changed."""

import json
from pathlib import Path

import jax.numpy as jnp
import pytest

from vlm_jax.config.optimizers import AdamW
from vlm_jax.config.tasks import TASKS
from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.identity import changes, forbidden, same_schedule, settings_but
from vlm_jax.run_claim import claim
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.effects import Effect
from vlm_jax.settings.groups import choices, group_in
from vlm_jax.training.optimizer import learning_rate_schedule

CONFIG = VQA(name="run")
DECODING = {"min_length", "no_repeat_ngram_size", "prefix", "num_return_sequences", "temperature", "top_k", "top_p"}
DECODING |= {"kind", "num_beams", "length_penalty", "early_stopping"}
# What a run may be started again with. All other settings are its identity: a new one that is not has to be added here.
MAY_CHANGE = {
    Effect.PLACE: {
        *("name", "data.directory", "data.max_pixels", "data.images", "data.train", "data.validation", "data.test"),
        *("data.bad_rows", "data.columns", "data.folder", "data.dataset", "model.image.folder"),
    },
    Effect.SPEED: {
        *("data.threads", "data.cache_gigabytes", "compute.compilation_cache"),
        *("training.log_every", "training.evaluation_batch_images"),
    },
    Effect.ROUNDING: {"compute.parallelism", "compute.devices"},
    Effect.USE: {"data.accuracy", "data.evaluation_limit", "training.evaluate_every"},
    Effect.DECODING: {
        *(f"decoding.{name}" for name in DECODING),
        *("generation.num_decoding_steps", "generation.num_refinement_rounds", "generation.guidance_scale"),
        *("generation.temperature", "generation.choice_temperature"),
    },
    Effect.SOURCE: {"init.model", "init.text", "init.image", "model.text.tokenizer", "image_tokenizer.run"},
    Effect.LENGTH: {"training.steps"},
}


def marks_of(group, prefix="", inherited=Effect.IDENTITY):
    """The effect of every setting that a class can have."""
    for name, field in group.model_fields.items():
        mark = next((entry for entry in field.metadata if isinstance(entry, Effect)), inherited)
        groups = [*choices(field).values(), *filter(None, [group_in(field)])]
        for member in groups:
            yield from marks_of(member, f"{prefix}{name}.", mark)
        if not groups:
            yield prefix + name, mark


MARKS = {name: mark for task in TASKS.values() for name, mark in marks_of(task)}


def test_only_known_settings_may_change():
    changeable = {
        effect: {name for name, mark in MARKS.items() if mark is effect}
        for effect in Effect
        if effect is not Effect.IDENTITY
    }
    assert changeable == MAY_CHANGE


OTHER = {
    # a setting of each effect, and another value
    Effect.IDENTITY: {"seed": 1, "data.limit": 3, "model.hidden_size": 64, "compute.dtype": "bfloat16"},
    Effect.PLACE: {"name": "other", "data.directory": Path("elsewhere")},
    Effect.SPEED: {"data.threads": 3, "training.log_every": 1},
    Effect.ROUNDING: {"compute.parallelism": "pmap", "compute.devices": 1},
    Effect.USE: {"data.evaluation_limit": 2, "training.evaluate_every": 7},
    Effect.LENGTH: {"training.steps": 1001},
}


@pytest.mark.parametrize(
    ("effect", "setting"), [(effect, setting) for effect, values in OTHER.items() for setting in values]
)
def test_a_run_goes_on_with_another_value_of_a_setting_or_refuses_it_by_name(effect, setting, tmp_path):
    other = with_changes(CONFIG, {setting: OTHER[effect][setting]})
    assert [change.setting for change in changes(CONFIG, other)] == [setting]
    with claim(tmp_path / "run", CONFIG):
        pass
    before = (tmp_path / "run" / "config.json").read_bytes()
    if effect is Effect.IDENTITY:
        with pytest.raises(InputError, match=rf"other settings \({setting}: "), claim(tmp_path / "run", other):
            pass
    elif effect is Effect.LENGTH:
        with pytest.raises(InputError, match=r"training\.steps 1000, on which"), claim(tmp_path / "run", other):
            pass
    else:
        with claim(tmp_path / "run", other):
            pass
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_another_choice_is_another_run(tmp_path):
    for name, kind in (("model.image", "patches"), ("optimizer", "sgd"), ("data", "sort_of_clevr")):
        other = with_changes(CONFIG, {f"{name}.kind": kind})
        assert f"{name}.kind" in [change.setting for change in forbidden(CONFIG, other)]


@pytest.mark.parametrize("setting", ["init.text", "init.image", "model.text.tokenizer"])
def test_a_source_may_move_but_not_come_or_go(setting):
    base = with_changes(CONFIG, {"init.kind": "parts", "init.text": "here", "init.image": "here"})
    without, first, second = (with_changes(base, {setting: value}) for value in (None, "here", "there"))
    assert forbidden(first, second) == []
    for old, new in ((without, first), (first, without)):
        assert [change.setting for change in forbidden(old, new)] == [setting]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("steps", [(10, 20), (20, 10), (10, 4), (4, 10), (3, 4), (7, 7)])
def test_training_may_be_longer_where_the_steps_that_are_done_had_the_same_rates(schedule, steps):
    settings = AdamW(schedule=schedule, warmup_steps=5)
    first, second = (with_changes(CONFIG, {"optimizer": settings, "training.steps": count}) for count in steps)
    shared = jnp.arange(min(steps))
    rates = [learning_rate_schedule(settings, count)(shared) for count in steps]
    assert same_schedule(first, second) == bool((rates[0] == rates[1]).all())


def test_a_finished_run_may_be_longer_and_not_shorter(tmp_path):
    config = with_changes(CONFIG, {"optimizer.schedule": "constant", "optimizer.warmup_steps": 5, "training.steps": 10})
    longer, shorter = (with_changes(config, {"training.steps": count}) for count in (20, 8))
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
        files = with_changes(CONFIG, {"data.threads": 5, "data.directory": Path("a")})
        folder.adopt(files, 3)
        rows = [
            {"step": 3, "setting": "data.directory", "before": str(CONFIG.data.directory), "after": "a"},
            {"step": 3, "setting": "data.threads", "before": 2, "after": 5},
        ]
        assert folder.history() == rows and folder.config() == files
        folder.adopt(CONFIG, 3)
        folder.adopt(files, 3)
        assert len(folder.history()) == 6


def test_a_kill_between_the_two_files_records_nothing_twice(tmp_path, monkeypatch):
    other = with_changes(CONFIG, {"data.threads": 5})
    with claim(tmp_path, CONFIG) as folder:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("vlm_jax.run_folder.to_json", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            folder.adopt(other, 3)
        assert folder.config() == CONFIG and len(folder.history()) == 1
        folder.adopt(other, 3)
        assert folder.config() == other and len(folder.history()) == 1


def test_configs_agree_but_for_settings_of_some_effects():
    free = (Effect.PLACE, Effect.SPEED)
    moved = with_changes(CONFIG, {"name": "other", "data.threads": 7, "data.directory": Path("elsewhere")})
    assert settings_but(moved, *free) == settings_but(CONFIG, *free)
    assert settings_but(moved, Effect.PLACE) != settings_but(CONFIG, Effect.PLACE)
    assert settings_but(with_changes(moved, {"seed": 3}), *free) != settings_but(CONFIG, *free)
