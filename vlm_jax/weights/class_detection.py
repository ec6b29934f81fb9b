"""Which published class a file is of, by what evidence, and what of the class the file holds.

The evidence, in this order: `architectures` of config.json, timm's `architecture`, `model_type`, the names of the
tensors. The option --architecture decides where these leave a choice. A class is never guessed from likeness: several
classes have the same tensors and compute different numbers.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from vlm_jax.errors import InputError, counted, one_of
from vlm_jax.invocation import command_name
from vlm_jax.models.pretrained import Part
from vlm_jax.weights.families import CLASSES, FAMILIES, MODEL_TYPES
from vlm_jax.weights.family import Family, Names, PublishedClass, PublishedFile, table_names
from vlm_jax.weights.source import Source
from vlm_jax.weights.tensor_names import refuse_prefix

OPTION = "--architecture"
MOST_NAMES = 12  # that a line lists
POOLINGS = (None, "", "avg")  # timm's `global_pool`: the mean over the grid


class Named(NamedTuple):
    """The class of a file, and why."""

    family: Family
    name: str
    evidence: str
    left: tuple[str, ...] = ()
    """Beginnings of the names of heads that are left behind."""


class Published(NamedTuple):
    """The class that a file is of, and what is not in the port. Tensors have the names of the family's table."""

    name: str
    evidence: str
    missing: tuple[str, ...] = ()
    """Tensors of the class that the file lacks."""
    left_behind: tuple[str, ...] = ()
    """Tensors of the file, of heads that are not ported."""
    larger: tuple[str, ...] = ()
    """Classes that would take some of these, if --architecture names them."""

    @property
    def left_names(self) -> str:
        """What is left behind, in words: of many tensors the first part of their names."""
        if len(self.left_behind) <= MOST_NAMES:
            return ", ".join(self.left_behind)
        groups = Counter(name.partition(".")[0] for name in self.left_behind)
        return ", ".join(f"{group} ({counted(count, 'tensor')})" for group, count in groups.items())


def class_of(source: Source, class_name: str | None = None) -> Named:
    """The class that config.json or --architecture (`class_name`) names, or the only one that has such tensors.

    Raises `InputError` where that is no supported class, or more than one.
    """
    if quantized := source.config.get("quantization_config"):
        raise InputError(
            f"{source.name}: config.json says quantization_config = {quantized!r}, which is not supported; take it out "
            "of the file to use the weights as they are"
        )
    families, named = _families_of_model_type(source), _architectures(source, class_name) or _timm(source)
    if named and families and named.family not in families:
        raise InputError(
            f"{source.name}: config.json says model_type = {source.config['model_type']!r}, but its class {named.name} "
            f"is of the model_type {named.family.name!r}; correct config.json"
        )
    if class_name is not None:
        return _from_option(source, class_name, named, families)
    return named or _by_names(source, families)


def _architectures(source: Source, class_name: str | None) -> Named | None:
    """The class that `architectures` names; with several, the given one of them."""
    code = source.config.get("auto_map")
    if isinstance(code, dict) and any(str(key).startswith("AutoModel") for key in code):
        raise InputError(
            f"{source.name}: config.json says auto_map = {code}: its class is not transformers'; {one_of(CLASSES)}"
        )
    listed = source.config.get("architectures")
    if not listed:
        return None
    if not isinstance(listed, list) or len(listed) != 1:
        if isinstance(listed, list) and class_name in listed:
            return _known(source, class_name, "architectures")
        raise InputError(
            f"{source.name}: config.json says architectures = {listed!r}; expected a list of one class. Name it with "
            f"{OPTION}, or correct config.json"
        )
    return _known(source, listed[0], "architectures")


def _known(source: Source, name: object, key: str) -> Named:
    if not isinstance(name, str) or name not in CLASSES:
        raise InputError(f"{source.name} is a {name!r} (config.json {key}), which cannot be ported; {one_of(CLASSES)}")
    family = CLASSES[name]
    return Named(family, name, f"config.json {key}", family.classes[name].left)


