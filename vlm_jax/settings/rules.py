"""Types of settings: numbers with the rule that each keeps."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator


def _not_one(value: int) -> int:
    if value == 1:
        raise ValueError(f"it is {value}; it must be 0 or at least 2")
    return value


Count = Annotated[int, Ge(1)]
Whole = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
# With two levels the bounding tanh is flat at both: a number gets a thousandth of the gradient, and stays.
Levels = Annotated[int, Ge(3), Le(1000)]
NGram = Annotated[Whole, AfterValidator(_not_one)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
Counts = Annotated[tuple[Count, ...], MinLen(1)]


def nearest_multiple(value: int, unit: int) -> int:
    """The multiple of `unit` that is nearest to a value, at least `unit` itself."""
    return max(1, round(value / unit)) * unit


def check_stages(widths: tuple[int, ...], blocks: tuple[int, ...], name: str, *, widths_name: str = "widths") -> None:
    """Raise `ValueError` where the widths of a CNN's stages and their blocks differ in number."""
    if len(widths) != len(blocks):
        raise ValueError(f"{name} has {len(blocks)} stages, {widths_name} has {len(widths)}; give both the same length")
