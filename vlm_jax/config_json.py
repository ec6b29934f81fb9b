"""Configs to JSON and back, typed and checked."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, Union

from vlm_jax.config import Config, leaves
from vlm_jax.config_checks import check
from vlm_jax.errors import InputError, nearest, one_of


def to_dict(config: Any) -> dict[str, Any]:
    """The config as nested plain dictionaries, ready for JSON."""
    return dataclasses.asdict(config)


def to_json(config: Config) -> str:
    """The config as indented JSON, tuples as lists."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_dict(values: Any, kind: Any = Config, path: str = "") -> Any:
    """The typed value that `to_dict` came from.

    Raises `InputError` for an unknown setting, or a value of the wrong type, naming its dotted path.
    """
    if dataclasses.is_dataclass(kind):
        if not isinstance(values, dict):
            raise InputError(f"setting {path!r} must be a group of settings, not {values!r}")
        hints = typing.get_type_hints(kind)
        for name in values:
            if name not in hints:
                raise InputError(f"no setting {path + name!r}; {nearest(name, hints)}")
        return kind(**{name: from_dict(value, hints[name], f"{path}{name}.") for name, value in values.items()})
    return _leaf(values, kind, path.removesuffix("."))


def _leaf(value: Any, kind: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"setting {path!r} is {value!r}; {one_of(map(str, arguments))}")
    if origin in (types.UnionType, Union):
        if value is None and type(None) in arguments:
            return None
        return _leaf(value, next(a for a in arguments if a is not type(None)), path)
    if origin is tuple and isinstance(value, (list, tuple)):
        if arguments[-1] is Ellipsis:
            return tuple(_leaf(v, arguments[0], path) for v in value)
        if len(value) == len(arguments):
            return tuple(_leaf(v, a, path) for v, a in zip(value, arguments, strict=True))
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise InputError(f"setting {path!r} must be {getattr(kind, '__name__', kind)}, not {value!r}")


def from_json(text: str) -> Config:
    """The config that `to_json` wrote, checked; `InputError` where a setting of it is missing or unknown."""
    return check(from_saved(json.loads(text), Config))


def from_saved(values: Any, kind: Any) -> Any:
    """The typed group of settings of which `to_dict` wrote every one; `InputError` names the first that is missing."""
    group = from_dict(values, kind)
    for setting in leaves(group):
        level = values
        for name in setting.split("."):
            if name not in level:
                raise InputError(f"setting {setting!r} is missing")
            level = level[name]
    return group


def with_overrides(config: Config, overrides: Iterable[tuple[str, Any]]) -> Config:
    """The config with settings changed by their dotted paths, types checked.

    Raises `InputError` with the nearest setting, or what a value must be.
    """
    values = to_dict(config)
    for setting, value in overrides:
        *groups, name = setting.split(".")
        group = values
        for depth, key in enumerate(groups):
            if not isinstance(group.get(key), dict):
                raise InputError(f"no group of settings {'.'.join(groups[: depth + 1])!r} (in {setting!r})")
            group = group[key]
        if name not in group:
            raise InputError(f"no setting {setting!r}; {nearest(name, group)}")
        group[name] = value
    return from_dict(values)
