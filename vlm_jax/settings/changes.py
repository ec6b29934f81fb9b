"""Changes by dotted names, and configs as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args, get_origin

import pydantic_core
from pydantic import ValidationError

from vlm_jax.errors import InputError
from vlm_jax.settings.errors import explained, first_line, unknown
from vlm_jax.settings.groups import Group, Tree, choices, flat, group_in, members, takes_none, tree_of

Config = TypeVar("Config", bound=Group)


class Words(NamedTuple):
    """The words that follow an option on a command line; the setting's type gives them a meaning."""

    words: tuple[str, ...]


def with_changes(config: Config, changes: Mapping[str, object]) -> Config:
    """The config with settings changed by their dotted names, checked as a whole."""
    tree = tree_of(config)
    change(type(config), tree, changes)
    return checked(type(config), tree, strict=not any(isinstance(value, Words) for value in changes.values()))


def checked(group: type[Config], tree: Tree, strict: bool = True) -> Config:
    """The group of a tree; without `strict`, pydantic reads texts as numbers and the like.

    Raises `InputError` that names everything that is wrong.
    """
    try:
        return group.model_validate(tree, strict=strict)
    except ValidationError as error:
        raise InputError(explained(error, group, tree)) from None


def change(root: type[Group], tree: Tree, changes: Mapping[str, object]) -> None:
    """Set settings in a tree, in any order: choices come first, outer ones before inner ones.

    A value is a Python value, `Words`, or a whole group.
    """

    def order(name: str) -> tuple[bool, int]:
        return not (name.endswith(".kind") or isinstance(changes[name], Group)), name.count(".")

    for name in sorted(changes, key=order):
        _change(root, tree, name, changes[name])


def _change(root: type[Group], tree: Tree, name: str, value: object) -> None:
    chooses, (*path, last) = name.endswith(".kind"), name.removesuffix(".kind").split(".")
    group, parent = _group_at(root, tree, path)
    field = group.model_fields.get(last) if group else None
    if field is None or (chooses and not field.discriminator):
        raise InputError(unknown(name, root, tree))
    inner, kinds = group_in(field, parent.get(last)), choices(field)
    if isinstance(value, Words):
        hints = members(field.annotation)
        if not value.words and not any(hint is bool or get_origin(hint) is tuple for hint in hints):
            raise InputError(f"{name} has no value")
        value = _meaning(field.annotation, value.words)
    if chooses:
        if not isinstance(value, str) or value not in kinds:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(kinds)}")
        parent[last] = _switched(parent.get(last, {}), inner or Group, kinds[value])
    elif isinstance(value, Group):
        parent[last] = tree_of(value)
    elif inner:
        raise InputError(f"{name} is a group of settings, not a value; it has {', '.join(inner.model_fields)}")
    else:
        parent[last] = value


def _group_at(group: type[Group] | None, tree: Tree, path: list[str]) -> tuple[type[Group] | None, Tree]:
    """The group at a path, and its tree."""
    for name in path:
        group = group_in(group.model_fields.get(name), tree.get(name)) if group else None
        tree = tree.setdefault(name, {}) if group else {}
    return group, tree


def _switched(tree: Tree, old: type[Group], new: type[Group]) -> Tree:
    """The new choice at its defaults; values stay of the settings that both inherit from one class."""
    common = next(base for base in new.__mro__ if issubclass(old, base))
    inherited = common.model_fields if issubclass(common, Group) else {}
    return tree_of(new.model_construct()) | {name: tree[name] for name in inherited if name in tree and name != "kind"}


def _meaning(hint: object, words: tuple[str, ...]) -> object:
    """Words as pydantic can read them as a type: None, True, a list of texts, a literal, or one text."""
    if takes_none(hint) and words in (("none",), ("None",)):
        return None
    if bool in members(hint) and not words:
        return True
    shape = next((member for member in members(hint) if get_origin(member) is tuple), None)
    if shape is None:
        literals = [value for member in members(hint) if get_origin(member) is Literal for value in get_args(member)]
        return next((value for value in literals if str(value) == " ".join(words)), " ".join(words))
    if len(words) == 1 and words[0].startswith("["):
        try:
            return pydantic_core.from_json(words[0])
        except ValueError:
            return words  # a regular expression can begin with a bracket
    splits = len(words) == 1 and not {str, Path} & {*get_args(shape)}  # a text can have commas
    return words[0].split(",") if splits else words


def to_json(config: Group) -> str:
    """The config as indented JSON: every setting, and the kind of every choice."""
    return config.model_dump_json(indent=2) + "\n"


def from_json(text: str, tasks: Mapping[str, type[Config]]) -> Config:
    """The config that `to_json` wrote, by its task; `InputError` where a setting is missing or unknown."""
    tree = _parsed(text)
    task = tree.get("task")
    if not isinstance(task, str) or task not in tasks:
        raise InputError(f"task is {task!r}; it must be one of {', '.join(tasks)}")
    return group_from_json(text, tasks[task])


def group_from_json(text: str, group: type[Config]) -> Config:
    """The group of a class that `to_json` wrote; `InputError` where a setting is missing or unknown."""
    tree = _parsed(text)
    try:
        config = group.model_validate_json(text)
    except ValidationError as error:
        raise InputError(first_line(explained(error, group, tree))) from None
    if missing := sorted(flat(tree_of(config)).keys() - flat(tree)):
        raise InputError(f"missing {', '.join(missing)}: another version wrote it")
    return config


def _parsed(text: str) -> Tree:
    try:
        tree = pydantic_core.from_json(text)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"expected a JSON object, got {type(tree).__name__}")
    return tree
