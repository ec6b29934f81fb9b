"""Examples on which the variants of a comparison disagree, with their images."""

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vlm_jax.ablation.records import Findings, Record, read_items
from vlm_jax.data.images import decode_image
from vlm_jax.data.sources import open_split
from vlm_jax.errors import InputError
from vlm_jax.tasks.base import Item

SIDE = 160  # pixels of a thumbnail


class Disagreement(NamedTuple):
    """One item of the test split and what each variant said of it."""

    image: bytes
    """PNG, at most 160 pixels a side."""
    question: str
    """Empty for a caption: nothing was asked."""
    references: tuple[str, ...]
    hypotheses: dict[str, tuple[str, bool | None]]
    """By label: the answer or caption, and whether it is right; None where nobody knows."""


def disagreements(findings: Findings, *, most: int = 8) -> tuple[Disagreement, ...]:
    """Items on which some variants are right and others wrong, all with the first seed that they share.

    Those on which about half are right come first, then in turn the kinds of questions, then by a hash of the id. Where
    no rule says what is right, as of captions by people, those that differ. Tasks that make images, predictions that
    are not whole and data that is not there any more give nothing.
    """
    records = _shared_seed(findings)
    if len(records) < 2:
        return ()
    base = next(iter(records.values()))
    try:
        items = {label: read_items(record.folder, record.config.task) for label, record in records.items()}
        if not any(item.hypothesis for variant_items in items.values() for item in variant_items.values()):
            return ()
        known = all(item.right is not None for variant_items in items.values() for item in variant_items.values())
        chosen = _choose(list(items.values()), most, known=known)
        images = _thumbnails(base, {item.image_id for _, item in chosen})
    except (InputError, OSError, ValueError):
        return ()
    examples = []
    for key, item in chosen:
        hypotheses = {
            label: (variant_items[key].hypothesis, variant_items[key].right if known else None)
            for label, variant_items in items.items()
        }
        if item.image_id in images:
            references = tuple(dict.fromkeys(item.references))
            examples.append(Disagreement(images[item.image_id], item.text, references, hypotheses))
    return tuple(examples)


def _shared_seed(findings: Findings) -> dict[str, Record]:
    """By label, the runs of the first seed that all variants with a finished run have."""
    rows = [row for row in findings.rows if row.records]
    shared = [seed for seed in (rows[0].seeds if rows else ()) if all(seed in row.seeds for row in rows)]
    return {row.label: row.records[row.seeds.index(shared[0])] for row in rows} if shared else {}


def _choose(variants: Sequence[Mapping[str, Item]], most: int, *, known: bool) -> list[tuple[str, Item]]:
    """Ids and the first variant's items, in the order in which they are shown."""
    first, *others = variants
    split = []
    for key, item in first.items():
        items = [item, *(other[key] for other in others if key in other)]
        same = len(items) == len(variants) and len({(candidate.image_id, candidate.text) for candidate in items}) == 1
        if same and len({candidate.right if known else candidate.hypothesis for candidate in items}) > 1:
            share = sum(item.right for item in items) / len(items) if known else 0.5
            split.append((abs(share - 0.5), hashlib.sha256(key.encode(errors="replace")).hexdigest(), key))
    taken: Counter[tuple[float, str]] = Counter()
    ranked = []
    for off, digest, key in sorted(split):
        kind = off, first[key].kind
        ranked.append((off, taken[kind], digest, key))
        taken[kind] += 1
    return [(key, first[key]) for *_, key in sorted(ranked)[:most]]


def _thumbnails(record: Record, wanted: set[str]) -> dict[str, bytes]:
    """The images of the test split with these ids, small."""
    from PIL import Image

    thumbnails: dict[str, bytes] = {}
    if not wanted:
        return thumbnails
    for example in open_split(record.config.data, "test"):
        if example.image_id in wanted:
            pixels = decode_image(example.image, name=example.image_id, max_pixels=record.config.data.max_pixels)
            image, file = Image.fromarray(pixels), io.BytesIO()
            image.thumbnail((SIDE, SIDE))
            image.save(file, "PNG")
            thumbnails[example.image_id] = file.getvalue()
        if len(thumbnails) == len(wanted):
            break
    return thumbnails
