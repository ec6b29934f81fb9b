"""What a family of published models is: how its files name things, its settings in ours, its table."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import GridEncoder, PublishedCNN, VisionTransformer
from vlm_jax.config.image_text import ImageTextModel
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.errors import InputError, one_of
from vlm_jax.models.pretrained import HeadDropout, Module, Part, sees
from vlm_jax.models.vit_heads import Pooling
from vlm_jax.types import Json, Parameters
from vlm_jax.weights.source import Tensors
from vlm_jax.weights.tables import Row

MOST = 1_000_000  # no width, depth or vocabulary of a config is taken for real above it

Word = TypeVar("Word", bound=str | int)
Proof = Literal["forward", "export", "bfloat16", "training"]
"""Every output against float64; the same file again, bit for bit; the rounding of bfloat16; steps of an optimizer."""
TRAINED: tuple[Proof, ...] = ("forward", "export", "training")
Names = dict[str, str]
"""The table's name of each tensor and the file's."""


class ConvertedArchitecture(NamedTuple):
    """One model of a family."""

    model: Architecture | PublishedCNN | VisionTransformer | ImageTextModel
    """Settings of the trunk and its text side, of an image encoder, or of a model with both sides."""
    parts: tuple[Part, ...] = ()
    """The heads it has."""
    classes: int = 0
    """Classes of its answers, or of an image encoder's classifier."""
    input: ImageInput | None = None
    """How an image encoder wants its images."""
    pad_id: int | None = None
    """The row of the word table that transformers gives no gradient from texts."""
    pooling: Pooling = "mean"
    """What the classifier of an image encoder reads."""
    projection_size: int = 0
    """Width of CLIP's projection of the class token."""
    sequence_act: str | None = None
    """Activation of the dense layer of its sequence head; None where that reads the pooled [CLS], or is not there."""
    batch_norm_eps: float | None = None
    """Epsilon of a CNN's batch norms, which are folded."""
    head_dropout: HeadDropout = HeadDropout()

    @property
    def is_image_encoder(self) -> bool:
        """Whether it reads pixels."""
        return isinstance(self.model, GridEncoder)

    @property
    def is_image_text(self) -> bool:
        """Whether it has an image side and a text side, each with layers of its own."""
        return isinstance(self.model, ImageTextModel)

    @property
    def sees(self) -> bool:
        """Whether it is a transformer that was trained with an image."""
        return isinstance(self.model, Architecture) and sees(self.model)

    @property
    def image_size(self) -> int:
        """Width of a transformer's grid features, or of the states that it attends to as a decoder; 0 without."""
        if self.sees:
            return self.model.image.feature_size
        return self.model.hidden_size if self.is_decoder and self.model.fusion == "cross" else 0

    @property
    def is_decoder(self) -> bool:
        """Whether it is a text model whose tokens attend to those before them alone."""
        return isinstance(self.model, Architecture) and self.model.attention_pattern == "causal"


class PublishedClass(NamedTuple):
    """One class of a family: what a file of it holds besides the trunk."""

    parts: tuple[Part, ...] = ()
    """Its heads that can be ported."""
    left: tuple[str, ...] = ()
    """Beginnings of the names of its other heads. They are left behind, and the trunk alone is ported."""
    alone: bool = False
    """Whether no other known class has tensors of the same names, the prefix included."""
    decoder: bool = False
    """Whether its tokens attend to those before them alone; a trunk may do so as well."""
    pipeline: str = ""
    """The hub's name of its task, where that does not follow from its heads."""


class PublishedFile(NamedTuple):
    """What decides a file's architecture: what it says and holds, its class and the heads to port."""

    config: Mapping[str, Json]
    """Its config.json."""
    names: Names
    tensors: Tensors
    class_name: str
    parts: tuple[Part, ...] = ()

    def rows_of(self, name: str) -> int:
        """Rows of a tensor, by the table's name; 0 where it has none."""
        return next(iter(self.tensors[self.names[name]].shape), 0)


Inputs = dict[str, np.ndarray]
"""Arrays by the names of a module's arguments."""
Outputs = dict[str, np.ndarray]
"""Layers and heads by name, NaN at padding."""


class ModelKind(NamedTuple):
    """How a model of images and texts is built, run and compared; encoders of one side need none of it."""

    settings: type[ImageTextModel]
    """The class of its settings."""
    module: Callable[[ConvertedArchitecture, str], Module]
    """The unbound module that computes in a type, called with the arguments `inputs`."""
    inputs: Callable[[ConvertedArchitecture], Inputs]
    """Example inputs, the same ones at each call."""
    outputs: Callable[[Module, Parameters, Inputs], Outputs]
    """Every layer and every head by name."""
    references: Callable[[Any, Inputs], Outputs]
    """What the published class computes of the same inputs, under the same names; needs torch."""
    image_side: Callable[[ConvertedArchitecture, Parameters], tuple[ConvertedArchitecture, Parameters]]
    """Its image side as an encoder of its own, with the parameters that it has there."""