def _timm(source: Source) -> Named | None:
    """The class that timm's config.json names; settings that change the network are refused."""
    name = source.config.get("architecture")
    if name is None:
        return None
    for key, allowed in (("model_args", (None, {})), ("global_pool", POOLINGS)):
        if source.config.get(key) not in allowed:
            why = "not supported; expected none, or 'avg' as global_pool"
            raise InputError(f"{source.name}: config.json says {key} = {source.config[key]!r}, {why}")
    plain = name.partition(".")[0] if isinstance(name, str) else name  # a tag says what trained it: resnet50.a1_in1k
    return _known(source, plain, "architecture")


def _families_of_model_type(source: Source) -> tuple[Family, ...]:
    """Those that config.json's `model_type` may mean; none where it has no such key."""
    name = source.config.get("model_type")
    if name is None:
        return ()
    if not isinstance(name, str) or name not in MODEL_TYPES:
        raise InputError(f"{source.name}: config.json says model_type = {name!r}, not supported; {one_of(FAMILIES)}")
    return MODEL_TYPES[name]


def _from_option(source: Source, class_name: str, named: Named | None, families: tuple[Family, ...]) -> Named:
    """The class of the option, unless config.json says that the file is something else."""
    if class_name not in CLASSES:
        raise InputError(f"{OPTION} {class_name!r} cannot be ported; {one_of(CLASSES)}")
    wanted = CLASSES[class_name]
    families = (named.family,) if named else families
    if families and wanted not in families:
        raise InputError(
            f"{OPTION} is {class_name}, but config.json of {source.name} says that it is of the family "
            f"{families[0].name!r}; leave the option out, or "
            f"{one_of(name for family in families for name in family.classes)}"
        )
    if named is None or named.name == class_name:
        return Named(wanted, class_name, OPTION, wanted.classes[class_name].left)
    if class_name != wanted.trunk and named.left:
        raise InputError(
            f"{OPTION} is {class_name}, but config.json of {source.name} says {named.name}, whose heads compute "
            f"something else; leave the option out, or give {wanted.trunk}"
        )
    evidence = f"{OPTION}; {named.evidence} says {named.name}"
    return Named(wanted, class_name, evidence, (*wanted.classes[class_name].left, *named.left))


def require_own_prefix(source: Source) -> None:
    """`InputError` where names stand behind another prefix than those of the families."""
    if any(family.kind and _recognises(family, source) for family in FAMILIES.values()):
        return  # each of its sides has a prefix of its own
    refuse_prefix(source, {family.prefix for family in FAMILIES.values() if family.prefix})


def _by_names(source: Source, named_families: tuple[Family, ...]) -> Named:
    """The only class that has such tensors: of a family that `model_type` names, or of all known ones."""
    require_own_prefix(source)
    families = named_families or tuple(FAMILIES.values())
    fitting = [named for candidate in families for named in _fitting(source, candidate)]
    if named_families and len(fitting) == 1:
        return fitting[0]._replace(evidence="config.json model_type and the names of the tensors")
    if len(fitting) == 1 and _stands_alone(source, fitting[0]):
        return fitting[0]
    if (
        not fitting
        and not named_families
        and not any(_recognises(candidate, source) for candidate in FAMILIES.values())
    ):
        shown = ", ".join(sorted(source.tensors)[:3])
        raise InputError(f"{source.name} is of no known family (its tensors begin {shown}); {one_of(FAMILIES)}")
    choices = [named.name for named in fitting] or [name for candidate in families for name in candidate.classes]
    command = f"{command_name('port')} import {source.name} {OPTION} CLASS --output FOLDER"
    raise InputError(
        f"{source.name}: config.json names no class, and its tensors do not tell which of several it is; name it with "
        f"`{command}`, then use FOLDER; {one_of(choices)}"
    )


