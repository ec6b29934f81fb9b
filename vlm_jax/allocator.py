"""How the C library hands memory back to the system, which decides a fair part of a train step's time on a CPU."""

import ctypes
import sys

# Parameters of mallopt(3), from glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
NEVER = -1  # a threshold in bytes ends at 2 GiB: a state of that size would be given back and cleared at every step


def tune_malloc() -> None:
    """Let glibc keep what is freed, for the next step to take; call it before JAX starts its threads.

    XLA frees its buffers after every step, and glibc returns large ones to the system, which then clears each page
    anew: a quarter of the processor time of a small step, more of a large one. One arena, since the others give
    their heaps back whatever the threshold. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER), (ARENA_MAX, 1)):
            mallopt(parameter, value)


def trim_heap() -> None:
    """Return what is free to the system, once after something large and unlike what follows, such as a compiler."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
