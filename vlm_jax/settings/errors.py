"""pydantic's errors and unknown names as one line each."""

import difflib
from collections.abc import Iterator

from pydantic import ValidationError

from vlm_jax.settings.groups import Group, Tree, choices, flat, group_in, names

SEPARATOR = "; also: "
ELSEWHERE = {
    **dict.fromkeys(("lr", "base_lr"), "learning_rate"),
    **dict.fromkeys(("bs", "batch_size", "train_batch_size", "per_device_train_batch_size"), "batch_images"),
    **dict.fromkeys(("epochs", "num_epochs", "num_train_epochs", "max_steps"), "steps"),
}
"""Names that other codebases give to a setting, and the last part of its name here."""


def explained(error: ValidationError, root: type[Group], tree: Tree) -> str:
    """Everything that is wrong with the tree of a group, each with its dotted name, in one line."""
    lines: list[str] = []
    for entry in error.errors(include_url=False):
        name, context = _name(entry["loc"], root), entry.get("ctx", {})
        match entry["type"]:
            case "extra_forbidden":
                lines += [unknown(inner, root, tree) for inner in flat({name: entry["input"]}) or [name]]
            case "missing":
                lines.append(f"{name} is not given")
            case "union_tag_not_found":
                lines.append(f"{name}.kind is not given")
            case "union_tag_invalid":
                lines.append(f"{name}.kind is {context['tag']!r}; it must be one of {context['expected_tags']}")
            case "value_error":
                lines.append(f"{name}: {context['error']}".removeprefix(": "))
            case _:
                lines.append(f"{name} is {entry['input']!r}; {entry['msg'].replace('Input should', 'it must')}")
    return SEPARATOR.join(lines)


def first_line(message: str) -> str:
    """The first error of `explained`, and how many more there are."""
    first, *others = message.split(SEPARATOR)
    return f"{first} ({len(others)} more)" if others else first


def _name(place: tuple[int | str, ...], group: type[Group] | None) -> str:
    """The dotted name of a place in pydantic's errors, where a choice's kind follows the choice."""
    name, parts = "", iter(place)
    for part in parts:
        name += f"[{part}]" if isinstance(part, int) else f".{part}"
        field = group.model_fields.get(str(part)) if group else None
        group = choices(field).get(str(next(parts, ""))) if field and field.discriminator else group_in(field)
    return name.removeprefix(".")


def unknown(name: str, root: type[Group], tree: Tree) -> str:
    """Why a tree has no setting of a name: the choice or the task that has it, or the nearest names."""
    possible = names(root)
    if name in possible:
        return f"{name} belongs to {_missing_choice(name, root, tree)}"
    if others := " or ".join(task for task, group in _other_tasks(root, tree) if name in names(group)):
        return f"{name} belongs to the task {others}; this run is of the task {tree['task']}"
    last = ELSEWHERE.get(name, name.rpartition(".")[2])
    near = difflib.get_close_matches(name, possible, n=1, cutoff=0.8) or [
        candidate for candidate in possible if candidate.rpartition(".")[2] == last
    ]
    hints = [
        f"{candidate} (of {missing})" if (missing := _missing_choice(candidate, root, tree)) else candidate
        for candidate in near[:3]
    ]
    return f"no setting {name!r}; " + (f"did you mean {' or '.join(hints)}?" if hints else "see --help")


def _other_tasks(root: type[Group], tree: Tree) -> Iterator[tuple[str, type[Group]]]:
    """The classes of the other tasks: all that inherit from the base of the root."""
    groups = [root.__mro__[root.__mro__.index(Group) - 1]] if "task" in tree else []
    for group in groups:
        groups += group.__subclasses__()
        if group is not root and "task" in group.model_fields:
            yield group.model_fields["task"].default, group


def _missing_choice(name: str, group: type[Group], tree: Tree, prefix: str = "") -> str:
    """The choice that would have to be another for a setting to be there; empty where the setting is there."""
    first, _, rest = name.partition(".")
    field, value = group.model_fields[first], tree.get(first, {})
    kinds = [kind for kind, member in choices(field).items() if rest in names(member)]
    if kinds and value.get("kind") not in kinds:
        return f"{prefix}{first}.kind={' or '.join(kinds)}; this run has {value.get('kind')}"
    inner = group_in(field, value)
    return _missing_choice(rest, inner, value, f"{prefix}{first}.") if inner else ""
