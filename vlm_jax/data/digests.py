"""What the images and texts of a split are, wherever they lie: digests that a run keeps and later starts compare."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from vlm_jax.data.file_cache import digest, fingerprint, read_cache, write_cache
from vlm_jax.data.images import read_image_file
from vlm_jax.data.records import Examples
from vlm_jax.data.settings import DataSet
from vlm_jax.errors import InputError, counted
from vlm_jax.files import sha256, text_sha256
from vlm_jax.types import Example, Json, StoredImage

FORMAT = 1  # of what is remembered of prepared splits
DIGITS = 16  # of an item's digest: enough to tell items of one split apart


class SplitDigest(NamedTuple):
    """The content of a split, without paths, ids and kinds of texts, which change no parameter."""

    sha256: str
    """Of the digests of all items, in order."""
    images: int
    texts: int
    limit: int | None
    """The largest number of images that the split could have."""
    items: dict[str, str]
    """By image id, in order: a digest of the image, its texts and their answers."""

    def first(self, limit: int | None) -> "SplitDigest":
        """That of the first `limit` images; its `texts` are those of the whole."""
        items = dict(list(self.items.items())[:limit])
        return self._replace(sha256=_of(items.values()), images=len(items), items=items)


def digest_split(examples: Sequence[Example], data: DataSet, split: str) -> SplitDigest:
    """The digest of a split as `open_split` opened it.

    What was found is remembered below `data.directory`: of image files by path, size and time, of a prepared data set
    by those of its records.
    """
    limit = data.limit_of(split)
    if not isinstance(examples, Examples):
        return _digest_items(examples, image_digests(examples, data), limit)
    fingerprints = [FORMAT, limit, *examples.depends_on, *map(fingerprint, examples.files)]
    cache_file = _folder(data) / "split_digests" / f"{digest(json.dumps(fingerprints))}.json"
    try:
        return SplitDigest(**json.loads("".join(read_cache(cache_file))))
    except (ValueError, TypeError):
        split_digest = _digest_items(examples, image_digests(examples, data), limit)
    write_cache(cache_file, [json.dumps(split_digest._asdict())])
    return split_digest


def image_digests(examples: Sequence[Example], data: DataSet) -> list[str]:
    """The SHA-256 of each image's file, in order; a file that has not changed since it was read is not opened."""
    if not isinstance(examples, Examples):
        return _digest_images(examples, data)
    fingerprints = [FORMAT, len(examples), *examples.depends_on, *map(fingerprint, examples.files)]
    cache_file = _folder(data) / "image_digests" / f"{digest(json.dumps(fingerprints))}.json"
    try:
        digests = json.loads("".join(read_cache(cache_file)))
    except ValueError:
        digests = _digest_images(examples, data)
        write_cache(cache_file, [json.dumps(digests)])
    return digests


def _digest_images(examples: Sequence[Example], data: DataSet) -> list[str]:
    images = [
        hashlib.sha256(example.image).hexdigest() if isinstance(example.image, bytes) else example.image
        for example in examples
    ]
    files = {image for image in images if not isinstance(image, str)}
    cache_file = _folder(data) / "image_digests" / f"{digest(str(getattr(data, 'images', '')))}.txt"
    lines = read_cache(cache_file) if files else set()
    known = {its: value for its, _, value in (line.rpartition(" ") for line in lines)}
    fingerprints = {file: fingerprint(file) for file in files}
    new = [file for file in files if fingerprints[file] not in known]
    if new:
        with ThreadPoolExecutor(data.threads) as pool:
            fresh = dict(zip((fingerprints[file] for file in new), pool.map(_sha256, new), strict=True))
        known |= fresh
        write_cache(cache_file, lines | {f"{its} {value}" for its, value in fresh.items()})
    return [image if isinstance(image, str) else known[fingerprints[image]] for image in images]


def what_differs(before: SplitDigest, now: SplitDigest) -> str | None:
    """What of a split is not as it was, with the first item that is not; None where all is.

    Where the two were cut to different numbers of images, only what both could have is compared.
    """
    limits = [limit for limit in (before.limit, now.limit) if limit is not None]
    if before.limit != now.limit:
        before, now = before.first(min(limits)), now.first(min(limits))
    if before.sha256 == now.sha256:
        return None
    changed = [name for name in before.items if now.items.get(name, before.items[name]) != before.items[name]]
    missing = [name for name in before.items if name not in now.items]
    new = [name for name in now.items if name not in before.items]
    parts = (("with another image, text or answer", changed), ("missing", missing), ("new", new))
    differences = [f"{counted(len(names), 'image')} {what}, the first {names[0]!r}" for what, names in parts if names]
    return "; ".join(differences) or "its images are in another order"


def _digest_items(examples: Sequence[Example], images: Sequence[str], limit: int | None) -> SplitDigest:
    items, texts = {}, 0
    for example, image in zip(examples, images, strict=True):
        content = [[text.text, text.answers] for text in example.texts]
        items[example.image_id] = text_sha256(json.dumps([image, content]))[:DIGITS]
        texts += len(content)
    return SplitDigest(_of(items.values()), len(items), texts, limit, items)


def _of(digests: Iterable[str]) -> str:
    return text_sha256("\n".join(digests))


def _sha256(file: Path | StoredImage) -> str:
    try:
        return hashlib.sha256(read_image_file(file)).hexdigest() if isinstance(file, StoredImage) else sha256(file)
    except OSError as error:
        raise InputError(f"cannot read the image {file}: {error.strerror}") from None


def _folder(data: DataSet) -> Path:
    return data.directory.expanduser()


def from_row(row: dict[str, Json]) -> SplitDigest:
    """The digest that `_asdict` made a row of `data.json` from; `InputError` where the row is none."""
    try:
        return SplitDigest(**row)
    except TypeError as error:
        raise InputError(f"data.json has a row that is no digest of a split: {error}") from None
