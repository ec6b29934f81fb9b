"""Images a second: masked parallel decoding against one code after the other with a cache.

`python -m experiments.benchmark_generate configs/shape_scenes_generation.py`: the config's model with fresh weights,
which are as fast as trained ones, under the patterns `text_to_image` and `autoregressive`, and drawn as the config
says, one candidate each. All ways take turns, so that whatever else the machine does slows each; figures are medians.
Codes only: pixels cost all ways the same. A round of revisions costs as much as eight steps.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from vlm_jax.command_line import run_command
from vlm_jax.config.image_generation import Autoregressive, ImageGeneration, Masked
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.changes import with_changes
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group
from vlm_jax.settings.presets import load_preset

SAMPLE_SECONDS = 0.5


class Benchmark(Group):
    """Images a second by steps, guidance scale and batch, and those of the autoregressive row with its cache."""

    config: Annotated[Path, POSITIONAL]
    """A config file of the task image_generation."""
    steps: tuple[int, ...] = (4, 8, 12, 16, 32)
    """Numbers of steps of masked decoding."""
    guidance_scale: tuple[float, ...] = (1.0, 3.0)
    """Guidance scales; all above 1 cost the same, twice that of 1."""
    batch: tuple[int, ...] = (1, 16)
    """Images drawn at a time."""
    rounds: int = 7
    """Samples of each way."""
    json_: bool = False
    """One line of JSON instead of a table."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Benchmark, prog=command_name("benchmark_generate"))
    for name in ("steps", "batch", "rounds"):
        value = getattr(arguments, name)
        if min(value if isinstance(value, tuple) else (value,), default=0) < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    config = load_preset(arguments.config, TASKS)
    if not isinstance(config, ImageGeneration):
        raise InputError(f"{config.name} is of the task {config.task!r}; give one of image_generation")
    rows = [
        row
        for batch in arguments.batch
        for row in measure(config, batch, arguments.steps, arguments.guidance_scale, arguments.rounds)
    ]
    print(json.dumps(rows) if arguments.json_ else _table(rows))
    return 0


def measure(
    config: ImageGeneration, batch: int, steps: Sequence[int], guidance_scales: Sequence[float], rounds: int
) -> list[dict[str, Any]]:
    """A row for each way of drawing `batch` images: seconds (median, least, most) and images a second."""
    ways: list[tuple[str, Masked | Autoregressive]] = [
        ("masked", Masked(num_decoding_steps=count, guidance_scale=scale))
        for scale in guidance_scales
        for count in steps
    ]
    ways += [("autoregressive", Autoregressive(guidance_scale=scale)) for scale in guidance_scales]
    ways += [("config", config.generation)]
    calls = [_generation_call(config, batch, generation) for _, generation in ways]
    compile_seconds = [_seconds(call, 1) for call in calls]
    repeats = [max(1, round(SAMPLE_SECONDS / _seconds(call, 1))) for call in calls]
    samples = [[_seconds(call, count) for call, count in zip(calls, repeats, strict=True)] for _ in range(rounds)]
    rows = []
    for (way, settings), compiled, seconds in zip(ways, compile_seconds, zip(*samples, strict=True), strict=True):
        median = statistics.median(seconds)
        names = {"way": way, "steps": getattr(settings, "num_decoding_steps", None)}
        names |= {"guidance_scale": settings.guidance_scale}
        names["num_refinement_rounds"] = getattr(settings, "num_refinement_rounds", 0)
        times = {"seconds": median, "least": min(seconds), "most": max(seconds), "compile_seconds": compiled}
        rows.append({"batch": batch, **names, "images_per_second": batch / median, **times})
    return rows


def _generation_call(config: ImageGeneration, batch: int, generation: Masked | Autoregressive) -> Callable[[], None]:
    import jax
    import jax.numpy as jnp

    from vlm_jax.decoding import ImageTokenDecoder
    from vlm_jax.models.vlm import VisualLanguageModel

    config = with_changes(config, {"generation": generation})
    codebook_size = config.image_tokenizer.quantizer.codebook_size
    grid = config.image_tokenizer.grid_size(config.image.size)
    model = VisualLanguageModel(config.architecture, codebook_size)
    ids = jnp.ones((batch, config.model.text.max_length), jnp.int32)
    shown = ids.astype(bool)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, *grid), int), ids[:1, None], shown[:1, None]))
    empty = (ids[0] * 0, jnp.arange(ids.shape[1]) < 2)
    generate = ImageTokenDecoder(
        model,
        generation,
        grid=grid,
        codebook_size=codebook_size,
        empty=empty,
    )
    inputs = (init(jax.random.key(0)), ids, shown, jax.random.split(jax.random.key(1), batch))
    return lambda: jax.block_until_ready(generate(*inputs))


def _seconds(call: Callable[[], None], count: int) -> float:
    """Of one call, over `count` of them."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


def _table(rows: Sequence[dict[str, Any]]) -> str:
    import jax

    lines = [
        f"{'batch':>5s}  {'way':6s}  {'steps':>5s}  {'guidance':>8s}  {'refined':>9s}  {'pictures/s':>10s}  "
        f"{'ms a picture':>12s}  range"
    ]
    for row in rows:
        median, least, most = (1000 * row[name] / row["batch"] for name in ("seconds", "least", "most"))
        lines.append(
            f"{row['batch']:5d}  {row['way']:6s}  {row['steps'] or '-':>5}  {row['guidance_scale']:8g}  "
            f"{row['num_refinement_rounds']:9d}  "
            f"{row['images_per_second']:10.1f}  {median:12.2f}  {least:.2f} to {most:.2f}"
        )
    return "\n".join([*lines, f"on {jax.devices()[0].device_kind}, compile time apart"])


if __name__ == "__main__":
    run_command(main)
