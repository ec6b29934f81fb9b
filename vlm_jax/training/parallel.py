"""Two ways to spread a step over devices, behind one interface: `jit` over a mesh, and `pmap`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vlm_jax.config.run import Config
from vlm_jax.errors import InputError
from vlm_jax.training.step import AccumulatedStep, Step, TrainState
from vlm_jax.types import Batch

BATCH_AXES = ("data", "fsdp")


def choose_devices(config: Config) -> list[jax.Device]:
    """The devices of a run; `InputError` where there are too few or the batch does not divide by them."""
    available, wanted = jax.devices(), config.compute.devices
    if wanted is not None and not 1 <= wanted <= len(available):
        raise InputError(f"compute.devices is {wanted}; this machine has {len(available)}: choose 1 to that")
    devices = available[:wanted]
    training = config.training
    unit = len(devices) * training.accumulation
    if training.batch_images % unit:
        nearest = max(1, round(training.batch_images / unit)) * unit
        raise InputError(
            f"training.batch_images {training.batch_images} does not divide by {len(devices)} devices x "
            f"{training.accumulation} micro-batches; the nearest batch is {nearest}"
        )
    return devices


class JitParallel:
    """One program over a mesh: the batch is split over its devices, parameters are whole on each.

    The mesh already has the axes `fsdp` and `tensor` (of size 1), so that splitting parameters is a matter of rules.
    """

    axis_name = None

    def __init__(self, devices: list[jax.Device]) -> None:
        mesh = jax.make_mesh(
            (len(devices), 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices
        )
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
        self.count = len(devices)

    def put(self, state: TrainState) -> TrainState:
        """The state on every device."""
        return jax.device_put(state, self.replicated)

    def take(self, state: TrainState) -> TrainState:
        """The one state, as checkpoints hold it."""
        return state

    def put_batch(self, batch: Batch) -> Batch:
        """This process's share of the global batch, on its devices."""
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.split, x), batch)

    def compile(self, step: Step) -> Step:
        """The step, compiled at its first call; the state is donated where that saves memory (not on a CPU)."""
        if isinstance(step, AccumulatedStep):
            on_all = partial(jax.jit, out_shardings=self.replicated)
            return step._replace(
                start=on_all(step.start, in_shardings=(self.replicated, self.split)),
                add=on_all(step.add, in_shardings=(self.replicated, self.replicated, self.split)),
                finish=on_all(step.finish, in_shardings=(self.replicated, self.replicated)),
            )
        donated = () if jax.default_backend() == "cpu" else (0,)
        return jax.jit(
            step,
            donate_argnums=donated,
            in_shardings=(self.replicated, self.split),
            out_shardings=(self.replicated, self.replicated),
        )


class PmapParallel:
    """One copy of the state a device, gradients summed between them."""

    axis_name = "devices"

    def __init__(self, devices: list[jax.Device]) -> None:
        self.devices = devices
        self.count = len(devices)
        mesh = jax.make_mesh((self.count,), (self.axis_name,), axis_types=(AxisType.Auto,), devices=devices)
        self.split = NamedSharding(mesh, PartitionSpec(self.axis_name))

    def put(self, state: TrainState) -> TrainState:
        """The state, copied along a new leading device axis."""
        copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.count, *jnp.shape(x))), state)
        return jax.device_put(copies, self.split)

    def take(self, state: TrainState) -> TrainState:
        """The first device's copy."""
        return jax.tree.map(lambda x: x[0], state)

    def put_batch(self, batch: Batch) -> Batch:
        """`[I, ...]` to `[devices, I / devices, ...]`."""
        shares = jax.tree.map(lambda x: np.reshape(x, (self.count, -1, *x.shape[1:])), batch)
        return jax.device_put(shares, self.split)

    def compile(self, step: Step) -> Step:
        """The step on every device; metrics come back once."""
        axes = (0, None)  # of state and metrics
        if isinstance(step, AccumulatedStep):
            on_each = partial(jax.pmap, axis_name=self.axis_name, devices=self.devices)
            return step._replace(
                start=on_each(step.start), add=on_each(step.add), finish=on_each(step.finish, out_axes=axes)
            )
        donated = () if jax.default_backend() == "cpu" else (0,)
        return jax.pmap(step, self.axis_name, out_axes=axes, devices=self.devices, donate_argnums=donated)


METHODS = {"jit": JitParallel, "pmap": PmapParallel}
