"""Known causes in a chain of exceptions, each as one line: what a machine, a file system or a device would not do.

Libraries wrap them: a full disk under Orbax is a hundred chained tracebacks, a missing GPU a bare AssertionError.
"""

import errno
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from vlm_jax.errors import InputError, MachineError

# What the machine lacks: the same command can succeed later, or on another file system.
MACHINE_ERRORS = {
    errno.ENOSPC: "no space is left; make room and start the same command again",
    errno.EDQUOT: "the disk quota is used up; make room and start the same command again",
    errno.EFBIG: "the file would be larger than its file system or the limit (ulimit -f) allows",
    errno.ENOLCK: "the file system cannot lock files; give a folder on another one",
    errno.EIO: "the device failed to read or write; check the disk or the mount",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "no memory is left; use a smaller batch or a smaller model",
    errno.ESTALE: "the file server has lost the file; mount it again",
    errno.ETIMEDOUT: "the file server does not answer; mount it again",
}
# What was given cannot be used so.
INPUT_ERRORS = {
    errno.EACCES: "no right to use it; give another place, or change its rights",
    errno.EPERM: "no right to use it; give another place, or change its rights",
    errno.EROFS: "the file system is read-only; give another place",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
    errno.ENOTDIR: "a part of the path is a file; give another place",
    errno.ELOOP: "its links lead in a circle; give another place",
}
# As TensorStore and Rust's libraries spell a number: "[OS error 28: ...]", "[os_error_code='28']", "(os error 28)".
_NUMBER = re.compile(r"os[ _]error(?: |_code=')(\d+)", re.IGNORECASE)
# As ArrayRecord spells it: "write() failed: No space left on device; writing /data/file; at byte 4096".
_CALL = re.compile(r"\w\(\) failed: ([^;]+); (?:reading|writing) ([^;]+)")
_CLOSED = "Event loop is closed"  # what TensorStore prints for each write that Orbax no longer waits for
_QUOTED = re.compile(r"\"(/[^\"]+)\"")


def explained(error: BaseException) -> InputError | MachineError | None:
    """What a known cause in the chain of `error` means in one line; None for a chain without one, which is a bug."""
    for cause in _chain(error):
        if isinstance(cause, InputError | MachineError):
            return cause
        for explain in (_operating_system, _out_of_memory, _platform):
            if (explanation := explain(cause)) is not None:
                return explanation
    return None


def os_failure(error: OSError, text: str) -> InputError | MachineError:
    """The exception for what could not be done: `text` says what, or the file, and the machine may be to blame."""
    number = error.errno or 0
    why = MACHINE_ERRORS.get(number) or INPUT_ERRORS.get(number) or error.strerror or str(error)
    return (MachineError if number in MACHINE_ERRORS else InputError)(f"{text}: {why}" if text else why)


def check_writable_name(path: Path, option: str) -> None:
    """Raises `InputError` where a folder's whole path is not UTF-8: libraries that write files take no other."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        shown = str(path).encode("ascii", "backslashreplace").decode()
        raise InputError(f"{option} {shown} is not UTF-8; give a folder whose path is") from None


def quiet_libraries() -> None:
    """Keep warnings of what is as it should be, and what is raised as well, from being printed."""
    logger = logging.getLogger("absl")  # Orbax and TFDS
    logger.setLevel(logging.ERROR)
    if _no_exception not in logger.filters:
        logger.addFilter(_no_exception)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable


def quiet_end() -> None:
    """Keep what threads and coroutines print that a failure, which was explained, has cut short."""
    if sys.unraisablehook is _unraisable:  # a command of its own, not one inside a test
        logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
        sys.unraisablehook = threading.excepthook = lambda _: None


def _unraisable(what: object) -> None:
    if str(what.exc_value) != _CLOSED:
        sys.__unraisablehook__(what)


def _no_exception(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, those of its group, what caused each and what each was raised in the handling of."""
    waiting, known = [error], set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in known:
            continue
        known.add(id(current))
        yield current
        within = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        waiting += [cause for cause in (*within, current.__cause__, current.__context__) if cause is not None]


def _operating_system(error: BaseException) -> InputError | MachineError | None:
    known = {os.strerror(number): number for number in (*MACHINE_ERRORS, *INPUT_ERRORS)}
    if isinstance(error, OSError):
        number, name = error.errno, error.filename
    elif call := _CALL.search(str(error)):
        number, name = known.get(call[1]), call[2]
    else:
        spelled, quoted = _NUMBER.search(str(error)), _QUOTED.search(str(error))
        number, name = int(spelled[1]) if spelled else None, quoted and quoted[1]
    if number not in known.values():
        return None
    name = os.fsdecode(name) if isinstance(name, bytes) else name
    return os_failure(OSError(number, os.strerror(number)), str(name or ""))


def _out_of_memory(error: BaseException) -> MachineError | None:
    """Of this process, or of a device as XLA says it."""
    if isinstance(error, MemoryError) or (
        type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and str(error).startswith("RESOURCE_EXHAUSTED")
    ):
        message = str(error).partition("\n")[0]
        return MachineError(f"{MACHINE_ERRORS[errno.ENOMEM]}{f' ({message})' if message else ''}")
    return None


def _platform(error: BaseException) -> InputError | None:
    """JAX has no such platform: it asserts, or raises a RuntimeError, in frames that it may have left out."""
    jax = sys.modules.get("jax")
    wanted = jax and jax.config.jax_platforms
    if not wanted or not isinstance(error, AssertionError | RuntimeError):
        return None
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as failure:
        message = str(failure).partition("\n")[0] or "no such device is here"
        text = f"JAX cannot start the platform {wanted!r} of JAX_PLATFORMS: {message}; leave it unset, or give cpu"
        return InputError(text)
    return None
