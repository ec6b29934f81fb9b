"""Batches on the devices that hold the parameters: each computes its own share."""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

Output = TypeVar("Output", bound=PyTree)


def on_every(devices: Sequence[jax.Device]) -> NamedSharding:
    """The place of parameters that each of these devices holds whole."""
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec())


def devices_of(params: PyTree) -> list[jax.Device]:
    """The devices that hold parameters, in order."""
    return sorted(jax.tree.leaves(params)[0].sharding.device_set, key=lambda device: device.id)


def split_over_devices(function: Callable[..., Output]) -> Callable[..., Output]:
    """`function(params, *batch)`, compiled; its batch is split over the devices that hold `params` (`on_every`).

    All arrays of the batch and of the output have a first axis of the same length. No device waits for another one,
    and nothing is sent between them. Where the length does not divide by their number the last entry is repeated,
    and the output, without its repetitions, is on the host.
    """
    on_one = jax.jit(function)

    def of_share(params: PyTree, batch: tuple[PyTree, ...]) -> Output:
        return function(params, *batch)

    @functools.cache
    def on_each(mesh: Mesh) -> Callable[..., Output]:
        split = PartitionSpec(mesh.axis_names)
        specs = {"in_specs": (PartitionSpec(), split), "out_specs": split}
        return jax.jit(jax.shard_map(of_share, mesh=mesh, **specs, check_vma=False))

    def call(params: PyTree, *batch: PyTree) -> Output:
        mesh = _mesh_of(params)
        if mesh is None:
            return on_one(params, *jax.device_put(batch))
        length = len(jax.tree.leaves(batch)[0])
        rest = -length % mesh.size
        if rest:
            places = np.minimum(np.arange(length + rest), length - 1)
            batch = jax.tree.map(lambda rows: rows[places], batch)
        split_batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
        output = on_each(mesh)(params, split_batch)
        return jax.tree.map(lambda rows: rows[:length], jax.device_get(output)) if rest else output

    return call


def _mesh_of(params: PyTree) -> Mesh | None:
    """The mesh that holds parameters; None where they are on the host or on one device."""
    sharding = getattr(next(iter(jax.tree.leaves(params)), None), "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 else None
