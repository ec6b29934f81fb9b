"""Tables that say which of their tensors are which of our parameters, and the one converter that reads them.

A family is a list of `Row`s. `convert_tensors` and `export_tensors` are strict: a tensor that is left over, missing or
of another shape is named and refused.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from vlm_jax.errors import InputError
from vlm_jax.trees import shortened, unflatten
from vlm_jax.types import Parameters
from vlm_jax.weights.source import FLOATS, INTEGERS, Tensors
from vlm_jax.weights.tensor_names import ways_out

Arrays = tuple[np.ndarray, ...]


class Transform(NamedTuple):
    """How their arrays become ours and back."""

    forward: Callable[..., Arrays]
    backward: Callable[..., Arrays]
    exact: bool = True
    """Whether `backward` gives back every bit. Where not, theirs are kept: they go back while ours are untouched, and
    `backward` takes them after ours."""


class Row(NamedTuple):
    """Their tensors and the parameters they become; none of ours has two rows."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    transform: Transform


# Turned arrays are views: the copy is the device's, or that of the file which is written.
def _on_each_array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Arrays]:
    return lambda *arrays: tuple(map(change, arrays))


SAME = Transform(lambda *arrays: arrays, lambda *arrays: arrays)
LINEAR = Transform(_on_each_array(lambda x: x.T), _on_each_array(lambda x: x.T))
"""[out, in] to [in, out]."""
CONVOLUTION = Transform(
    _on_each_array(lambda x: x.transpose(2, 3, 1, 0)), _on_each_array(lambda x: x.transpose(3, 2, 0, 1))
)
"""[out, in, k, k] to [k, k, in, out]; a depthwise kernel [C, 1, k, k] becomes [k, k, 1, C] by the same turn."""
POINTWISE = Transform(_on_each_array(lambda x: x.squeeze((2, 3)).T), _on_each_array(lambda x: x.T[:, :, None, None]))
"""A 1x1 convolution [out, in, 1, 1] to the matrix [in, out]."""
FUSED = Transform(
    lambda x: tuple(part.T for part in np.split(x, 3)),
    lambda *parts: (np.concatenate([part.T for part in parts]),),
)
"""Query, key and value one after the other, [3 D, D] or [3 D], to [D, D] or [D] each."""


def with_axes(count: int) -> Transform:
    """An array behind `count` axes of length 1, and without them."""
    return Transform(
        lambda x: (x.reshape(x.shape[count:]),),
        lambda x: (x[(None,) * count],),
    )


def rows_of_table(count: int) -> Transform:
    """Vectors behind `count` axes of length 1 to the rows of one table."""
    one = with_axes(count)
    return Transform(
        lambda *rows: (np.stack([one.forward(row)[0] for row in rows]),),
        lambda table: tuple(one.backward(row)[0] for row in table),
    )


def patch_projection(side: int) -> Transform:
    """A convolution [out, in, p, p] of stride p = `side` to the matrix [p p in, out] of flattened patches."""
    return Transform(
        lambda x: (np.ascontiguousarray(x.transpose(2, 3, 1, 0)).reshape(-1, len(x)),),
        lambda x: (np.ascontiguousarray(x.reshape(side, side, -1, x.shape[-1]).transpose(3, 2, 0, 1)),),
    )


def folded_norm(epsilon: float) -> Transform:
    """A batch norm (weight, bias, running mean, running variance) as scale and bias (Ioffe and Szegedy 2015, alg. 2).

    Back, the running statistics are those that came, and weight and bias those that give this scale and bias with them.
    """

    def forward(weight, bias, mean, variance):
        wide = [x.astype(np.float64) for x in (weight, bias, mean, variance)]
        scale = wide[0] / np.sqrt(wide[3] + epsilon)
        return scale.astype(np.float32), (wide[1] - wide[2] * scale).astype(np.float32)

    def backward(scale, bias, _weight, _bias, mean, variance):
        wide = [x.astype(np.float64) for x in (scale, bias, mean, variance)]
        weight = wide[0] * np.sqrt(wide[3] + epsilon)
        return weight.astype(np.float32), (wide[1] + wide[2] * wide[0]).astype(np.float32), mean, variance

    return Transform(forward, backward, exact=False)


def linear(source: str, target: str, *, bias: bool = True) -> list[Row]:
    """A linear layer's weight and bias."""
    rows = [Row((f"{source}.weight",), (f"{target}/kernel",), LINEAR)]
    return [*rows, Row((f"{source}.bias",), (f"{target}/bias",), SAME)] if bias else rows


def norm(source: str, target: str) -> list[Row]:
    """A layer norm's weight and bias."""
    return [Row((f"{source}.weight",), (f"{target}/scale",), SAME), Row((f"{source}.bias",), (f"{target}/bias",), SAME)]


def table(source: str, target: str) -> list[Row]:
    """An embedding table."""
    return [Row((f"{source}.weight",), (f"{target}/embedding",), SAME)]


