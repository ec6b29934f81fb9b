"""What changing a setting does to a run that has begun: a mark beside the setting's type.

A setting without a mark is part of the run's identity. A mark beside a group or a choice covers all settings in it,
and a mark on a setting comes before its group's.
"""

from enum import Enum
from typing import Annotated, TypeVar

from vlm_jax.settings.groups import Group, Tree, group_in, tree_of


class Effect(Enum):
    """Why a setting is, or is not, part of a run's identity."""

    IDENTITY = "changes a parameter: a run keeps it"
    LENGTH = "may grow where no earlier step depends on it"
    PLACE = "where images and texts are: their digests are compared instead"
    SOURCE = "where something is that the run copied when it began: the content must be the same"
    ROUNDING = "changes parameters by rounding only"
    SPEED = "changes how fast a run is, or how often it reports"
    USE = "changes how a model is used or scored, and no parameter"
    DECODING = "changes what a trained model generates, and no parameter"


Value = TypeVar("Value")
Length = Annotated[Value, Effect.LENGTH]
Place = Annotated[Value, Effect.PLACE]
Source = Annotated[Value, Effect.SOURCE]
Rounding = Annotated[Value, Effect.ROUNDING]
Speed = Annotated[Value, Effect.SPEED]
Use = Annotated[Value, Effect.USE]
Decoding = Annotated[Value, Effect.DECODING]


def effects(group: Group) -> dict[str, Effect]:
    """The effect of every setting of a group by its dotted name."""
    return _effects(type(group), tree_of(group), "", Effect.IDENTITY)


def _effects(group: type[Group], tree: Tree, prefix: str, inherited: Effect) -> dict[str, Effect]:
    marks: dict[str, Effect] = {}
    for name, field in group.model_fields.items():
        mark = next((entry for entry in field.metadata if isinstance(entry, Effect)), inherited)
        if inner := group_in(field, tree.get(name)):
            marks |= _effects(inner, tree[name], f"{prefix}{name}.", mark)
        else:
            marks[prefix + name] = mark
    return marks
