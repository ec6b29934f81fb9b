"""Groups of settings, and choices among groups.

A choice is a field whose type is a union of groups that each have a `kind`, with `CHOICE` beside it:
`image: Annotated[SmallCNN | ResNet, CHOICE] = SmallCNN()`, where ResNet has `kind: Literal["resnet"] = "resnet"`.
A *tree* is a group as nested dicts. Settings are changed in a tree, and pydantic then checks the whole tree.
"""

from types import NoneType, UnionType
from typing import Annotated, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Tree = dict[str, object]
"""Settings by name: values, and a tree for each group."""

CHOICE = Field(discriminator="kind")
POSITIONAL = "positional"
"""Stands in `Annotated` beside an option of a command that is given by its place, without its name."""
REPEATED = "repeated"
"""Stands in `Annotated` beside an option that may come several times, each with further values."""


class Group(BaseModel):
    """Settings that belong together, checked when the group is made: types (1 is not True, 1.0 is not 1) and rules."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        revalidate_instances="subclass-instances",  # a subclass would pass, and JSON would lose its own fields
        allow_inf_nan=False,
    )
    examples: ClassVar[tuple[str, ...]] = ()
    """Of a command's options: arguments that its help shows."""


def tree_of(group: Group) -> Tree:
    """A group as nested dicts, without the settings that `model_construct` left out."""
    return group.model_dump(warnings=False)


def json_tree(group: Group) -> Tree:
    """A group as nested dicts of what JSON can hold: lists for tuples, texts for paths."""
    return group.model_dump(mode="json", warnings=False)


def flat(tree: Tree, prefix: str = "") -> Tree:
    """The settings of a tree by dotted names."""
    settings: Tree = {}
    for name, value in tree.items():
        settings |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return settings


def choices(field: FieldInfo) -> dict[str, type[Group]]:
    """The groups of a choice by kind; empty where the field is no choice."""
    return {group.model_fields["kind"].default: group for group in get_args(field.annotation) if field.discriminator}


def group_in(field: FieldInfo | None, value: object = None) -> type[Group] | None:
    """The class of the group in a field, `value` being the group's tree; None where the field is one setting."""
    hint = field.annotation if field else None
    if isinstance(hint, type):
        return hint if issubclass(hint, Group) else None
    return choices(field).get(value.get("kind", "")) if field and isinstance(value, dict) else None


def fields_of(group: type[Group], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    """Every setting that a class can have, whatever its choices are, with its dotted name."""
    settings: list[tuple[str, FieldInfo]] = []
    for name, field in group.model_fields.items():
        groups = [*choices(field).values(), *filter(None, [group_in(field)])]
        inner = [entry for member in groups for entry in fields_of(member, f"{prefix}{name}.")]
        settings += inner or [(prefix + name, field)]
    return settings


def names(group: type[Group]) -> list[str]:
    """The dotted name of every setting that a class can have, each once."""
    return list(dict.fromkeys(name for name, _ in fields_of(group)))


def members(hint: object) -> tuple[object, ...]:
    """The types of a union, or the one type, without what is annotated."""
    if get_origin(hint) is Annotated:
        return members(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return tuple(member for part in get_args(hint) for member in members(part))
    return (hint,)


def takes_none(hint: object) -> bool:
    """Whether None is a value of a type."""
    return NoneType in members(hint)
