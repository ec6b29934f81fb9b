"""The two short names of settings: `--data FILE` for `--data.train FILE`, `--images DIR` for `--data.images DIR`.

`--data tfds:NAME` is `--data.kind tfds --data.dataset NAME`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from vlm_jax.errors import InputError
from vlm_jax.settings.changes import Words
from vlm_jax.settings.groups import Group, Tree, group_in


class Short(NamedTuple):
    """What a short name stands for."""

    group: str
    setting: str
    kind: str
    """The choice of the group that the name means where the present one has no such setting."""


SHORT = {"data": Short("data", "train", "table"), "images": Short("data", "images", "table")}
PREFIXES = {"tfds:": Short("data", "dataset", "tfds")}
"""What a value means that begins so."""


def group_of(name: str) -> str | None:
    """The group of the setting that a short name stands for; None for any other name."""
    return SHORT[name].group if name in SHORT else None


def long_names(words: Mapping[str, Words], config: type[Group], tree: Tree) -> dict[str, Words]:
    """The words with long names, and with the kind of the group where only another kind has the setting.

    `tree` has the config's settings before these words. Raises `InputError` where a setting has both names.
    """
    named: dict[str, Words] = {}
    for name, value in words.items():
        short = SHORT.get(name)
        if short is None:
            named[name] = value
            continue
        for prefix, other in PREFIXES.items():
            if name == other.group and len(value.words) == 1 and value.words[0].startswith(prefix):
                short, value = other, Words((value.words[0].removeprefix(prefix),))
        setting, kind = f"{short.group}.{short.setting}", f"{short.group}.kind"
        if setting in words:
            raise InputError(f"--{name} is short for --{setting}; give one of the two")
        named[setting] = value
        present = group_in(config.model_fields.get(short.group), tree.get(short.group))
        if kind not in words and present is not None and short.setting not in present.model_fields:
            named[kind] = Words((short.kind,))
    return named
