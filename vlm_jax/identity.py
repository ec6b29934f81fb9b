"""Whether a run that has begun is the same run under other settings.

A run's identity is every setting that changes a parameter at a fixed number of devices, and the content of its images
and texts. What each setting is stands beside it (`setting_kinds`).
"""

from dataclasses import replace
from typing import Any, NamedTuple

from vlm_jax.config import KINDS, Config, leaves
from vlm_jax.setting_kinds import Kind


class Change(NamedTuple):
    """One setting, or a circumstance such as the devices, before and after."""

    setting: str
    before: Any
    after: Any
    kind: Kind

    def __str__(self) -> str:
        return f"{self.setting}: {self.before!r} -> {self.after!r}"


def changes(old: Config, new: Config) -> list[Change]:
    """Every setting that differs, in the order of the settings."""
    before, after = leaves(old), leaves(new)
    return [Change(name, before[name], after[name], KINDS[name]) for name in before if before[name] != after[name]]


def forbidden(old: Config, new: Config) -> list[Change]:
    """The changes that make it another run.

    A source may move, but a run that began without one does not get one later. `training.steps` is judged by
    `same_schedule`.
    """
    return [
        change
        for change in changes(old, new)
        if change.kind is Kind.IDENTITY or (change.kind is Kind.SOURCE and None in (change.before, change.after))
    ]


def same_schedule(old: Config, new: Config) -> bool:
    """Whether each step that both have has one learning rate, whatever `training.steps` is.

    A constant schedule has, unless the training ends before its warm-up, which is shortened then.
    """
    old_steps, new_steps = old.training.steps, new.training.steps
    warmup = old.optimizer.warmup_steps
    return old_steps == new_steps or (
        old.optimizer.schedule == "constant" and min(warmup, old_steps) == min(warmup, new_steps)
    )


def with_settings_of(config: Config, other: Config, *kinds: Kind) -> Config:
    """The config with the settings of these kinds as `other` has them."""
    return _replaced(config, leaves(other), kinds)


def _replaced(group: Any, values: dict[str, Any], kinds: tuple[Kind, ...], path: str = "") -> Any:
    new = {}
    for name, value in vars(group).items():
        setting = path + name
        if setting not in KINDS:
            new[name] = _replaced(value, values, kinds, f"{setting}.")
        elif KINDS[setting] in kinds:
            new[name] = values[setting]
    return replace(group, **new)
