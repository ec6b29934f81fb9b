"""Names of a file's tensors: wrappers stand before them, heads and adapters stand among them.

Nothing is stripped or dropped by itself. A file that needs it is refused with the option that does it.
"""

import dataclasses
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.numpy import save_file

from vlm_jax.errors import InputError
from vlm_jax.weights.source import NO_CHANGES, WEIGHTS, Changes, Source, Tensors

# One tensor of each family whose name ends in nothing else: what stands before it is a prefix.
ANCHORS = (
    "embeddings.word_embeddings.weight",
    "embedder.embedder.convolution.weight",
    "layer1.0.conv1.weight",
    "features.1.conv.0.0.weight",
    "_conv_stem.weight",
    "encoder.top_conv.weight",
    "embeddings.patch_embeddings.weight",
    "conv_stem.first_conv.convolution.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embedding.weight",
)
# What peft calls the tensors of an adapter that is not merged (`prefix` of its tuners), a head that it saved whole,
# and the layer below an adapter.
ADAPTER = re.compile(r"\.(lora_|ia3_|hada_|lokr_|boft_|oft_|vera_|modules_to_save\.|original_module\.)")
BASE = ".base_layer."
COMMANDS = "(port import and verify)"


def renamed(source: Source, *, strip_prefix: str = "", drop_tensors: str = "") -> Source:
    """The source without a prefix of its names, and without the tensors whose stripped names match a whole regex.

    `Source.changes` records both. A source of which tensors were dropped is no longer of the class that its config.json
    names, so that this name goes. Raises `InputError` where an option changes nothing, or leaves nothing.
    """
    if not (strip_prefix or drop_tensors):
        return source
    if source.changes != NO_CHANGES:
        options = "--strip-prefix and --drop-tensors"
        raise InputError(f"{source.name}: of an ONNX file the encoder alone is taken; leave out {options}")
    names = {name.removeprefix(strip_prefix): name for name in source.tensors}
    if len(names) < len(source.tensors):
        chosen = set(names.values())
        twice = next(name for name in source.tensors if name not in chosen)
        raise InputError(f"--strip-prefix {strip_prefix} gives two tensors of {source.name} the name of {twice!r}")
    stripped = sum(new != old for new, old in names.items())
    if strip_prefix and not stripped:
        raise InputError(f"--strip-prefix {strip_prefix}: no tensor of {source.name} begins so; {_shown(names)}")
    try:
        dropped = tuple(sorted(filter(re.compile(drop_tensors).fullmatch, names))) if drop_tensors else ()
    except re.error as error:
        raise InputError(f"--drop-tensors {drop_tensors} is no regular expression: {error}") from None
    if drop_tensors and not dropped:
        raise InputError(f"--drop-tensors {drop_tensors}: no tensor of {source.name} has such a name; {_shown(names)}")
    if len(dropped) == len(names):
        raise InputError(f"--drop-tensors {drop_tensors} drops every tensor of {source.name}")
    names = {name: names[name] for name in names if name not in set(dropped)}
    if any(ADAPTER.search(f".{name}") for name in dropped):  # peft wraps the layer that an adapter stands on
        names = {name.replace(BASE, "."): file_name for name, file_name in names.items()}
    config = {key: value for key, value in source.config.items() if not dropped or key != "architectures"}
    changes = Changes(strip_prefix, stripped, drop_tensors, dropped)
    return dataclasses.replace(source, tensors=source.tensors.renamed(names), config=config, changes=changes)


def _shown(names: Iterable[str]) -> str:
    return f"names begin {', '.join(sorted(names)[:3])}"


def refuse_adapters(source: Source) -> None:
    """`InputError` where a file holds an adapter beside the weights that it changes."""
    adapters = [name for name in source.tensors if ADAPTER.search(f".{name}")]
    if adapters and len(adapters) == len(source.tensors):
        raise InputError(
            f"{source.name} holds an adapter alone ({adapters[0]}, ...), without the weights that it changes: load "
            "both, merge them (peft: merge_and_unload) and save the whole"
        )
    if adapters:
        kinds = sorted({ADAPTER.search(f".{name}")[1] for name in adapters})
        pattern = rf"(.*\.)?({'|'.join(map(re.escape, kinds))}).*"
        raise InputError(
            f"{source.name} holds {len(adapters)} tensors of an adapter that is not merged ({adapters[0]}, ...): "
            "merge it (peft: merge_and_unload) and save again; or port the weights without what the adapter learned: "
            f"--drop-tensors {shlex.quote(pattern)} {COMMANDS}"
        )


