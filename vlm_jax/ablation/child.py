"""`python -m vlm_jax.ablation.child PARENT CORES COMMAND ...`: a command that dies with its parent, on given cores.

A study that is killed must leave no training behind that still writes to its folders.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: str, cores: str, *command: str) -> None:
    """Become `command`, unless the process `parent` is gone already; `cores` are numbers with commas, or nothing."""
    if cores:
        os.sched_setaffinity(0, set(map(int, cores.split(","))))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # outlives exec
    if os.getppid() != int(parent):  # it died before we asked
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
