"""Tables that say which of their tensors are which of our parameters, and the one converter that reads them.

A family is a list of `Row`s. `to_ours` and `to_theirs` are strict: what is left over, missing or of another shape is
listed by name and refused.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vlm_jax.errors import InputError
from vlm_jax.trees import shortened, unflatten
from vlm_jax.weights.source import FLOATS, INTEGERS, Tensors

Arrays = tuple[np.ndarray, ...]


class Transform(NamedTuple):
    """How their arrays become ours and back."""

    forward: Callable[..., Arrays]
    backward: Callable[..., Arrays]
    exact: bool = True
    """Whether `backward` gives back every bit. Where not, theirs are kept, and go back while ours are untouched."""


class Row(NamedTuple):
    """Their tensors and the parameters they become; ours without theirs are constants, none of ours has two rows."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    transform: Transform


class Converted(NamedTuple):
    """Our parameters, and tensors of theirs that an export gives back as they were."""

    params: dict[str, Any]
    kept: dict[str, np.ndarray]


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Arrays]:
    return lambda *arrays: tuple(np.ascontiguousarray(change(array)) for array in arrays)


SAME = Transform(lambda *arrays: arrays, lambda *arrays: arrays)
LINEAR = Transform(_each(lambda x: x.T), _each(lambda x: x.T))
"""[out, in] to [in, out]."""
CONVOLUTION = Transform(_each(lambda x: x.transpose(2, 3, 1, 0)), _each(lambda x: x.transpose(3, 2, 0, 1)))
"""[out, in, k, k] to [k, k, in, out]; a depthwise kernel [C, 1, k, k] becomes [k, k, 1, C] by the same turn."""


def folded_norm(epsilon: float) -> Transform:
    """A batch norm (weight, bias, running mean, running variance) as scale and bias (Ioffe and Szegedy 2015, alg. 2).

    Back, a scale and a bias are a batch norm over mean 0 and variance 1 - epsilon.
    """

    def forward(weight, bias, mean, variance):
        wide = [x.astype(np.float64) for x in (weight, bias, mean, variance)]
        scale = wide[0] / np.sqrt(wide[3] + epsilon)
        return scale.astype(np.float32), (wide[1] - wide[2] * scale).astype(np.float32)

    def backward(scale, bias):
        return scale, bias, np.zeros_like(scale), np.full_like(scale, 1.0 - epsilon)

    return Transform(forward, backward, exact=False)


def identity(width: int) -> Transform:
    """A square linear map that changes nothing, and its bias: no tensors of theirs."""

    def backward(kernel, bias):
        if np.array_equal(kernel, np.eye(width, dtype=np.float32)) and not bias.any():
            return ()
        raise InputError("embed/text_fc is not the identity: fold it into the tables first")

    return Transform(lambda: (np.eye(width, dtype=np.float32), np.zeros(width, np.float32)), backward)


def linear(theirs: str, ours: str, *, bias: bool = True) -> list[Row]:
    """A linear layer's weight and bias."""
    rows = [Row((f"{theirs}.weight",), (f"{ours}/kernel",), LINEAR)]
    return [*rows, Row((f"{theirs}.bias",), (f"{ours}/bias",), SAME)] if bias else rows


def norm(theirs: str, ours: str) -> list[Row]:
    """A layer norm's weight and bias."""
    return [Row((f"{theirs}.weight",), (f"{ours}/scale",), SAME), Row((f"{theirs}.bias",), (f"{ours}/bias",), SAME)]


def table(theirs: str, ours: str) -> list[Row]:
    """An embedding table."""
    return [Row((f"{theirs}.weight",), (f"{ours}/embedding",), SAME)]


def convolution_norm(theirs: tuple[str, str], ours: tuple[str, str], *, epsilon: float) -> list[Row]:
    """A convolution without bias and the batch norm after it."""
    conv, batch_norm = theirs
    statistics = tuple(f"{batch_norm}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var"))
    return [
        Row((f"{conv}.weight",), (f"{ours[0]}/kernel",), CONVOLUTION),
        Row(statistics, (f"{ours[1]}/scale", f"{ours[1]}/bias"), folded_norm(epsilon)),
    ]


def theirs_of(rows: list[Row]) -> tuple[str, ...]:
    """The names of all their tensors in some rows."""
    return tuple(name for row in rows for name in row.theirs)


def to_ours(
    tensors: Tensors, names: Mapping[str, str], rows: list[Row], want: Mapping[str, jax.ShapeDtypeStruct], *, what: str
) -> Converted:
    """Their tensors as our parameters, one after the other.

    `names` maps a table's name to the file's, `want` are the shapes of our model's leaves (`jax.eval_shape`). Raises
    `InputError` with the names of what is unexpected, missing or of the wrong shape.
    """
    listed = {name for row in rows for name in row.theirs}
    problems = [f"unexpected {names[name]} {list(tensors[names[name]].shape)}" for name in names if name not in listed]
    missing = [name for name in sorted(listed) if name not in names]
    problems += [f"missing {name}" for name in missing]
    for name in sorted(listed & names.keys()):
        if tensors[names[name]].dtype in INTEGERS:
            problems.append(
                f"{names[name]} is of type {tensors[names[name]].dtype}, weights are of {', '.join(FLOATS)}"
            )
    if problems:
        raise InputError(f"{what} does not fit its family: {shortened(problems)}")
    leaves, kept = {}, {}
    for row in rows:
        arrays = tuple(tensors.read(names[name]) for name in row.theirs)
        if not row.transform.exact:
            kept |= dict(zip(row.theirs, arrays, strict=True))
        try:
            values = row.transform.forward(*arrays)
        except ValueError:  # too few axes to turn
            values = ()
        for path, value in zip(row.ours, values or (np.zeros(0),) * len(row.ours), strict=True):
            shape = want[path].shape if path in want else None
            if value.shape != shape:
                came = ", ".join(
                    f"{names[name]} {list(array.shape)}" for name, array in zip(row.theirs, arrays, strict=True)
                )
                problems.append(f"{came} for {path} {list(shape or ())}")
            leaves[path] = value
    problems += [f"nothing for {path}" for path in want if path not in leaves]
    if problems:
        raise InputError(f"{what} does not fit the model of its settings: {shortened(problems)}")
    return Converted(unflatten(leaves), kept)


def to_theirs(
    params: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray], rows: list[Row]
) -> dict[str, np.ndarray]:
    """Our parameters, by path, under their names; the way back of `to_ours`, bit for bit where nothing was trained."""
    paths = {path for row in rows for path in row.ours}
    problems = [f"unexpected {path}" for path in params if path not in paths]
    problems += [f"missing {path}" for path in sorted(paths) if path not in params]
    if problems:
        raise InputError(f"the parameters do not fit the family: {shortened(problems)}")
    tensors: dict[str, np.ndarray] = {}
    for row in rows:
        ours = tuple(np.asarray(params[path]) for path in row.ours)
        if not row.transform.exact and all(name in kept for name in row.theirs):
            theirs = tuple(kept[name] for name in row.theirs)
            untouched = zip(row.transform.forward(*theirs), ours, strict=True)
            if all(np.array_equal(before, now) for before, now in untouched):
                tensors |= dict(zip(row.theirs, theirs, strict=True))
                continue
        tensors |= dict(zip(row.theirs, row.transform.backward(*ours), strict=True))
    return tensors
