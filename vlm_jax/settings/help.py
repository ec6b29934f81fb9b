"""The page of `--help`: the settings of a tree by groups, each with its documentation, its value and its choices."""

import argparse
import ast
import functools
import itertools
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from vlm_jax.settings.groups import POSITIONAL, Group, Tree, choices, group_in

WIDTH = 79
SHORT = {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "PATH", NoneType: "none"}


class Section(NamedTuple):
    """A titled part of the page: the settings of a tree."""

    title: str
    group: type[Group]
    tree: Tree
    prefix: str = ""
    """What the names of the group's settings begin with."""
    field: FieldInfo | None = None
    """The field that the group is in."""
    text: str = ""
    """The documentation of that field."""


def page(usage: str, description: str, *sections: Section, examples: Sequence[str] = ()) -> str:
    """The page, which argparse lays out; `examples` are whole command lines."""
    formatter = functools.partial(argparse.HelpFormatter, max_help_position=42, width=WIDTH)
    parser = functools.partial(argparse.ArgumentParser, add_help=False, formatter_class=formatter)
    body = parser(usage=argparse.SUPPRESS)
    for section in sections:
        _add(body, section)
    head, lines = parser(usage=usage, description=description).format_help(), [f"  {line}" for line in examples]
    return "\n".join([head, *(["examples:", *lines, ""] if lines else []), body.format_help()]).rstrip("\n") + "\n"


def _add(parser: argparse.ArgumentParser, section: Section) -> None:
    title, group, tree, prefix, field, text = section
    heading = textwrap.fill(title, WIDTH - 1, subsequent_indent="  ")
    lines, inner, texts = parser.add_argument_group(heading), [], documentation(group)
    if field and (kinds := choices(field)):
        others = [kind for kind, member in kinds.items() if member is not group and len(member.model_fields) > 1]
        more = f" Settings of another: --help --{prefix}kind {'|'.join(others)}" if others else ""
        _option(lines, f"{prefix}kind", f"{{{','.join(kinds)}}}", f"{text} [{tree['kind']}]{more}")
    for name, entry in group.model_fields.items():
        if member := group_in(entry, tree.get(name)):
            heading = f"{prefix}{name}: {summary(member) or texts[name]}"
            inner.append(Section(heading, member, tree[name], f"{prefix}{name}.", entry, texts[name]))
        elif name not in ("kind", "task"):
            value = f"[{_spelled(tree[name])}]" if name in tree else "(required)"
            text = f"{texts[name]} {value}"
            if POSITIONAL in entry.metadata:
                lines.add_argument(name, metavar=name.upper(), help=text.replace("%", "%%"))
            else:
                _option(lines, prefix + name, _short(entry.annotation), text)
    for below in inner:
        _add(parser, below)


def _option(lines: argparse._ArgumentGroup, name: str, short: str, text: str) -> None:
    option = f"--{name.rstrip('_').replace('_', '-')}"
    lines.add_argument(option, metavar=_folded(short, WIDTH - len(option) - 4), help=text.replace("%", "%%"))


def _folded(short: str, width: int) -> str:
    """Choices over lines of a width, broken behind commas."""
    lines = [""]
    for choice in re.split(r"(?<=,)", short):
        if lines[-1] and len(lines[-1] + choice) > width:
            lines.append("      ")
        lines[-1] += choice
    return "\n".join(lines)


def documentation(group: type[Group]) -> dict[str, str]:
    """The text under each field of a class, by the field's name; empty where there is none.

    Read from the source when a page is made: pydantic would read it whenever a class is made, at each start.
    """
    bases = [base for base in group.__mro__ if base.__module__ in sys.modules and base is not Group]
    texts = [_texts(base.__module__).get(base.__qualname__, {}) for base in bases]
    return {name: next((text[name] for text in texts if name in text), "") for name in group.model_fields}


@functools.cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    """The texts under the fields of each class at the top of a module."""
    file = getattr(sys.modules[module], "__file__", None)
    tree = ast.parse(Path(file).read_text(encoding="utf-8")) if file else ast.Module([], [])
    return {node.name: dict(_under_fields(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _under_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in itertools.pairwise(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field.target), str(text.value.value)


def summary(group: type[Group]) -> str:
    """The first line of a class's own documentation; argparse puts a colon after it."""
    return (group.__dict__.get("__doc__") or "").partition("\n")[0].removesuffix(".")


def _short(hint: object) -> str:
    """What stands for a value: `INT`, `{gelu,relu}`, `PATH|none`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _short(arguments[0])
    if origin is Literal:
        return f"{{{','.join(map(str, arguments))}}}"
    if origin is tuple:
        return " ".join("..." if entry is Ellipsis else _short(entry) for entry in arguments)
    return "|".join(map(_short, arguments)) if arguments else SHORT[hint]


def _spelled(value: object) -> str:
    """A value as one would type it after its option."""
    if isinstance(value, tuple):
        return " ".join(map(_spelled, value)) or "(nothing)"
    return str(value).lower() if value is None or isinstance(value, bool) else shlex.quote(str(value))