def _recognises(family: Family, source: Source) -> bool:
    prefix = f"{family.prefix}." if family.prefix else ""
    return all(name in source.tensors or prefix + name in source.tensors for name in family.recognise)


def _fitting(source: Source, family: Family) -> Iterable[Named]:
    """The classes of a family whose heads are those of the file."""
    if not _recognises(family, source):
        return
    names = table_names(source.tensors, family)
    heads = [name for name in names if not name.startswith(family.trunk_names)]
    for name, known in family.classes.items():
        expected = _tensors(family, known) | set(family.heads["decoder"] if "words" in known.parts else ())
        needed = set() if name == family.trunk else _tensors(family, known)
        left = {head for head in heads if known.left and head.startswith(known.left)}
        may_be = name == family.trunk or known.decoder == bool(source.config.get("is_decoder"))
        fits = may_be and set(heads) <= expected | left and needed <= names.keys() and _whole(known, heads)
        if fits and (family.in_transformers or _has_shape(source, family, name, names)):
            yield Named(family, name, "the names of the tensors", known.left)


def _has_shape(source: Source, family: Family, name: str, names: Names) -> bool:
    try:
        family.settings(PublishedFile(source.config, names, source.tensors, name))
    except InputError:
        return False
    return True


def _stands_alone(source: Source, named: Named) -> bool:
    """Whether no other known class has such names; of heads, only behind the family's prefix."""
    family, known = named.family, named.family.classes[named.name]
    headless = named.name == family.trunk or not family.prefix
    return known.alone and (headless or any(name.startswith(f"{family.prefix}.") for name in source.tensors))


def _tensors(family: Family, known: PublishedClass, *, untied: bool = False) -> set[str]:
    return {tensor for part in known.parts for tensor in family.tensors_of(part, untied=untied)}


def contents_of(named: Named, names: Names, *, untied: bool = False) -> tuple[tuple[Part, ...], Published]:
    """The heads to port, and what of the class is missing or left behind.

    A head that the file does not hold whole is not ported, and then no other is: the trunk alone, with its pooler.
    An `untied` decoder is a part of its head.
    """
    family, known = named.family, named.family.classes[named.name]
    missing = _tensors(family, known, untied=untied) - names.keys()
    wanted = family.classes[family.trunk].parts if missing and family.in_transformers else known.parts
    parts = tuple(part for part in wanted if names.keys() >= set(family.heads[part]))
    if "words" in parts and names.keys() >= set(family.heads["decoder"]):
        parts = (*parts, "decoder")
    converted = {tensor for part in parts for tensor in family.heads[part]}
    others = {tensor for tensors in family.heads.values() for tensor in tensors} - converted
    left = {name for name in names if name in others or (named.left and name.startswith(named.left))}
    larger = () if missing or named.left else _larger_classes(family, parts, left)
    return parts, Published(named.name, named.evidence, tuple(sorted(missing)), tuple(sorted(left)), larger)


def _larger_classes(family: Family, parts: tuple[Part, ...], left: set[str]) -> tuple[str, ...]:
    """Classes whose further heads lie among what is left behind, and that no other class's heads may be."""
    others = [beginning for other in family.classes.values() if _whole(other, left) for beginning in other.left]
    larger = []
    for name, known in family.classes.items():
        further = {tensor for part in set(known.parts) - set(parts) for tensor in family.heads[part]}
        wider = further and not known.left and set(known.parts) >= set(parts) - {"decoder"}
        if wider and further <= left and not any(tensor.startswith(tuple(others)) for tensor in further):
            larger.append(name)
    return tuple(larger)


def _whole(known: PublishedClass, tensors: Iterable[str]) -> bool:
    """Whether each head that a class leaves behind is among the tensors."""
    return all(any(tensor.startswith(beginning) for tensor in tensors) for beginning in known.left)
