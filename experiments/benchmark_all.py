"""Every row of the performance table by one command: `python -m experiments.benchmark_all --quick`.

Each row is measured by the benchmark that has its name, where our side and its peer take turns. A row says how far the
ratio moved from round to round. Where it moved too far, the machine was too noisy to tell, and the row says that in the
place of a ratio. Rows for a GPU are measured where there is one, and elsewhere stand in the table with their commands.
"""

import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError, one_of
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import Group
from vlm_jax.settings.rules import Count
from vlm_jax.text_lines import split_lines
from vlm_jax.types import Json

from .benchmark_sides import Child

NOISY = 0.25
"""A ratio whose middle half is wider than this share of its median tells nothing."""
MIB = 2**20
ROOF_SIDE = 2048  # of the square matrices whose product gives the roof of arithmetic
ROOF_BYTES = 2**28  # of the array whose sum gives the roof of memory
HEADER = "| what | ours | peer | ours / peer | middle half of the ratio | roof | ours / roof |"


class Benchmark(Group):
    """The performance table as Markdown: ours, peer, ratio, spread and roof, with date and machine above it."""

    quick: bool = False
    """Small models."""
    full: bool = False
    """All models."""
    only: tuple[str, ...] = ()
    """Only the rows whose command holds one of these words."""
    rounds: Count = 7
    """Samples of each side, at least 2."""
    json_: bool = False
    """One line of JSON a row instead of the table."""


class Figures(NamedTuple):
    """What one row has to say, in seconds."""

    name: str
    ours: float
    peer: float | None = None
    ratios: Sequence[float] = ()
    """Ours / peer, of each round."""
    roof: float | None = None
    """What the same arithmetic and memory take at the rates of this machine."""
    note: str = ""


class Roof(NamedTuple):
    """The rates of this machine, measured."""

    flops: float
    """Of float32 products, a second."""
    bytes: float
    """Read, a second."""

    def seconds(self, flops: float, num_bytes: float) -> float:
        """The least time for so much arithmetic and so many bytes read."""
        return max(flops / self.flops, num_bytes / self.bytes)


