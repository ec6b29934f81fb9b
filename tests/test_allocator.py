"""Freed memory stays: allocating it again faults no page. Trimmed, it returns to the system, holes included."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
from vlm_jax.allocator import tune_malloc
import numpy as np
if sys.argv[1] == "kept":
    tune_malloc()
np.ones(10**7)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(10**7)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_pages_stay():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, check=True).stdout)
        for how in ("kept", "returned")
    }
    assert faults["kept"] < 0.1 * faults["returned"], faults


TRIM = """
import re
from vlm_jax.allocator import trim_heap, tune_malloc
tune_malloc()
blocks = [b"x" * 50_000 for _ in range(2000)]
last = blocks.pop()
del blocks
resident = lambda: int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = resident()
trim_heap()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_trimming_returns_what_lies_below_something_in_use():
    returned_kib = int(subprocess.run([sys.executable, "-c", TRIM], capture_output=True, check=True).stdout)
    assert returned_kib > 80_000
