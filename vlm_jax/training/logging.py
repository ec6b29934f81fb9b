"""Progress for people, metrics for tools: a live line or plain ones, JSON Lines and TensorBoard."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOBase
from pathlib import Path

from vlm_jax.files import write_text
from vlm_jax.interrupts import discard, on_interrupt, terminal_gone
from vlm_jax.text_lines import read_lines


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events. On resume, lines after the restored step are dropped: each step once."""

    def __init__(self, folder: Path, *, start_step: int) -> None:
        from tensorboardX import SummaryWriter

        path = folder / "metrics.jsonl"
        if path.exists():
            write_text(path, "".join(_lines_up_to(path, start_step)))
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line for a step; a value that is not finite becomes null."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        for name in (name for name, value in finite.items() if value is not None):
            self._board.add_scalar(name if "/" in name else f"train/{name}", values[name], step)


def load_tensorboard() -> None:
    """Import what `MetricsLog` needs, which takes a second where PyTorch is installed."""
    import tensorboardX  # noqa: F401


def _lines_up_to(path: Path, last: int) -> Iterator[str]:
    for line in read_lines(path, errors="replace"):
        try:
            if json.loads(line)["step"] <= last:
                yield line + "\n"
        except (ValueError, TypeError, KeyError):  # a line cut short by a kill
            continue


def duration(seconds: float) -> str:
    """`1:02:03`, `2:03` or `45s`."""
    total_seconds = round(seconds)
    minutes, hours = total_seconds // 60, total_seconds // 3600
    if hours:
        return f"{hours}:{minutes % 60:02d}:{total_seconds % 60:02d}"
    return f"{minutes}:{total_seconds % 60:02d}" if minutes else f"{total_seconds}s"


class Progress:
    """Step, loss, accuracy where there is one, examples/s and time left.

    A live bar on a terminal, a plain line an interval elsewhere.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start_step: int = 0,
        stream: TextIOBase | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._first, self._clock = total_steps, start_step, clock
        self._stream = stream or sys.stdout
        self._last: tuple[int, float] | None = None
        self._bar: rich.progress.Progress | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Progress":
        if not self._stream.isatty():
            return self
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        console = Console(file=self._stream)
        if not console.is_dumb_terminal:  # one that cannot move its cursor gets plain lines
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            self._bar = Bar(*columns, console=console)
            self._task = self._bar.add_task("starting", total=self._total, completed=self._first)
            self._stack.enter_context(on_interrupt(undo=self._show_cursor))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._bar is not None:
            self._bar.stop()

    def _show_cursor(self) -> None:
        """The bar has hidden it, and a process that leaves at once does not stop the bar."""
        os.write(self._stream.fileno(), b"\x1b[?25h")

    def _print(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except OSError:
            if not terminal_gone():
                raise
            discard(self._stream.fileno())

    def update(self, step: int, values: dict[str, float]) -> None:
        """Report an interval that ended with this optimizer step."""
        now = self._clock()
        line = f"step {step}/{self._total}  loss {values['loss']:.4f}"
        if "accuracy" in values:
            line += f"  accuracy {values['accuracy']:.4f}"
        line += f"  {values['examples_per_second']:,.0f} examples/s"
        if self._last is not None and step > self._last[0]:
            # From the intervals behind, so that compiling does not count.
            rate = (now - self._last[1]) / (step - self._last[0])
            line += f"  ETA {duration(rate * (self._total - step))}"
        self._last = self._last or (step, now)
        if self._bar is None:
            self._print(line)
        else:
            self._bar.update(self._task, completed=step, description=line)

    def show(self, activity: str) -> None:
        """Say on the bar what goes on between steps, such as `validating`; plain lines do not say it."""
        if self._bar is not None:
            self._bar.update(self._task, description=activity)

    def write_line(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self._bar is None:
            self._print(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """Say that something is being compiled, and how long it took."""
        began = self._clock()
        self.write_line(f"compiling {what} ...")
        yield
        self.write_line(f"compiled {what} in {self._clock() - began:.1f} s")
