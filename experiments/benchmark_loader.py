"""CPU time of an image from the disk to a batch: `python -m experiments.benchmark_loader`.

JPEG files are made for the purpose, of smooth noise. Batches are taken of the files themselves, of the cache of decoded
images, of stored features [7, 7, 2048], and by PyTorch's DataLoader from the files, as well as its DataLoader from
decoded images in memory. All take turns, so that whatever else the machine does slows each; figures are medians of CPU
time, threads included.
"""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import Group
from vlm_jax.settings.rules import Count

if TYPE_CHECKING:
    from vlm_jax.config.vqa import VQA
    from vlm_jax.data.encoding import ExampleEncoder
    from vlm_jax.types import Example

FEATURES = (7, 7, 2048)  # a ResNet-50's of 224 pixels
Batches = Iterator[object]


class Benchmark(Group):
    """CPU time of an image from JPEG files, from both caches and by PyTorch's DataLoader."""

    images: Count = 1024
    """JPEG files that are made; to shuffle few takes Grain longer than to shuffle many."""
    file_size: tuple[Count, Count] = (375, 500)
    """Height and width of a file."""
    size: Count = 224
    """Side of the model's image."""
    batch: Count = 32
    """Images of a batch."""
    batches: Count = 32
    """Batches of a sample, after as many as hold all images once."""
    rounds: Count = 5
    """Samples of each way."""
    threads: Count = 2
    """Threads that make batches; PyTorch's are made where they are taken."""
    json_: bool = False
    """One line of JSON instead of a table."""


def main(argv: list[str]) -> int:
    options = parse_options(argv, Benchmark, prog=command_name("benchmark_loader"))

    from vlm_jax.allocator import tune_malloc

    tune_malloc()  # as training does
    with tempfile.TemporaryDirectory() as folder, _kept_in_memory(options.images * 2**10 + 1):
        ways = _ways(options, Path(folder))
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, start in ways.items():
                samples[name].append(_sample(start, options))
    rows = [_row(name, times) for name, times in samples.items()]
    print(json.dumps(rows) if options.json_ else _table(rows, options))
    return 0


@contextmanager
def _kept_in_memory(most: int) -> Iterator[None]:
    """Within the block files are decoded each time, as those of a data set that is too large to be kept decoded."""
    from vlm_jax.data import encoding

    before, encoding.KEEP_BYTES = encoding.KEEP_BYTES, most
    try:
        yield
    finally:
        encoding.KEEP_BYTES = before


