"""The devices of a run: every GPU or, on a CPU, as many JAX devices as it has cores for."""

import math
import os
from contextlib import suppress
from pathlib import Path

import jax

from vlm_jax.config.run import Config
from vlm_jax.errors import InputError
from vlm_jax.text_lines import read_lines

MOST_CPU_DEVICES = 8
MEMORY_PARTS = 3
"""On a CPU, old and new states of all devices take at most one of so many parts of the memory."""
STATE_BYTES = 2**25
"""At most so much of a state for each image of a device's share: every device updates a whole state, which takes longer
than what an idle core gains where there are few images."""
PATIENCE, PATIENCE_SECONDS = "xla_cpu_collective_call_terminate_timeout_seconds", 24 * 3600
"""How long a CPU device waits for another one. After a minute XLA would end the process, and a busy machine may take
that. There is no setting of JAX for it."""
COUNT_FLAG = "xla_force_host_platform_device_count"


def choose_devices(config: Config, *, state_bytes: int = 0) -> list[jax.Device]:
    """The devices of a run, whose train state has `state_bytes`.

    By default these are all GPUs or, on a CPU, the largest number that divides a micro-batch and for which there are
    cores, memory and images enough. `InputError` where `compute.devices` are not there or do not divide the batch.
    """
    training, wanted = config.training, config.compute.devices
    images = training.batch_images // training.accumulation
    _make_cpu_devices(images, wanted)
    available = jax.devices()
    if wanted is None and available[0].platform == "cpu":
        room = min(memory_bytes() // (2 * MEMORY_PARTS), images * STATE_BYTES)
        most = room // state_bytes if state_bytes else len(available)
        return available[: _largest_divisor(images, min(most, len(available)))]
    if wanted is not None and not 1 <= wanted <= len(available):
        raise InputError(f"compute.devices is {wanted}; this machine has {len(available)}: choose 1 to that")
    devices = available[:wanted]
    unit = len(devices) * training.accumulation
    if training.batch_images % unit:
        nearest = max(1, round(training.batch_images / unit)) * unit
        raise InputError(
            f"training.batch_images {training.batch_images} does not divide by {len(devices)} devices x "
            f"{training.accumulation} micro-batches; the nearest batch is {nearest}"
        )
    return devices


def evaluation_devices(config: Config) -> list[jax.Device]:
    """The devices that score a run or compute features, at most `compute.devices`; their number divides a batch."""
    images, wanted = config.training.evaluation_batch_images, config.compute.devices
    _make_cpu_devices(images, wanted)
    available = jax.devices()[:wanted]
    return available[: _largest_divisor(images, len(available))]


def describe_devices(devices: list[jax.Device]) -> str:
    """What a run computes on, such as `device: 2 x cpu, 2 cores` or `device: NVIDIA H200`."""
    kind = devices[0].device_kind if len(devices) == 1 else f"{len(devices)} x {devices[0].device_kind}"
    cores = len(os.sched_getaffinity(0))
    counted = f", {cores} core{'s' if cores > 1 else ''}" if devices[0].platform == "cpu" else ""
    return f"device: {kind}{counted}"


PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def memory_bytes(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """The memory of this machine, or what the control groups of this process allow where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    files = [groups / "memory" / "memory.limit_in_bytes"]  # of version 1
    for file in [*files, *(group / "memory.max" for group in _groups(proc, groups))]:
        with suppress(OSError, ValueError):  # it is not there, or says "max"
            limits.append(int(file.read_text(encoding="ascii")))
    return min(limits)


def cpu_cores(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """The cores that this process may use, or the share of them that its control groups allow where that is less."""
    cores = [len(os.sched_getaffinity(0))]
    for group in _groups(proc, groups):
        with suppress(OSError, ValueError):  # it is not there, or says "max"
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            cores.append(math.ceil(int(quota) / int(period)))
    return min(cores)


def _groups(proc: Path, groups: Path) -> list[Path]:
    """The control groups (of version 2) of this process, each with those that hold it."""
    found = []
    with suppress(OSError):
        for line in read_lines(proc / "self" / "cgroup"):
            group = groups / line.split(":", 2)[2].strip().lstrip("/")
            found += [place for place in (group, *group.parents) if place.is_relative_to(groups)]
    return found


def _make_cpu_devices(images: int, wanted: int | None) -> None:
    """Have the CPU's backend make the devices, unless it runs already or the user's environment names their number."""
    cores = cpu_cores()
    count = (
        min(wanted, max(cores, MOST_CPU_DEVICES)) if wanted else _largest_divisor(images, min(cores, MOST_CPU_DEVICES))
    )
    # JAX's setting would win over XLA's flag, of which JAX knows nothing.
    if jax.config.jax_num_cpu_devices < 0 and COUNT_FLAG not in os.environ.get("XLA_FLAGS", ""):
        with suppress(RuntimeError):  # a backend runs
            jax.config.update("jax_num_cpu_devices", count)
            if PATIENCE not in os.environ.get("XLA_FLAGS", ""):
                os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{PATIENCE}={PATIENCE_SECONDS}".strip()


def _largest_divisor(images: int, most: int) -> int:
    return next(count for count in range(max(1, most), 0, -1) if images % count == 0)
