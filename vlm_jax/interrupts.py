"""Ctrl-C, SIGTERM and a closed terminal: leave at once with one line, or stop after the step under way.

An exception is not enough. Python drops one that is raised inside JAX's garbage-collection callback. None is raised
while the main thread compiles. An exit by exception while XLA compiles is a segmentation fault. So a thread of its
own reads the signals (`signal.set_wakeup_fd`) and leaves by `os._exit`; the main thread waits for what it decides.
"""

import os
import signal
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = frozenset(128 + number for number in SIGNALS)
"""What a command exits with after each of the signals, as a shell counts."""

SECONDS = 1.5  # the longest that leaving takes: a full pipe or a dead disk must not hold the process
_SYNC = b"\0"  # no signal has this number


class _State:
    """What holds for the process: one command runs in it."""

    def __init__(self) -> None:
        self.installed = False
        self.stop_signals: list[int] | None = None
        """Signals that came where the loop asks for them; None where a signal leaves at once."""
        self.hung_up = False
        self.compiling: weakref.WeakSet[Future] = weakref.WeakSet()
        self.on_leaving: list[tuple[Callable[[], str] | None, Callable[[], None] | None]] = []
        """What `on_interrupt` prints and takes back, the innermost last."""


_state = _State()


def install() -> None:
    """Take the signals for the rest of the process. Does nothing where they are taken already.

    SIGHUP stays ignored where it is, as `nohup` wants it.
    """
    if not _state.installed:
        _Watcher()


@contextmanager
def installed() -> Iterator[None]:
    """Take the signals for a while, where the process has not taken them already and this is its main thread."""
    if _state.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    watcher = _Watcher()
    try:
        yield
    finally:
        watcher.close()


@contextmanager
def on_interrupt(*, line: Callable[[], str] | None = None, undo: Callable[[], None] | None = None) -> Iterator[None]:
    """What a signal that leaves at once says, after "interrupted: ", and what it takes back before.

    Of nested lines the innermost is printed; all undos are called, the innermost first, while the main thread waits.
    """
    _state.on_leaving.append((line, undo))
    try:
        yield
    finally:
        _state.on_leaving.remove((line, undo))


@contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Signals become a question that a loop asks between steps: which one came, 0 for none.

    A second Ctrl-C leaves at once.
    """
    with installed():
        before, _state.stop_signals = _state.stop_signals, []
        stop_signals = _state.stop_signals
        try:
            yield lambda: stop_signals[0] if stop_signals else 0
        finally:
            _state.stop_signals = before


def compiling(future: Future) -> None:
    """A thread compiles: a command that ends before it leaves by `os._exit`, as after a signal."""
    _state.compiling.add(future)


def exit_with(code: int) -> NoReturn:
    """End the process; at once where a thread still compiles, for which Python would wait and then crash."""
    if not all(future.done() for future in _state.compiling):
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def print_line(text: str) -> None:
    """Print to stdout; where the terminal has gone away, to nowhere."""
    try:
        print(text, flush=True)
    except OSError:
        if not terminal_gone():
            raise
        discard(sys.stdout.fileno())


def terminal_gone() -> bool:
    """Whether the terminal was closed. Its end can be felt before the signal that tells of it: this waits for that."""
    deadline = time.monotonic() + 0.5
    while not _state.hung_up and time.monotonic() < deadline:
        time.sleep(0.01)
    return _state.hung_up


def discard(descriptor: int) -> None:
    """Let whatever is written to a file descriptor go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Watcher:
    """The thread that reads signals from a pipe, and the handler that the main thread runs."""

    def __init__(self) -> None:
        self._signals, self._write = os.pipe()
        self._answers, self._answer = os.pipe()
        os.set_blocking(self._write, False)
        threading.Thread(target=self._read, name="signals", daemon=True).start()
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        taken = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._wait) for number in taken}
        _state.installed = True
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """A forked child has no such thread, and the pipe is its parent's."""
        if _state.installed:
            signal.set_wakeup_fd(-1)
            for number in self._before:
                signal.signal(number, signal.SIG_DFL)
            _state.installed = False

    def close(self) -> None:
        """Give the signals back to those who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        _state.installed = False
        os.close(self._write)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        """In the main thread: nothing goes on before the signal is understood; if the process leaves, nothing ever.

        Pipes, since a lock could be held by a handler that this one has interrupted.
        """
        with suppress(BlockingIOError):
            os.write(self._write, _SYNC)
            os.read(self._answers, 1)

    def _read(self) -> None:
        while numbers := os.read(self._signals, 64):
            for number in numbers:
                if number == _SYNC[0]:
                    os.write(self._answer, _SYNC)
                elif number in SIGNALS:
                    _arrived(number)
        for descriptor in (self._signals, self._answers, self._answer):
            os.close(descriptor)


def _arrived(number: int) -> None:
    if number == signal.SIGHUP:
        for descriptor in (1, 2):
            with suppress(OSError):
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # the terminal: every write to it fails from now on
                    discard(descriptor)
        _state.hung_up = True
    stop_signals = _state.stop_signals
    if stop_signals is None or (stop_signals and number == signal.SIGINT):
        _leave(number)
    stop_signals.append(number)


def _leave(number: int) -> None:
    code = 128 + number
    deadline = threading.Timer(SECONDS, os._exit, [code])
    deadline.daemon = True
    deadline.start()
    text = "interrupted"
    lines = [line for line, _ in _state.on_leaving if line is not None]
    with suppress(Exception):
        text += f": {lines[-1]()}" if lines else ""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode("utf-8", "backslashreplace"))  # no lock, which the main thread may hold
    for undo in [undo for _, undo in reversed(_state.on_leaving) if undo is not None]:
        with suppress(Exception):
            undo()
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(code)