def refuse_prefix(source: Source, prefixes: Iterable[str]) -> None:
    """`InputError` where the names of a known model stand behind another prefix than the families' own `prefixes`."""
    own = {"", *(f"{prefix}." for prefix in prefixes)}
    before = [
        name.removesuffix(anchor) for name in source.tensors for anchor in ANCHORS if f".{name}".endswith(f".{anchor}")
    ]
    if len(before) == 1 and before[0] not in own:
        wrapper = _wrapper(before[0], own)
        count = sum(name.startswith(wrapper) for name in source.tensors)
        raise InputError(
            f"{count} of {len(source.tensors)} names in {source.name} stand behind {wrapper!r}: "
            f"--strip-prefix {shlex.quote(wrapper)} {COMMANDS} takes it off"
        )
    if len(before) > 1:
        first, *others = (_wrapper(prefix, own) for prefix in before)
        rest = rf"({'|'.join(re.escape(prefix or before[0]) for prefix in others)}).*"
        strip = f"--strip-prefix {shlex.quote(first)} " if first else ""
        raise InputError(
            f"{source.name} holds {len(before)} models, behind {', '.join(repr(prefix) for prefix in before)}; "
            f"for the first: {strip}--drop-tensors {shlex.quote(rest)} {COMMANDS}"
        )


def _wrapper(prefix: str, own: set[str]) -> str:
    """A prefix without the family's own at its end: of `module.bert.`, `module.`."""
    if prefix in own:
        return ""
    last = f"{prefix.removesuffix('.').rpartition('.')[2]}."
    return prefix.removesuffix(last) if last in own else prefix


def ways_out(unexpected: Mapping[str, str], heads: set[str], trunk: set[str]) -> str:
    """What can be done about tensors that a family does not know: heads may be dropped; the rest changes the trunk.

    `unexpected` maps a table's name to the file's; `heads` and `trunk` are the names that the family has.
    """
    if any(name.split(".")[0] in trunk_parts(trunk) for name in unexpected):
        return "; a part of the trunk that the family lacks changes what it computes"
    groups: Counter[str] = Counter()
    for name, file_name in unexpected.items():
        groups[file_name.removesuffix(name) + _group(name, heads | trunk)] += 1
    pattern = rf"({'|'.join(re.escape(group) for group in sorted(groups))})(\..*)?"
    shown = ", ".join(f"{group} ({count} tensors)" for group, count in sorted(groups.items()))
    return f"; heads that the family lacks: {shown}; --drop-tensors {shlex.quote(pattern)} {COMMANDS} ports the rest"


def _group(name: str, known: set[str]) -> str:
    """The shortest beginning of a name that no known name has: a head as a whole."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        group = ".".join(parts[:length])
        if not any(other.startswith(f"{group}.") for other in known):
            return group
    return name


def trunk_parts(trunk: Iterable[str]) -> set[str]:
    """The first words of a trunk's names."""
    return {name.split(".")[0] for name in trunk}


def drop_warnings(dropped: Iterable[str], trunk: Iterable[str], prefix: str) -> tuple[str, ...]:
    """What dropping these tensors changes, in lines for people; nothing where they were heads."""
    inside = trunk_parts(trunk)
    adapters = [name for name in dropped if ADAPTER.search(f".{name}")]
    others = [
        name for name in dropped if name not in adapters and name.removeprefix(f"{prefix}.").split(".")[0] in inside
    ]
    lines = []
    if adapters:
        lines.append(f"{len(adapters)} tensors of an adapter were dropped: what it learned is not in this port")
    if others:
        lines.append(f"{len(others)} tensors inside the trunk were dropped: outputs are not the published model's")
    return tuple(lines)


def written(source: Source, folder: Path) -> Source:
    """The source with its changed tensors in a file of their own, in the types that they have."""
    folder.mkdir()
    save_file({name: source.tensors.raw(name) for name in source.tensors}, folder / WEIGHTS, metadata={"format": "pt"})
    return dataclasses.replace(source, tensors=Tensors([folder / WEIGHTS]))
