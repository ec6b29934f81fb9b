"""Nested dicts of arrays: their paths, and whether two of them fit, leaf by leaf."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import PyTree

from vlm_jax.errors import InputError

Array = jax.Array | np.ndarray
"""On the host or on the device."""
Leaf = TypeVar("Leaf")
SHOWN = 5  # problems that one message names


def leaf_path(path: tuple[object, ...]) -> str:
    """`trunk/layer_0/attention/query/kernel` from a JAX key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: PyTree[Leaf]) -> dict[str, Leaf]:
    """Every leaf by its path."""
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(leaves: Mapping[str, Leaf]) -> dict[str, PyTree[Leaf]]:
    """The nested dict that `flatten` took apart."""
    tree = {}
    for path, leaf in leaves.items():
        *groups, name = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = leaf
    return tree


def num_bytes(tree: PyTree) -> int:
    """The bytes of all leaves, which are arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def compare_trees(saved: PyTree, wanted: PyTree, *, what: str) -> None:
    """Raise `InputError` with the paths whose presence, shape or dtype differs between two trees of arrays."""
    saved_kinds, wanted_kinds = dict(_kinds(saved)), dict(_kinds(wanted))
    problems = [f"extra {path}" for path in saved_kinds if path not in wanted_kinds]
    for path, kind in wanted_kinds.items():
        if path not in saved_kinds:
            problems.append(f"missing {path}")
        elif saved_kinds[path] != kind:
            problems.append(f"{path} is {saved_kinds[path]}, expected {kind}")
    if problems:
        raise InputError(f"the {what} do not fit the model: {shortened(problems)}")


def shortened(problems: list[str]) -> str:
    """The first few of a list in one line, and how many more there are."""
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{'; '.join(problems[:SHOWN])}{more}"


def _kinds(tree: PyTree) -> Iterator[tuple[str, str]]:
    for path, leaf in flatten(tree).items():
        yield path, f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
