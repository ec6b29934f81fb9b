"""How many devices a run has: a CPU device for each core by default, or those that a person asks for."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from vlm_jax.config.vqa import VQA
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.training import devices as devices_module
from vlm_jax.training.devices import STATE_BYTES, choose_devices, cpu_cores, evaluation_devices, memory_bytes

ROOT = Path(__file__).parent.parent.parent
COUNT = """
import os, sys
from vlm_jax.config.vqa import VQA
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.devices import choose_devices, evaluation_devices

_, cores, function, images, devices = sys.argv
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
changes = {"training.batch_images": int(images), "training.evaluation_batch_images": int(images)}
config = with_changes(VQA(), changes | {"compute.devices": int(devices) or None})
print(len(globals()[function](config)))
"""
CORES = min(2, len(os.sched_getaffinity(0)))


def changed(*, images=8, accumulation=1, devices=None):
    return with_changes(
        VQA(),
        {
            "training.batch_images": images,
            "training.accumulation": accumulation,
            "training.evaluation_batch_images": images,
            "compute.devices": devices,
        },
    )


@pytest.fixture
def four_devices(monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr(jax, "devices", lambda: [device] * 4)


@pytest.mark.parametrize(
    ("images", "accumulation", "nearest"), [(7, 1, 8), (9, 1, 8), (1, 1, 4), (12, 2, 16), (18, 2, 16), (2, 2, 8)]
)
def test_a_batch_that_does_not_divide_is_refused(four_devices, images, accumulation, nearest):
    message = (
        rf"batch_images {images} does not divide by 4 devices x {accumulation} micro-.*nearest batch is {nearest}$"
    )
    with pytest.raises(InputError, match=message):
        choose_devices(changed(images=images, accumulation=accumulation, devices=4))
    assert len(choose_devices(changed(images=nearest, accumulation=accumulation, devices=4))) == 4


@pytest.mark.parametrize("devices", [0, -1, 5])
def test_missing_devices_are_refused(four_devices, devices):
    with pytest.raises(InputError, match=f"compute.devices is {devices}"):
        choose_devices(changed(devices=devices))


@pytest.mark.parametrize(
    ("images", "accumulation", "expected"), [(8, 1, 4), (6, 1, 3), (7, 1, 1), (12, 2, 3), (16, 8, 2), (2, 2, 1)]
)
def test_by_default_a_subset_divides_the_micro_batch(four_devices, images, accumulation, expected):
    assert len(choose_devices(changed(images=images, accumulation=accumulation))) == expected


@pytest.mark.parametrize(("images", "devices", "expected"), [(64, None, 4), (6, None, 3), (64, 2, 2), (5, 9, 1)])
def test_evaluation_takes_what_divides_its_batch(four_devices, images, devices, expected):
    assert len(evaluation_devices(changed(images=images, devices=devices))) == expected


@pytest.mark.parametrize(("state_bytes", "expected"), [(0, 4), (40, 4), (50, 3), (100, 1), (10_000, 1)])
def test_states_take_a_third_of_the_memory(four_devices, monkeypatch, state_bytes, expected):
    monkeypatch.setattr(devices_module, "memory_bytes", lambda: 1000)
    assert len(choose_devices(changed(images=12), state_bytes=state_bytes)) == expected
    assert len(choose_devices(changed(images=12, devices=4), state_bytes=state_bytes)) == 4


def test_a_large_state_needs_many_images(four_devices, monkeypatch):
    """Each device updates a whole state, however few images it has."""
    monkeypatch.setattr(devices_module, "memory_bytes", lambda: 2**50)
    large = 8 * STATE_BYTES
    counts = [len(choose_devices(changed(images=images), state_bytes=large)) for images in (8, 16, 32, 64)]
    assert counts == [1, 2, 4, 4]


def test_a_control_group_may_allow_a_share_of_the_cores(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (groups / "user").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/user\n")
    for quota, cores in (("max 100000", len(os.sched_getaffinity(0))), ("50000 100000", 1), ("100 100000", 1)):
        (groups / "user" / "cpu.max").write_text(f"{quota}\n")
        assert cpu_cores(proc, groups) == cores


def test_the_memory_is_that_of_the_smallest_control_group(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (groups / "user" / "session").mkdir(parents=True)
    everything = memory_bytes(proc, groups)
    assert everything == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (proc / "self" / "cgroup").write_text("0::/user/session\n")
    (groups / "user" / "session" / "memory.max").write_text("max\n")
    assert memory_bytes(proc, groups) == everything
    (groups / "user" / "memory.max").write_text("4096\n")
    assert memory_bytes(proc, groups) == 4096
    (groups / "memory").mkdir()
    (groups / "memory" / "memory.limit_in_bytes").write_text("2048\n")
    assert memory_bytes(proc, groups) == 2048


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ((CORES, "choose_devices", 8, 0), {}, CORES),
        ((1, "evaluation_devices", 8, 0), {}, 1),
        ((1, "choose_devices", 6, 3), {}, 3),
        ((1, "choose_devices", 8, 0), {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 4),
        ((CORES, "choose_devices", 6, 0), {"JAX_NUM_CPU_DEVICES": "3"}, 3),
    ],
)
def test_a_process_makes_a_device_for_each_core(arguments, environment, expected):
    """Or as many as `compute.devices` or the environment says."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    command = [sys.executable, "-c", COUNT, *map(str, arguments)]
    answer = subprocess.run(command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True)
    assert answer.stdout.strip() == str(expected), answer.stderr
