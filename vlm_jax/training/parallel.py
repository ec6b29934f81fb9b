"""Two ways to spread a step over devices, behind one interface: `jit` over a mesh, and `pmap`."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vlm_jax.allocator import trim_heap
from vlm_jax.interrupts import compiling
from vlm_jax.training.step import AccumulatedStep, Step, TrainState
from vlm_jax.types import Batch

BATCH_AXES = ("data", "fsdp")
Example = Callable[[], tuple[TrainState, Batch]]
"""Gives a state and a batch, or their shapes."""


class CompiledAhead:
    """A step that a thread compiles for a state and batches like these, while the run is set up."""

    def __init__(self, step: jax.stages.Wrapped, state: TrainState, batch: Batch) -> None:
        self.compile_seconds = 0.0
        """What the thread took; known after the first call."""

        def compiled() -> jax.stages.Compiled:
            began = time.perf_counter()
            program = step.lower(state, batch).compile()
            trim_heap()
            self.compile_seconds = time.perf_counter() - began
            return program

        pool = ThreadPoolExecutor(1, "compile")
        self._compiled = pool.submit(compiled)
        compiling(self._compiled)
        pool.shutdown(wait=False)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        return self._compiled.result()(state, batch)


def compiled_first(program: Callable) -> Callable:
    """A program of `jit` or `pmap` that compiles at its first call, and then returns what the compiler freed.

    It runs after that. The compiler's heap is full of holes: what a step takes would lie above it.
    """
    compiled = False

    def run(*arguments):
        nonlocal compiled
        if not compiled:
            program.lower(*arguments).compile()
            trim_heap()
            compiled = True
        return program(*arguments)

    return run


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

    def compile(self, step: Step, like: Example | None = None) -> Step:
        """The step, compiled at its first call or, for a state and batches `like` these, in a thread from now on.

        It takes the state for its own: the memory of the state before is that of the state after.
        """
        if isinstance(step, AccumulatedStep):
            on_all = partial(jax.jit, out_shardings=self.replicated)
            return step._replace(
                start=on_all(step.start, in_shardings=(self.replicated, self.split)),
                add=compiled_first(
                    on_all(step.add, in_shardings=(self.replicated, self.replicated, self.split), donate_argnums=0)
                ),
                finish=on_all(step.finish, in_shardings=(self.replicated, self.replicated), donate_argnums=0),
            )
        program = jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(self.replicated, self.split),
            out_shardings=(self.replicated, self.replicated),
        )
        return compiled_first(program) if like is None else CompiledAhead(program, *like())


class PmapParallel:
    """One copy of the state a device, gradients summed between them."""

    axis_name = "devices"

    def __init__(self, devices: list[jax.Device]) -> None:
        self.devices = devices
        self.count = len(devices)
        mesh = jax.make_mesh((self.count,), (self.axis_name,), axis_types=(AxisType.Auto,), devices=devices)
        whole, split = PartitionSpec(), PartitionSpec(self.axis_name)
        self.replicated, self.split = NamedSharding(mesh, whole), NamedSharding(mesh, split)

        def on_each(change: Callable[[jax.Array], jax.Array], before: PartitionSpec, after: PartitionSpec) -> Callable:
            """`change` of every leaf, by each device of its own copy."""
            change_state = partial(jax.tree.map, change)
            return jax.jit(jax.shard_map(change_state, mesh=mesh, in_specs=before, out_specs=after, check_vma=False))

        self._stack, self._unstack = on_each(lambda x: x[None], whole, split), on_each(lambda x: x[0], split, whole)

    def put(self, state: TrainState) -> TrainState:
        """The state with a new leading axis of devices, each of which holds its copy."""
        return self._stack(jax.device_put(state, self.replicated))

    def take(self, state: TrainState) -> TrainState:
        """The state without the axis of devices, on every device."""
        return self._unstack(state)

    def put_batch(self, batch: Batch) -> Batch:
        """`[I, ...]` to `[devices, I / devices, ...]`."""
        shares = jax.tree.map(lambda x: np.reshape(x, (self.count, -1, *x.shape[1:])), batch)
        return jax.device_put(shares, self.split)

    def compile(self, step: Step, like: Example | None = None) -> Step:
        """The step on every device, compiled at its first call; metrics come back once."""
        axes = (0, None)  # of state and metrics
        if isinstance(step, AccumulatedStep):
            on_each = partial(jax.pmap, axis_name=self.axis_name, devices=self.devices)
            return step._replace(
                start=on_each(step.start),
                add=compiled_first(on_each(step.add, donate_argnums=0)),
                finish=on_each(step.finish, out_axes=axes, donate_argnums=0),
            )
        program = jax.pmap(step, self.axis_name, out_axes=axes, devices=self.devices, donate_argnums=0)
        return compiled_first(program)


METHODS = {"jit": JitParallel, "pmap": PmapParallel}