def _sample(start: Callable[[], Batches], options: Benchmark) -> tuple[float, float]:
    """Milliseconds of CPU time and of waiting for an image, after a first pass over all of them."""
    batches = start()
    next(itertools.islice(batches, 1 + options.images // options.batch, None))
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(options.batches):
        next(batches)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    batches.close()
    count = options.batches * options.batch
    return 1000 * cpu / count, 1000 * wall / count


def _ways(options: Benchmark, folder: Path) -> dict[str, Callable[[], Batches]]:
    from vlm_jax.data.sources import open_split

    config = _config(options, folder)
    examples = open_split(config.data, "train")
    plain = _encoder(config, examples)
    ways = {
        "JPEG files": plain,
        "cached images": _with_cache(plain, config, examples),
        "stored features": _with_features(plain, config, examples, folder),
    }
    starts = {name: _loader(encode, examples, options) for name, encode in ways.items()}
    return starts | _torch_ways(config, examples, options)


def _config(options: Benchmark, folder: Path) -> "VQA":
    from PIL import Image

    from vlm_jax.config.vqa import VQA
    from vlm_jax.data.image_settings import AugmentedImages
    from vlm_jax.data.user_files.table import TableQuestions

    (folder / "images").mkdir()
    random, rows = np.random.default_rng(0), []
    for number in range(options.images):
        noise = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        noise.resize(options.file_size[::-1]).save(folder / "images" / f"{number}.jpg", quality=90)
        rows.append(json.dumps({"image": f"{number}.jpg", "question": "what is it?", "answer": str(number % 10)}))
    file = folder / "rows.jsonl"
    file.write_text("\n".join(rows), encoding="utf-8")
    data = TableQuestions(
        images=folder / "images", train=(file,), validation=(file,), test=(file,), directory=folder / "directory"
    )
    image = AugmentedImages(
        size=(options.size, options.size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True
    )
    return VQA(data=data, image=image)


def _encoder(config: "VQA", examples: "Sequence[Example]") -> "ExampleEncoder":
    from vlm_jax.data.answers import AnswerVocabulary
    from vlm_jax.data.encoding import ExampleEncoder
    from vlm_jax.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.build(["what is it?"], 64)
    return ExampleEncoder(tokenizer, AnswerVocabulary.build(examples), config.image, max_length=16, texts_per_image=1)


def _with_cache(plain: "ExampleEncoder", config: "VQA", examples: "Sequence[Example]") -> "ExampleEncoder":
    import dataclasses

    from vlm_jax.data.cached_images import cache_images

    return dataclasses.replace(plain, cached=cache_images([examples], plain, config.data))


def _with_features(
    plain: "ExampleEncoder", config: "VQA", examples: "Sequence[Example]", folder: Path
) -> "ExampleEncoder":
    import dataclasses

    from vlm_jax.data.cached_images import key_images
    from vlm_jax.data.feature_rows import StoredFeatures
    from vlm_jax.data.row_store import RowStore

    store = RowStore(folder / "features", {"shape": list(FEATURES), "dtype": "float16"})
    places, keys = key_images([examples], config.data)
    row = np.random.default_rng(0).normal(size=FEATURES).astype(np.float16)
    with store.writing() as append:
        for key in places:
            append(key, row)
    return dataclasses.replace(plain, cached=StoredFeatures(store, keys))


def _loader(encode: "ExampleEncoder", examples: "Sequence[Example]", options: Benchmark) -> Callable[[], Batches]:
    from vlm_jax.data.loader import ReadAhead, TrainLoader

    def start() -> Batches:
        ahead = ReadAhead(options.threads, 4)
        return TrainLoader(examples, encode, seed=0, batch_images=options.batch, read_ahead=ahead)

    return start


def _torch_ways(config: "VQA", examples: "Sequence[Example]", options: Benchmark) -> dict[str, Callable[[], Batches]]:
    """PyTorch's DataLoader of the same files, and of decoded images in memory; normalised as torchvision does it."""
    try:
        import torch
    except ImportError:
        raise InputError("the benchmark compares with PyTorch, which is not installed; install torch") from None
    from vlm_jax.data.images import decode_image, resize_image

    torch.set_num_threads(1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.image.mean, config.image.std))

    def pixels(example: "Example") -> np.ndarray:
        return resize_image(decode_image(example.image, max_pixels=10**8), config.image)

    def tensor(image: np.ndarray) -> torch.Tensor:
        return (torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 - mean) / std

    decoded = [pixels(example) for example in examples]
    sources = {
        "DataLoader, JPEG files": [lambda example=example: tensor(pixels(example)) for example in examples],
        "DataLoader, decoded": [lambda image=image: tensor(image) for image in decoded],
    }

    class Images(torch.utils.data.Dataset):
        def __init__(self, makers: list[Callable[[], torch.Tensor]]) -> None:
            self.makers = makers

        def __len__(self) -> int:
            return len(self.makers)

        def __getitem__(self, index: int) -> torch.Tensor:
            return self.makers[index]()

    def endless(makers: list[Callable[[], torch.Tensor]]) -> Batches:
        while True:
            yield from torch.utils.data.DataLoader(Images(makers), options.batch, shuffle=True, drop_last=True)

    return {name: lambda makers=makers: endless(makers) for name, makers in sources.items()}


def _row(name: str, times: list[tuple[float, float]]) -> dict[str, str | float | list[float]]:
    cpu, wall = (sorted(column) for column in zip(*times, strict=True))
    return {
        "way": name, "cpu_ms": statistics.median(cpu), "least": cpu[0], "most": cpu[-1],
        "wall_ms": statistics.median(wall), "samples": [own for own, _ in times],
    }  # fmt: skip


def _table(rows: list[dict[str, str | float]], options: Benchmark) -> str:
    height, width = options.file_size
    lines = [f"{'way':24s}  {'CPU-ms an image':>15s}  {'range':>14s}  {'wall-ms an image':>16s}"]
    for row in rows:
        span = f"{row['least']:.3f} to {row['most']:.3f}"
        lines.append(f"{row['way']:24s}  {row['cpu_ms']:15.3f}  {span:>14s}  {row['wall_ms']:16.3f}")
    return "\n".join(
        [*lines, f"JPEG files of {height} x {width}, images of {options.size} pixels, {options.threads} threads"]
    )


if __name__ == "__main__":
    run_command(main)
