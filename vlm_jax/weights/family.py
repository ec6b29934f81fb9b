"""What a family of published models is: how its files name things, its settings in ours, its table."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vlm_jax.config import ImageEncoder, ImageInput, Model
from vlm_jax.errors import InputError, nearest
from vlm_jax.models.pretrained import Part
from vlm_jax.weights.source import Tensors
from vlm_jax.weights.tables import Row

MOST = 1_000_000  # no width, depth or vocabulary of a config is taken for real above it


class Architecture(NamedTuple):
    """One model of a family."""

    model: Model | ImageEncoder
    """Settings of the trunk and its text side, or of a CNN."""
    parts: tuple[Part, ...] = ()
    """The heads it has."""
    classes: int = 0
    """Classes of its answers, or of a CNN's classifier."""
    input: ImageInput | None = None
    """How a CNN wants its pictures."""
    pad_id: int | None = None
    """The row of the word table that transformers gives no gradient from texts."""

    @property
    def sees(self) -> bool:
        """Whether it is a transformer that was trained with an image: VisualBERT's cells share one position."""
        return isinstance(self.model, Model) and self.model.image.positions == "shared"


@dataclass(frozen=True)
class Family:
    """One row of the registry."""

    name: str
    """transformers' `model_type`, or the CNN's name."""
    about: str
    prefix: str
    """What models with heads put before the encoder's names; empty where nothing."""
    recognise: tuple[str, ...]
    """A file whose names hold one of these endings is of the family where no config says so."""
    settings: Callable[[Mapping[str, Any], "Names", Tensors], Architecture]
    """From config.json and the names that are there."""
    rows: Callable[[Architecture], list[Row]]
    config: Callable[[Architecture], dict[str, Any]]
    """The settings that transformers' config.json must say; its class's defaults hold for the rest."""
    transformers_class: Callable[[Architecture], str | None]
    """The class that loads an export, None where transformers has none."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Second names that files have for a tensor, and the table's."""
    tied: tuple[str, str] | None = None
    """The decoder and the word table that it may be tied to."""
    outside: tuple[str, ...] = ()
    """Beginnings of names that stand outside the prefix: heads."""
    optional_pooler: bool = False
    """Whether its class makes up a pooler, with a warning, unless told that there is none."""

    def load_options(self, architecture: Architecture) -> dict[str, Any]:
        """What `from_pretrained` must be told besides the folder."""
        headless = "For" not in (self.transformers_class(architecture) or "For")
        return {"add_pooling_layer": False} if self.optional_pooler and headless and not architecture.parts else {}


Names = dict[str, str]
"""The table's name of each tensor and the file's."""


def table_names(tensors: Tensors, family: Family) -> Names:
    """The tensors of a file by the names of the family's table: without prefix, gamma and beta as weight and bias."""
    names: Names = {}
    for name in tensors:
        ours = name.removeprefix(f"{family.prefix}.") if family.prefix else name
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            ours = ours.removesuffix(old) + new if ours.endswith(old) else ours
        if ours.endswith("position_ids"):  # a buffer of older versions: 0, 1, 2, ...
            continue
        ours = family.aliases.get(ours, ours)
        if ours in names:
            _require_equal(tensors, names[ours], name)
            continue
        names[ours] = name
    if family.tied and family.tied[0] in names:
        decoder, words = (names.get(name) for name in family.tied)
        if words and tensors[decoder].shape == tensors[words].shape and _equal(tensors, decoder, words):
            del names[family.tied[0]]
    return names


def _equal(tensors: Tensors, first: str, second: str) -> bool:
    return tensors.read(first).tobytes() == tensors.read(second).tobytes()


def _require_equal(tensors: Tensors, first: str, second: str) -> None:
    if tensors[first].shape != tensors[second].shape or not _equal(tensors, first, second):
        raise InputError(f"{first!r} and {second!r} are two names of one tensor, and differ")


def number(
    config: Mapping[str, Any], name: str, default: int | None = None, *, least: int = 1, most: int = MOST
) -> int:
    """A whole number of a config.json."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"config.json says {name} = {value!r}; expected a whole number from {least} to {most:,}")
    return value


def real(config: Mapping[str, Any], name: str, default: float) -> float:
    """A positive number of a config.json."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise InputError(f"config.json says {name} = {value!r}; expected a number between 0 and 1")
    return float(value)


def choice(config: Mapping[str, Any], name: str, default: str, choices: Iterable[str]) -> str:
    """One of a few words of a config.json."""
    value, choices = config.get(name, default), list(choices)
    if value not in choices:
        raise InputError(f"config.json says {name} = {value!r}, which is not supported; {nearest(str(value), choices)}")
    return value