def convolution_norm(source: tuple[str, str], target: tuple[str, str], *, epsilon: float) -> list[Row]:
    """A convolution without bias and the batch norm after it."""
    conv, batch_norm = source
    statistics = tuple(f"{batch_norm}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var"))
    return [
        Row((f"{conv}.weight",), (f"{target[0]}/kernel",), CONVOLUTION),
        Row(statistics, (f"{target[1]}/scale", f"{target[1]}/bias"), folded_norm(epsilon)),
    ]


def source_names(rows: list[Row]) -> tuple[str, ...]:
    """The names of all their tensors in some rows."""
    return tuple(name for row in rows for name in row.source)


def convert_tensors(
    tensors: Tensors, names: Mapping[str, str], rows: list[Row], want: Mapping[str, jax.ShapeDtypeStruct], *, what: str
) -> tuple[Parameters, dict[str, np.ndarray]]:
    """Their tensors as our parameters, one after the other, and those that an export gives back as they were.

    `names` maps a table's name to the file's, `want` are the shapes of our model's leaves (`jax.eval_shape`). Raises
    `InputError` with the names of what is unexpected, missing or of the wrong shape.
    """
    _check_names(tensors, names, rows, what)
    leaves, source_tensors, problems = {}, {}, []
    for row in rows:
        arrays = tuple(tensors.read(names[name]) for name in row.source)
        if not row.transform.exact:
            source_tensors |= dict(zip(row.source, arrays, strict=True))
        try:
            with np.errstate(all="ignore"):  # what is not finite is named below
                values = row.transform.forward(*arrays)
        except ValueError:  # too few axes to turn
            values = ()
        came = ", ".join(f"{names[name]} {list(array.shape)}" for name, array in zip(row.source, arrays, strict=True))
        for path, value in zip(row.target, values or (np.zeros(0),) * len(row.target), strict=True):
            shape = want[path].shape if path in want else None
            if value.shape != shape:
                problems.append(f"{came} for {path} {list(shape or ())}")
            leaves[path] = value
        infinite = [names[name] for name, x in zip(row.source, arrays, strict=True) if not np.isfinite(x).all()]
        problems += [f"{name} holds NaN or infinity" for name in infinite]
        if not (infinite or row.transform.exact) and not all(np.isfinite(value).all() for value in values):
            problems.append(f"{came} make {row.target[0]} NaN or infinite")  # a variance below 0
    problems += [f"nothing for {path}" for path in want if path not in leaves]
    if problems:
        raise InputError(f"{what} does not fit the model of its settings: {shortened(problems)}")
    return unflatten(leaves), source_tensors


def _check_names(tensors: Tensors, names: Mapping[str, str], rows: list[Row], what: str) -> None:
    """`InputError` where a name is unexpected or missing, or its tensor not of floats."""
    listed = {name for row in rows for name in row.source}
    unexpected = {name: file_name for name, file_name in names.items() if name not in listed}
    problems = [f"unexpected {name} {list(tensors[name].shape)}" for name in unexpected.values()]
    missing = [name for name in sorted(listed) if name not in names]
    problems += [f"missing {name}" for name in missing]
    for file_name in (names[name] for name in sorted(listed & names.keys())):
        if (dtype := tensors[file_name].dtype) in INTEGERS:
            problems.append(f"{file_name} is of type {dtype}, weights are of {', '.join(FLOATS)}")
    if problems:
        only_unexpected = len(problems) == len(unexpected)
        more = ways_out(unexpected, head_names(rows), trunk_names(rows)) if only_unexpected else ""
        raise InputError(f"{what} does not fit its family: {shortened(problems)}{more}")


def head_names(rows: list[Row]) -> set[str]:
    """Their names of the tensors of heads."""
    return {name for row in rows if row.target[0].startswith("head/") for name in row.source}


def trunk_names(rows: list[Row]) -> set[str]:
    """Their names of all other tensors."""
    return {name for row in rows for name in row.source} - head_names(rows)


def export_tensors(
    params: Mapping[str, np.ndarray], source_tensors: Mapping[str, np.ndarray], rows: list[Row]
) -> dict[str, np.ndarray]:
    """The parameters under the source's names: the inverse of `convert_tensors`, bit for bit where nothing was
    trained."""
    paths = {path for row in rows for path in row.target}
    problems = [f"unexpected {path}" for path in params if path not in paths]
    problems += [f"missing {path}" for path in sorted(paths) if path not in params]
    if problems:
        raise InputError(f"the parameters do not fit the family: {shortened(problems)}")
    tensors: dict[str, np.ndarray] = {}
    for row in rows:
        target = tuple(np.asarray(params[path]) for path in row.target)
        if row.transform.exact:
            source = row.transform.backward(*target)
        else:
            source = tuple(source_tensors[name] for name in row.source)
            untouched = zip(row.transform.forward(*source), target, strict=True)
            if not all(np.array_equal(before, now) for before, now in untouched):
                source = row.transform.backward(*target, *source)
        tensors |= dict(zip(row.source, source, strict=True))
    return tensors
