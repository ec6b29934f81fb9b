"""Whether a run that has begun is the same run under other settings.

A run's identity is every setting that changes a parameter at a fixed number of devices, and the content of its images
and texts. The mark of a setting stands beside its type (`settings/effects.py`).
"""

from typing import NamedTuple

from vlm_jax.config.run import Config
from vlm_jax.settings.effects import Effect, effects
from vlm_jax.settings.groups import flat, json_tree, tree_of
from vlm_jax.types import Json


class Change(NamedTuple):
    """One setting, or a circumstance such as the devices, before and after, as JSON has them."""

    setting: str
    before: Json
    after: Json
    effect: Effect

    def __str__(self) -> str:
        return f"{self.setting}: {self.before!r} -> {self.after!r}"


def changes(old: Config, new: Config) -> list[Change]:
    """Every setting that both configs have and that differs, in the order of the settings.

    Where a choice is another one, its `kind` differs, which stands for the settings that only one config has.
    """
    before, after, marks = flat(json_tree(old)), flat(json_tree(new)), effects(old)
    differing = (name for name in before if name in after and before[name] != after[name])
    return [Change(name, before[name], after[name], marks[name]) for name in differing]


def forbidden(old: Config, new: Config) -> list[Change]:
    """The changes that make it another run.

    A source may move, but a run that began without one does not get one later. `training.steps` is judged by
    `same_schedule`.
    """
    return [
        change
        for change in changes(old, new)
        if change.effect is Effect.IDENTITY
        or (change.effect is Effect.SOURCE and None in (change.before, change.after))
    ]


def same_schedule(old: Config, new: Config) -> bool:
    """Whether each step that both have has one learning rate, whatever `training.steps` is.

    A constant schedule has, unless the training ends before its warm-up, which is shortened then.
    """
    first, second = old.training.steps, new.training.steps
    warmup = old.optimizer.warmup_steps
    return first == second or (old.optimizer.schedule == "constant" and min(warmup, first) == min(warmup, second))


def settings_but(config: Config, *marks: Effect) -> frozenset[tuple[str, object]]:
    """The settings of a config whose effects are none of these, with their values: equal where configs agree."""
    values = flat(tree_of(config))
    return frozenset((name, values[name]) for name, mark in effects(config).items() if mark not in marks)
