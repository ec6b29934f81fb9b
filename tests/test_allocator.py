"""Freed memory stays: allocating it again faults no page."""

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