@dataclass(frozen=True)
class Family:
    """One row of the registry."""

    name: str
    """transformers' `model_type`, or the CNN's name."""
    prefix: str
    """What models with heads put before the encoder's names; empty where nothing."""
    recognise: tuple[str, ...]
    """A file that holds these tensors, with or without the prefix, may be of the family."""
    trunk_names: tuple[str, ...]
    """Beginnings of the names of the trunk's tensors; all others are heads."""
    classes: Mapping[str, PublishedClass]
    """Its classes by name, the trunk's first."""
    heads: Mapping[Part, tuple[str, ...]]
    """The tensors of each head, by the table's names."""
    settings: Callable[[PublishedFile], ConvertedArchitecture]
    rows: Callable[[ConvertedArchitecture], list[Row]]
    config: Callable[[ConvertedArchitecture], dict[str, Json]]
    """The settings that transformers' config.json must say; its class's defaults hold for the rest."""
    in_transformers: bool = True
    """Whether transformers has the classes; where not, `torch_cnns` has the network."""
    model_types: tuple[str, ...] = ()
    """Further values of `model_type` that its classes have, as CLIPModel of an image encoder's family."""
    nested_config: str = ""
    """The key of config.json under which models of several encoders have this one's settings."""
    sides: tuple[str, ...] = ()
    """The keys of config.json under which a model of images and texts has the settings of its sides."""
    kind: ModelKind | None = None
    """Of a model of images and texts."""
    prefix_always: bool = False
    """Whether files of the class without heads have the prefix as well."""
    unread: tuple[str, ...] = (".num_batches_tracked",)
    """Endings of names that no output depends on: counters of PyTorch's batch norms. An export gives them back."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Second names that files have for a tensor, and the table's."""
    tied: tuple[str, str] | None = None
    """The decoder and the word table that it may be tied to."""
    outside: tuple[str, ...] = ()
    """Beginnings of names that stand outside the prefix: heads."""
    optional_pooler: bool = False
    """Whether its class makes up a pooler, with a warning, unless told that there is none."""
    alias_of: str = ""
    """The family that it is but for its names: of the model, its classes and their prefix."""
    proven: tuple[Proof, ...] = ("forward", "export")
    """What tests prove: of each of its classes; `training` of masked words or a classifier."""

    @property
    def trunk(self) -> str:
        """The class without heads."""
        return next(iter(self.classes))

    @property
    def about(self) -> str:
        """The classes that are ported whole."""
        return ", ".join(name for name, known in self.classes.items() if not known.left)

    def tensors_of(self, part: Part, *, untied: bool = False) -> tuple[str, ...]:
        """The tensors of a head; with those of a decoder of its own where that is not tied."""
        return self.heads[part] + (self.heads["decoder"] if untied and part == "words" else ())

    def class_of(self, architecture: ConvertedArchitecture) -> str:
        """The class whose heads an architecture has, so the class of its export."""
        if isinstance(architecture.model, PublishedCNN) and architecture.model.name in self.classes:
            return architecture.model.name
        is_classifier = isinstance(architecture.model, PublishedCNN) and architecture.classes
        parts = {"classifier"} if is_classifier else set(architecture.parts) - {"decoder"}
        complete = {
            name: set(known.parts)
            for name, known in self.classes.items()
            if not known.left and (name == self.trunk or known.decoder == architecture.is_decoder)
        }
        # A trunk without its pooler is still the trunk's class.
        inside = [(len(own), name) for name, own in complete.items() if own < parts and name != self.trunk]
        return next((name for name, own in complete.items() if own == parts), max(inside, default=(0, self.trunk))[1])

    def transformers_class(self, architecture: ConvertedArchitecture) -> str | None:
        """The class that loads an export, None where transformers has none."""
        return self.class_of(architecture) if self.in_transformers else None

    def load_options(self, architecture: ConvertedArchitecture) -> dict[str, bool]:
        """What `from_pretrained` must be told besides the folder."""
        headless = self.transformers_class(architecture) == self.trunk
        return {"add_pooling_layer": False} if self.optional_pooler and headless and not architecture.parts else {}

    def loaded_by(self, architecture: ConvertedArchitecture) -> str:
        """What loads an export, in words."""
        if not self.in_transformers:
            return f"names are those of {self.about}"
        told = "".join(f", with {name}={value}," for name, value in self.load_options(architecture).items())
        return f"transformers.{self.class_of(architecture)}.from_pretrained{told} loads it"


def same_architecture(family: Family, name: str, beginning: str, other: str) -> Family:
    """A family of the same architecture: its classes begin with `other` where those of `family` do with `beginning`."""
    classes = {other + kind.removeprefix(beginning): known for kind, known in family.classes.items()}
    return replace(family, name=name, classes=classes)


