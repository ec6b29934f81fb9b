"""What a masked-word head finds for the masks of a text."""

from typing import NamedTuple


class Guess(NamedTuple):
    """A word for a mask."""

    token: str
    probability: float
    text: str
    """The text with the word in it."""


class FilledText(NamedTuple):
    """The words for the masks of one text."""

    text: str
    """The text with the most probable word in each mask."""
    masks: tuple[tuple[Guess, ...], ...]
    """For each mask in order, the words for it, the best first."""
