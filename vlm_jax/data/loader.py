"""Batches for training, endless and resumable, and for evaluation, every question once."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vlm_jax.data.answers import most_answers
from vlm_jax.data.batches import Row, make_batch
from vlm_jax.data.encoding import EncodedExamples, ExampleEncoder
from vlm_jax.errors import InputError
from vlm_jax.types import Batch, Example, LoadedBatch


class Shard(NamedTuple):
    """Which slice of each global batch a process prepares."""

    index: int = 0
    count: int = 1


class ReadAhead(NamedTuple):
    """Threads that prepare batches, and how many batches they are ahead of the caller."""

    threads: int = 2
    batches: int = 8


WHOLE, TRAINING = Shard(), ReadAhead()


@dataclasses.dataclass(frozen=True)
class _Loading:
    """From the places of a global batch, and a seed for each, to this process's share of it."""

    examples: EncodedExamples
    encode: ExampleEncoder
    start: int
    size: int

    def __call__(self, order: tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]) -> LoadedBatch:
        mine = slice(self.start, self.start + self.size)
        rows = []
        for position, seed in zip(*(column[mine].tolist() for column in order), strict=True):
            example, random = self.examples[position], np.random.Generator(np.random.PCG64(seed))
            rows.append(Row(example, self._choose(len(example.text_ids), random), random))
        return make_batch(rows, self.encode, size=self.size, start=self.start)

    def _choose(self, questions: int, random: np.random.Generator) -> Sequence[int]:
        """All questions where they fit, else a new sample of them without replacement."""
        slots = self.encode.texts_per_image
        return range(questions) if questions <= slots else random.permutation(questions)[:slots].tolist()


class TrainLoader(Iterator[LoadedBatch]):
    """Shuffled training batches without end; their content is a function of seed and step alone.

    Every process computes the same order and prepares its own contiguous slice of each global batch of
    `batch_images` images. Pickled, it goes on elsewhere after the last batch taken.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        encode: ExampleEncoder,
        *,
        seed: int,
        batch_images: int,
        shard: Shard = WHOLE,
        read_ahead: ReadAhead = TRAINING,
    ):
        if not len(examples):
            raise InputError("the training split holds no image")
        if batch_images % shard.count:
            raise InputError(
                f"training.batch_images {batch_images} does not divide into {shard.count} processes; the nearest "
                f"batch is {max(1, round(batch_images / shard.count)) * shard.count}"
            )
        size = batch_images // shard.count
        encode = dataclasses.replace(encode, augmented=True)
        self._load = _Loading(EncodedExamples(examples, encode), encode, shard.index * size, size)
        options = {"seed": seed, "batch_images": batch_images, "shard": shard, "read_ahead": read_ahead}
        self._made_of = examples, encode, options
        self._identity = {"seed": seed, "batch_images": batch_images, "images": len(examples)}
        self._step = 0
        self.seconds_waited = 0.0
        """Time that the caller has spent waiting for batches."""
        self._batches = iter(self._pipeline(seed, batch_images, read_ahead))

    def _pipeline(self, seed: int, batch_images: int, read_ahead: ReadAhead) -> Iterable[LoadedBatch]:
        import grain

        order = grain.MapDataset.range(len(self._load.examples)).seed(seed).shuffle().repeat()
        return (
            order.batch(batch_images, drop_remainder=True)  # endless: no remainder, but its length overflows without
            .random_map(_with_seeds)
            .map(self._load)
            .to_iter_dataset(grain.ReadOptions(*read_ahead))
        )

    def __next__(self) -> LoadedBatch:
        began = time.perf_counter()
        loaded = next(self._batches)
        self.seconds_waited += time.perf_counter() - began
        self._step += 1
        return loaded

    def like(self) -> Batch:
        """A batch with the shapes and types of every batch: of one example again and again, and blank for an image."""
        examples, encode, options = self._made_of
        example, blank = examples[0], np.zeros((*encode.image.size, 3), np.uint8)
        encode = dataclasses.replace(encode, cached=None)
        encoded = EncodedExamples(
            [example if example.image_tokens is not None else example._replace(image=blank)], encode
        )
        first = np.zeros(options["batch_images"], np.int64)
        return dataclasses.replace(self._load, examples=encoded, encode=encode)((first, first)).batch

    def state(self) -> dict[str, int]:
        """The position: batches that the caller has taken (never those read ahead), and what they depend on."""
        return {"step": self._step, **self._identity}

    def restore(self, state: dict[str, int]) -> None:
        """Continue after the last batch taken when `state` was; `InputError` if the order would differ."""
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise InputError(f"the saved data order has {name} {state.get(name)}, this run {value}; give the same")
        self._step = state["step"]
        self._batches.set_state({"next_index": self._step})

    def close(self) -> None:
        """Stop the threads."""
        self._batches.close()

    def __reduce__(self) -> tuple[Callable[..., "TrainLoader"], tuple]:
        return _restored, (*self._made_of, self.state())


def _restored(
    examples: Sequence[Example], encode: ExampleEncoder, options: dict[str, object], state: dict[str, int]
) -> TrainLoader:
    loader = TrainLoader(examples, encode, **options)
    loader.restore(state)
    return loader


def _with_seeds(
    positions: Int[np.ndarray, " B"], random: np.random.Generator
) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    return positions, random.integers(2**63, size=len(positions))


class EvaluationBatches:
    """Every question of a split exactly once and in order, without augmentation; can be iterated again.

    An image with more than K questions takes several rows. The last batch is filled with rows of weight 0.
    Threads prepare batches ahead of the caller.
    """

    def __init__(self, examples: Sequence[Example], encode: ExampleEncoder, *, batch_images: int, threads: int = 2):
        encode = dataclasses.replace(encode, accepted_answers=most_answers(examples))
        self._examples, self._encode = EncodedExamples(examples, encode), encode
        self._batch_images, self._read_ahead = batch_images, ReadAhead(threads, 4)
        slots = encode.texts_per_image
        self._rows = [
            (position, range(first, min(first + slots, len(example.texts))))
            for position, example in enumerate(examples)
            for first in range(0, len(example.texts), slots)
        ]

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_images)

    def __getitem__(self, index: int) -> LoadedBatch:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        first = index * self._batch_images
        rows = [Row(self._examples[p], questions) for p, questions in self._rows[first : first + self._batch_images]]
        return make_batch(rows, self._encode, size=self._batch_images)

    def __iter__(self) -> Iterator[LoadedBatch]:
        import grain

        batches = iter(grain.MapDataset.source(self).to_iter_dataset(grain.ReadOptions(*self._read_ahead)))
        try:
            yield from batches
        finally:
            batches.close()