class Row(NamedTuple):
    """A benchmark's command without `python -m`, and how its lines of JSON are read."""

    command: str
    read: Callable[[list[dict[str, Json]], Roof], Iterator[Figures]]
    full: bool = False
    """Only with `--full`."""
    gpu: bool = False
    """Only on a GPU."""
    cached: bool = False
    """Run twice: the second process loads compiled programs from disk."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Benchmark, prog=command_name("benchmark_all"))
    if arguments.quick == arguments.full:
        raise InputError("give --quick (small models) or --full (all models)")
    if arguments.rounds < 2:
        raise InputError(f"--rounds is {arguments.rounds}; a spread needs at least 2")
    rows = [row for row in ROWS if not arguments.only or any(word in row.command for word in arguments.only)]
    if not rows:
        raise InputError(f"--only {' '.join(arguments.only)} is in no command: {one_of({row.command for row in ROWS})}")
    rates = Child(Rates).metadata
    roof, has_gpu = Roof(rates["flops"], rates["bytes"]), rates["device"] != "cpu"
    if not arguments.json_:
        speed = f"{roof.flops / 1e9:.0f} GFLOP/s in float32 products, {roof.bytes / 1e9:.0f} GB/s read"
        rule = "|---" * (HEADER.count("|") - 1) + "|"
        print(f"{datetime.date.today()}, {_machine()}: {speed}\n\n{HEADER}\n{rule}", flush=True)
    for row in rows:
        if row.full and not arguments.full:
            continue
        if row.gpu != has_gpu:
            if not arguments.json_:
                print(f"| `{row.command}`, on a {'GPU' if row.gpu else 'CPU'} | not measured here | | | | | |")
            continue
        for figures in row.read(_lines(row, arguments.rounds), roof):
            print(json.dumps(figures._asdict()) if arguments.json_ else _text(figures), flush=True)
    return 0


class Rates:
    """The rates of this machine, as a child process measures them: the fastest of a few tries."""

    def __init__(self) -> None:
        import jax
        import jax.numpy as jnp

        square, rows = jnp.ones((ROOF_SIDE, ROOF_SIDE)), jnp.ones((64, ROOF_BYTES // 256))
        product = jax.jit(partial(jnp.matmul, precision="highest"))
        total = jax.jit(lambda x: x.sum(1))
        self.metadata = {
            "device": jax.default_backend(),
            "flops": 2 * ROOF_SIDE**3 / _fastest(lambda: jax.block_until_ready(product(square, square))),
            "bytes": ROOF_BYTES / _fastest(lambda: jax.block_until_ready(total(rows))),
        }


def _fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(8):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def _machine() -> str:
    from vlm_jax.training.evaluation import processor

    return f"{len(os.sched_getaffinity(0))} cores of {processor()}"


def _lines(row: Row, rounds: int) -> list[dict[str, Json]]:
    """What the benchmark prints, as JSON."""
    command = [sys.executable, "-m", *row.command.split(), "--json", "true", "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as folder:
        keep = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for _ in range(1 + row.cached):
            environment = os.environ | (keep if row.cached else {})
            ended = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True)
            if ended.returncode:
                raise InputError(f"python -m {row.command} failed with exit code {ended.returncode}")
    lines = [json.loads(line) for line in split_lines(ended.stdout) if line.startswith(("{", "["))]
    return list(itertools.chain.from_iterable(line if isinstance(line, list) else [line] for line in lines))


def _step(rows: list[dict[str, Json]], roof: Roof, note: str = "") -> Iterator[Figures]:
    for row in rows:
        ours, peer = row["ours"], row["torch"]
        name = f"{row['config']}: a train step, {row['batch_images']} images, {ours['devices']} device(s){note}"
        memory = f"{ours['peak_bytes'] / MIB:,.0f} / {peer['peak_bytes'] / MIB:,.0f} MiB"
        least = roof.seconds(ours["flops"], 0)
        yield Figures(name, ours["seconds_a_step"], peer["seconds_a_step"], row["ratios"], least, memory)


def _cached_step(rows: list[dict[str, Json]], roof: Roof) -> Iterator[Figures]:
    yield from _step(rows, roof, ", loaded from disk")


def _decode(rows: list[dict[str, Json]], roof: Roof) -> Iterator[Figures]:
    for row in rows:
        how = "greedy" if row["beams"] == 1 else f"{row['beams']} beams"
        name = f"{row['words']} words, {row['size']}, batch {row['batch']}, {how}"
        least = row["words"] * roof.seconds(row["word_flops"], row["word_bytes"]) + roof.seconds(row["image_flops"], 0)
        yield Figures(name, row["ours_seconds"], row["transformers_seconds"], row["ratios"], least)


def _loader(rows: list[dict[str, Json]], roof: Roof) -> Iterator[Figures]:
    ways = {row["way"]: row for row in rows}
    for ours, peer in (("JPEG files", "DataLoader, JPEG files"), ("cached images", "DataLoader, decoded")):
        ratios = [a / b for a, b in zip(ways[ours]["samples"], ways[peer]["samples"], strict=True)]
        yield Figures(f"an image of the loader, {ours}, processor time", ways[ours]["cpu_ms"] / 1e3,
                      ways[peer]["cpu_ms"] / 1e3, ratios)  # fmt: skip


ROWS = (
    Row("experiments.benchmark_train_step quickstart", _step),
    Row("experiments.benchmark_train_step quickstart", _cached_step, cached=True),
    Row("experiments.benchmark_train_step quickstart --devices 1", _step),
    Row("experiments.benchmark_decode --size small", _decode),
    Row("experiments.benchmark_loader", _loader),
    Row("experiments.benchmark_train_step reference_base --devices 1", _step, full=True),
    Row("experiments.benchmark_decode --size base", _decode, full=True),
    Row("experiments.benchmark_train_step quickstart", _step, gpu=True),
    Row("experiments.benchmark_train_step reference_base --batch-images 32", _step, gpu=True),
    Row("experiments.benchmark_decode --size base", _decode, gpu=True),
)


def _text(figures: Figures) -> str:
    ratio, spread = "", ""
    if figures.ratios:
        low, middle, high = statistics.quantiles(figures.ratios, n=4, method="inclusive")
        is_noisy = high - low > NOISY * middle
        ratio, spread = "too noisy to tell" if is_noisy else f"{middle:.2f}", f"{low:.2f} to {high:.2f}"
    roof = ["", ""] if figures.roof is None else [_seconds(figures.roof), f"{figures.ours / figures.roof:.1f}"]
    peer = "" if figures.peer is None else _seconds(figures.peer)
    name = f"{figures.name}; {figures.note}" if figures.note else figures.name
    return f"| {' | '.join([name, _seconds(figures.ours), peer, ratio, spread, *roof])} |"


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


if __name__ == "__main__":
    run_command(main)
