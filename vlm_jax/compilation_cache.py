"""Compiled programs on disk: a command that compiles what another one has compiled reads it instead."""

import os
import shutil
import sys
import warnings
from pathlib import Path

FOLDER = "compiled"
MAX_BYTES = 2 * 2**30
"""The programs that were used longest ago make room for others."""
ENOUGH_FREE = 2**28
"""On a disk with less room nothing is written."""
NEVER = 1e9  # seconds that a program must have taken to compile in order to be written


def keep_programs(directory: Path) -> None:
    """Have JAX keep compiled programs below `directory`, and read those that are there.

    A directory of JAX's own setting (JAX_COMPILATION_CACHE_DIR) stays. Where nothing can be written, programs are only
    read, with a note: no command fails for want of a cache.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = directory.expanduser() / FOLDER
    writable = _writable(folder)
    if not writable and not folder.is_dir():
        return
    # An entry that cannot be read or written costs one compilation, and no result.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry", UserWarning)
    if writable:
        _remove_incomplete(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES if writable else -1)  # -1 takes no lock
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if writable else NEVER)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "it cannot be written to" if not os.access(folder, os.W_OK) else None
        if reason is None and shutil.disk_usage(folder).free < ENOUGH_FREE:
            reason = "its disk is nearly full"
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        print(f"note: compiled programs are not kept in {folder}: {reason}", file=sys.stderr)
    return reason is None


def _remove_incomplete(folder: Path) -> None:
    """Remove what a killed process wrote in part: JAX's cache writes an entry first, and then when it was used."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lockfile", timeout=10):  # the one of `jax._src.lru_cache`
            entries = {file.name for file in folder.iterdir()}
            for name in entries:
                if name.endswith("-cache") and f"{name.removesuffix('-cache')}-atime" not in entries:
                    (folder / name).unlink(missing_ok=True)
    except (OSError, Timeout):  # somebody else cleans, or nobody can
        return
