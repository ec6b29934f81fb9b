"""Which images of your own can be decoded: looked into once, then remembered until a file changes."""

import sys

from vlm_jax.data.file_cache import digest, fingerprint, read_cache, write_cache
from vlm_jax.data.image_inspection import inspect_images, name_of
from vlm_jax.data.images import MOST_ELONGATED
from vlm_jax.data.settings import UserDataset
from vlm_jax.data.user_files.rows import BadRow, Reading
from vlm_jax.errors import counted
from vlm_jax.types import Example

ANNOUNCED = 2000  # images; fewer take a few seconds


def without_unreadable(reading: Reading, data: UserDataset) -> Reading:
    """The reading without images that cannot be decoded, each of which has become a bad row with its questions' ids.

    A damaged image would stop a training in its midst otherwise. What was found good is remembered below
    `data.directory`, by size and time of the file.
    """
    name = f"{digest(str(data.images))}-{data.max_pixels}-{MOST_ELONGATED}.txt"
    cache_file = data.directory.expanduser() / "checked_images" / name
    known = read_cache(cache_file)
    fingerprints = [fingerprint(example.image) for example in reading.examples]
    new = [example for example, its in zip(reading.examples, fingerprints, strict=True) if its not in known]
    if not new:
        return reading
    if len(new) > ANNOUNCED:
        print(f"looking into {len(new):,} images (once)", file=sys.stderr, flush=True)
    inspection = inspect_images(new, max_pixels=data.max_pixels, threads=data.threads, name="the image")
    reasons = inspection.unreadable
    write_cache(cache_file, known | {fingerprint(example.image) for example in new if example.image_id not in reasons})
    good = tuple(example for example in reading.examples if example.image_id not in reasons)
    text = "question" if data.texts == "questions" else "caption"
    bad = [_bad_row(example, text, reasons[example.image_id]) for example in new if example.image_id in reasons]
    return Reading(good, (*reading.bad_rows, *bad))


def _bad_row(example: Example, text: str, reason: str) -> BadRow:
    first = ", ".join(text.text_id for text in example.texts[:3])
    more = f" and {len(example.texts) - 3:,} more" if len(example.texts) > 3 else ""
    what = text if len(example.texts) == 1 else f"{counted(len(example.texts), text)}:"
    return BadRow(name_of(example), f"{what} {first}{more}", reason)
