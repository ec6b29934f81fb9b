"""Which pictures of your own can be decoded: looked into once, then remembered until a file changes."""

import hashlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlm_jax.config import Data
from vlm_jax.data.images import decode_image
from vlm_jax.data.rows import BadRow, Reading, counted
from vlm_jax.errors import InputError
from vlm_jax.text_lines import read_lines
from vlm_jax.types import Example

ANNOUNCED = 2000  # pictures; fewer take a few seconds


def without_unreadable(reading: Reading, data: Data) -> Reading:
    """The reading without pictures that cannot be decoded, each of which has become a bad row with its questions' ids.

    A damaged picture would stop a training in its midst otherwise. What was found good is remembered below
    `data.directory`, by size and time of the file.
    """
    memory = (
        Path(data.directory).expanduser()
        / "checked_pictures"
        / f"{_digest(data.files.images)}-{data.image.max_pixels}.txt"
    )
    known = _recall(memory)
    marks = [_mark(example) for example in reading.examples]
    new = [example for example, mark in zip(reading.examples, marks, strict=True) if mark not in known]
    if not new:
        return reading
    if len(new) > ANNOUNCED:
        print(f"looking into {len(new):,} pictures (once)", file=sys.stderr, flush=True)
    reasons = _look(new, data)
    _remember(memory, known | {_mark(example) for example in new if example.image_id not in reasons})
    good = tuple(example for example in reading.examples if example.image_id not in reasons)
    bad = [_bad_row(example, reasons[example.image_id]) for example in new if example.image_id in reasons]
    return Reading(good, (*reading.bad_rows, *bad))


def _look(examples: Sequence[Example], data: Data) -> dict[str, str]:
    """Why a picture cannot be decoded, by its id."""

    def reason(example: Example) -> str | None:
        try:
            decode_image(example.image, name="the picture", max_pixels=data.image.max_pixels)
        except InputError as error:
            return str(error)
        return None

    pool = ThreadPoolExecutor(data.threads)
    try:
        found = zip(examples, pool.map(reason, examples), strict=True)
        return {example.image_id: why for example, why in found if why is not None}
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted look ends at once


def _bad_row(example: Example, reason: str) -> BadRow:
    first = ", ".join(question.question_id for question in example.questions[:3])
    more = f" and {len(example.questions) - 3:,} more" if len(example.questions) > 3 else ""
    text = "question" if example.questions[0].answers else "caption"
    what = text if len(example.questions) == 1 else f"{counted(len(example.questions), text)}:"
    return BadRow(str(example.image), f"{what} {first}{more}", reason)


def _mark(example: Example) -> str:
    """A picture as it is now: another one of the same name has another mark."""
    assert isinstance(example.image, Path)
    try:
        state = example.image.stat()
    except OSError as error:
        return f"gone {error.errno} {_digest(str(example.image))}"
    return f"{state.st_size} {state.st_mtime_ns} {_digest(str(example.image))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _recall(memory: Path) -> set[str]:
    try:
        return set(read_lines(memory))
    except (OSError, ValueError):
        return set()


def _remember(memory: Path, marks: set[str]) -> None:
    """Written beside and renamed, so that a second process reads a whole file; without a place, it is not kept."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        beside = memory.with_suffix(f".{os.getpid()}")
        beside.write_text("\n".join(sorted(marks)) + "\n", encoding="ascii")
        beside.replace(memory)
    except OSError as error:
        print(f"note: cannot keep which pictures are good in {memory}: {error.strerror}", file=sys.stderr)