def labels_of(config: Mapping[str, Json], classes: int) -> tuple[str, ...]:
    """The names of the classes in order; none where config.json has none, or only transformers' LABEL_0, LABEL_1, ...

    Raises `InputError` where it names or counts another number of classes than the head has.
    """
    named = config.get("id2label")
    if not classes:
        return ()
    if (count := config.get("num_labels")) not in (None, classes):
        raise InputError(f"config.json says num_labels = {count!r}, and the head has {classes} classes")
    if named is None:
        return ()
    if not isinstance(named, Mapping) or not all(isinstance(label, str) for label in named.values()):
        raise InputError("config.json says id2label, but not a label for each class; expected {'0': 'cat', ...}")
    if set(map(str, named)) != {str(index) for index in range(classes)}:
        names = f"config.json names {len(named)} classes in id2label, and the head has {classes}"
        raise InputError(f"{names}; name each of 0 to {classes - 1}, or take id2label out of the file")
    labels = tuple(named[key] for key in sorted(named, key=int))
    return () if all(label == f"LABEL_{index}" for index, label in enumerate(labels)) else labels


def label_names(classes: int) -> dict[str, Json]:
    """`id2label` of a config.json whose classes have no names."""
    return {"id2label": {str(index): f"LABEL_{index}" for index in range(classes)}}


def is_untied(config: Mapping[str, Json]) -> bool:
    """Whether config.json says that the decoder is a table of its own, whatever it holds."""
    return config.get("tie_word_embeddings") is False


def table_names(tensors: Tensors, family: Family, *, untied: bool = False) -> Names:
    """The tensors of a file by the names of the family's table: without prefix, gamma and beta as weight and bias.

    A decoder that equals the word table is the table, unless it is `untied`.
    """
    names: Names = {}
    for name in tensors:
        table_name = name.removeprefix(f"{family.prefix}.") if family.prefix else name
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            table_name = table_name.removesuffix(old) + new if table_name.endswith(old) else table_name
        if table_name.endswith("position_ids"):  # a buffer of older versions: 0, 1, 2, ...
            continue
        table_name = family.aliases.get(table_name, table_name)
        if table_name in names:
            names[table_name] = _of_two(tensors, family, names[table_name], name)
            continue
        names[table_name] = name
    if not untied and family.tied and family.tied[0] in names and not unused_biases(tensors, family, names):
        decoder, words = (names.get(name) for name in family.tied)
        if words and tensors[decoder].shape == tensors[words].shape and _equal(tensors, decoder, words):
            del names[family.tied[0]]
    return names


def _equal(tensors: Tensors, first: str, second: str) -> bool:
    return tensors.read(first).tobytes() == tensors.read(second).tobytes()


def _of_two(tensors: Tensors, family: Family, first: str, second: str) -> str:
    """Which of two names of one tensor counts; they may differ where a decoder is stored.

    transformers 5 keeps two biases of an untied decoder and trains `decoder.bias` alone (modeling_bert.py,
    BertLMPredictionHead). transformers 4 had one bias, under either name.
    """
    if tensors[first].shape == tensors[second].shape:
        if _equal(tensors, first, second):
            return first
        if family.tied and any(name.endswith(family.tied[0]) for name in tensors):
            return first if first.endswith(tuple(family.aliases)) else second
    raise InputError(f"{first!r} and {second!r} are two names of one tensor, and differ")


def unused_biases(tensors: Tensors, family: Family, names: Names) -> Names:
    """Biases that no output depends on, where `decoder.bias` differs from them: the table's name and the file's."""
    unused = {}
    for second, first in family.aliases.items():
        counts = names.get(first, "")
        other = counts.removesuffix(second) + first
        if counts.endswith(second) and other in tensors and not _equal(tensors, counts, other):
            unused[first] = other
    return unused


def number(
    config: Mapping[str, Json], name: str, default: int | None = None, *, least: int = 1, most: int = MOST
) -> int:
    """A whole number of a config.json."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"config.json says {name} = {value!r}; expected a whole number from {least} to {most:,}")
    return value


def real(config: Mapping[str, Json], name: str, default: float, *, below: float = 1.0) -> float:
    """A positive number of a config.json."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < below:
        raise InputError(f"config.json says {name} = {value!r}; expected a number between 0 and {below:g}")
    return float(value)


def choice(config: Mapping[str, Json], name: str, default: Word, choices: Iterable[Word]) -> Word:
    """One of a few words, numbers or switches of a config.json."""
    value, choices = config.get(name, default), list(choices)
    if value not in choices:
        raise InputError(f"config.json says {name} = {value!r}, which is not supported; {one_of(map(str, choices))}")
    return value
