"""Time and memory of an import of BERT-base size: `python -m experiments.benchmark_port`.

A model of random weights (110 M parameters, 438 MB) is written to a temporary folder. The command imports it in a
process of its own, `--runs` times. Processes of their own then make JAX arrays of the file: by a port, the sha256
apart, and by a loader of ten lines.
"""

import importlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import Group

SETTINGS = {
    "model_type": "bert", "vocab_size": 30_522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2,
}  # fmt: skip
MIB = 2**20


class Benchmark(Group):
    """Measure `port import` on a random BERT of base size."""

    runs: int = 3
    """Imports, of which the median counts."""


def main(argv: list[str]) -> int:
    options = parse_options(argv, Benchmark, prog=command_name("benchmark_port"))
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        size = _write_model(source)
        seconds, peaks = zip(
            *(_import(source, Path(temporary) / f"import_{i}") for i in range(options.runs)), strict=True
        )
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            arrays = {
                way.__name__: [pool.apply(_measured, (way, source)) for _ in range(options.runs)]
                for way in (_port, _ten_lines)
            }
    median, peak = statistics.median(seconds), statistics.median(peaks)
    print(f"source            {size / MIB:8.0f} MiB")
    print(f"import, median    {median:8.2f} s ({min(seconds):.2f} to {max(seconds):.2f}, {options.runs} runs)")
    print(f"peak memory       {peak / MIB:8.0f} MiB, {peak / size:.2f} times the source")
    for way, figures in arrays.items():
        cpu, peak = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"arrays, {way[1:]:10s}{cpu:8.2f} s CPU, peak of anonymous memory {peak / size:.2f} times the source")
    return 0


def _measured(way, folder):
    """CPU seconds, and the peak of anonymous bytes, of one way to make JAX arrays of a folder's weights."""
    import threading

    import jax
    import jax.numpy as jnp

    from vlm_jax.weights import source

    importlib.import_module("vlm_jax.weights.import_folder")  # what is imported is not measured
    source.sha256 = lambda file: "0" * 64
    jax.block_until_ready(jnp.ones(3) + 1)
    begin, peak, ended = _anonymous(), [0], threading.Event()

    def watch():
        while not ended.wait(0.002):
            peak[0] = max(peak[0], _anonymous())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    seconds = time.process_time()
    arrays = way(folder)
    seconds = time.process_time() - seconds
    ended.set()
    thread.join()
    del arrays
    return seconds, peak[0] - begin


def _anonymous():
    lines = Path("/proc/self/status").read_text(encoding="utf-8").split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def _port(folder):
    import jax
    import jax.numpy as jnp

    from vlm_jax.weights.import_folder import read

    return jax.block_until_ready(jax.tree.map(jnp.asarray, read(str(folder)).params))


def _ten_lines(folder):
    import jax
    import jax.numpy as jnp
    import numpy as np

    content = np.memmap(folder / "model.safetensors", np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    arrays = {}
    for name, entry in json.loads(content[8:start].tobytes()).items():
        if entry.get("dtype") == "F32":
            begin, end = (start + offset for offset in entry["data_offsets"])
            x = content[begin:end].view(np.float32).reshape(entry["shape"])
            x = x.T if x.ndim == 2 and "embedding" not in name else x
            arrays[name] = jax.block_until_ready(jnp.asarray(x))
    return arrays


def _write_model(folder):
    """A BertModel's files; the bytes of its tensors."""
    import numpy as np
    from safetensors.numpy import save_file

    from vlm_jax.weights.bert import BERT
    from vlm_jax.weights.converted_model import shapes
    from vlm_jax.weights.family import PublishedFile
    from vlm_jax.weights.source import Tensors
    from vlm_jax.weights.tables import export_tensors

    architecture = BERT.settings(PublishedFile(SETTINGS, {}, Tensors([]), "BertModel", ("pooler",)))
    random = np.random.default_rng(0)
    params = {
        path: random.normal(0, 0.02, leaf.shape).astype(np.float32) for path, leaf in shapes(architecture).items()
    }
    tensors = export_tensors(params, {}, BERT.rows(architecture))
    folder.mkdir()
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return sum(x.nbytes for x in tensors.values())


def _import(source, output):
    """Seconds and peak resident bytes of the command."""
    command = [sys.executable, "-m", "vlm_jax", "port", "import", str(source), "--output", str(output)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise RuntimeError(f"the import ended with status {status}")
    return seconds, usage.ru_maxrss * 1024


if __name__ == "__main__":
    run_command(main)
