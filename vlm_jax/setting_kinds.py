"""What changing a setting does to a run that has begun: the mark that stands beside every setting in `config`."""

import typing
from dataclasses import is_dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar


class Kind(Enum):
    """Why a setting is, or is not, part of a run's identity."""

    IDENTITY = "changes a parameter: a run keeps it for ever"
    LENGTH = "may grow where no earlier step depends on it"
    PLACE = "where images and texts are: their digests are compared in its place"
    SOURCE = "where something is that the run copied when it began: the content must be the same"
    ROUNDING = "changes parameters by rounding only"
    SPEED = "changes how fast a run is, or how often it reports"
    USE = "changes how a model is used or scored, and no parameter"


Value = TypeVar("Value")
Identity = Annotated[Value, Kind.IDENTITY]
Length = Annotated[Value, Kind.LENGTH]
Place = Annotated[Value, Kind.PLACE]
Source = Annotated[Value, Kind.SOURCE]
Rounding = Annotated[Value, Kind.ROUNDING]
Speed = Annotated[Value, Kind.SPEED]
Use = Annotated[Value, Kind.USE]


def kinds_of(group: type, path: str = "") -> dict[str, Kind | None]:
    """The kind of every setting of a group by its dotted path; None where it has no mark, or several."""
    kinds: dict[str, Kind | None] = {}
    for name, hint in typing.get_type_hints(group, include_extras=True).items():
        if is_dataclass(hint):
            kinds |= kinds_of(hint, f"{path}{name}.")
        else:
            marks = [mark for mark in _metadata(hint) if isinstance(mark, Kind)]
            kinds[path + name] = marks[0] if len(marks) == 1 else None
    return kinds


def _metadata(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())
