"""Look at a data set before training on it: `python -m experiments.inspect_data configs/vqa_table.py`.

Counts, answers or captions, lengths, what splits share, images and rows that cannot be used, and a contact sheet of
images. The exit code is 0 whatever it finds.
"""

import random
import sys
from collections import Counter
from pathlib import Path
from typing import ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.config.tasks import TASKS
from vlm_jax.data.settings import UserDataset
from vlm_jax.settings.groups import choices
from vlm_jax.training.command_config import ConfigOptions, parse_command

# Data sets by name, each with the first task that reads it.
DATA_SETS = {kind: name for name in reversed(TASKS) for kind in choices(TASKS[name].model_fields["data"])}
SPLITS = ("train", "validation", "test")
LISTED, NUM_CARDS, SLOW = 50, 24, 2000


class Options(ConfigOptions):
    """What this command takes besides settings."""

    examples: ClassVar[tuple[str, ...]] = ("quickstart", "table --data.images photos/ --data.train train.jsonl")
    contact_sheet: Path | None = None
    """Contact sheet of images (default: runs/NAME-data.png)."""
    all: bool = False
    """List everything that cannot be used, not only the first rows."""


def main(argv: list[str]) -> int:
    if argv and argv[0] in DATA_SETS:
        argv = [DATA_SETS[argv[0]], "--data.kind", argv[0], "--name", argv[0], *argv[1:]]
    description = f"Show what is in a data set, of a config or one of: {', '.join(DATA_SETS)}."
    config, options = parse_command(argv, Options(), command="inspect_data", description=description)
    contact_sheet = (options.contact_sheet or Path("runs") / f"{config.name}-data.png").expanduser()
    _inspect(config.data, contact_sheet, name=config.name, listed=None if options.all else LISTED)
    return 0


def _inspect(data, contact_sheet, *, name, listed):
    from vlm_jax.data.image_inspection import inspect_images
    from vlm_jax.data.report import listing, report
    from vlm_jax.data.statistics import answers_of, describe, describe_captions

    splits, bad_rows, groups = _open(data)
    if (count := sum(map(len, splits.values()))) > SLOW:
        print(f"looking into {count:,} images", file=sys.stderr)
    limits = {"max_pixels": data.max_pixels, "threads": data.threads}
    inspections = {split: inspect_images(examples, **limits) for split, examples in splits.items()}
    ids = {split: [example.image_id for example in examples] for split, examples in splits.items()}
    files = {split: inspection.digests.values() for split, inspection in inspections.items()}
    unreadable = dict.fromkeys(why for split in inspections for why in inspections[split].unreadable.values())
    if data.texts == "questions":
        seen = answers_of(splits["train"])
        statistics = {split: describe(examples, seen) for split, examples in splits.items()}
    else:
        statistics = {"train": (train := describe_captions(splits["train"], None))}
        statistics |= {split: describe_captions(splits[split], train.words) for split in list(splits)[1:]}
    print(report(statistics, ids, files, groups), end="\n\n")
    print(listing("unreadable images", list(unreadable), listed), listing("bad rows", bad_rows, listed), sep="\n\n")
    print()
    for split, examples in splits.items():
        if readable := [example for example in examples if example.image_id not in inspections[split].unreadable]:
            title = f"{name}: {min(NUM_CARDS, len(readable))} of {len(examples):,} images, {split} split"
            captions = data.texts != "questions"
            _plot_examples(readable, contact_sheet, captions=captions, title=title, max_pixels=data.max_pixels)
            print(f"saved {contact_sheet}")
            break


def _open(data):
    """The examples of each split, the rows of your own files that cannot be used, and the images of each group."""
    from vlm_jax.data.sources import open_split
    from vlm_jax.data.user_files.dataset import read_split

    if not isinstance(data, UserDataset):
        return {split: open_split(data, split) for split in SPLITS}, [], None
    readings = {split: read_split(data, split) for split in data.splits}
    bad_rows = dict.fromkeys(row for reading in readings.values() for row in reading.bad_rows)
    splits = {split: reading.examples[: data.limit_of(split)] for split, reading in readings.items()}
    groups = {
        split: Counter(group for names in readings[split].groups[: len(examples)] for group in names)
        for split, examples in splits.items()
    }
    return splits, list(bad_rows), groups if any(groups.values()) else None


def _plot_examples(examples, path, *, captions, title, max_pixels):
    """A contact sheet of images, each with one of its questions and the given answers, or with its captions."""
    from vlm_jax.data.images import decode_image
    from vlm_jax.failures import os_failure
    from vlm_jax.figures import Card, plot_contact_sheet

    chosen = random.Random(0)
    items = []
    for example in chosen.sample(examples, min(NUM_CARDS, len(examples))):
        image = decode_image(example.image, name=example.image_id, max_pixels=max_pixels)
        if captions:
            items.append(Card(image, "", " · ".join(text.text for text in example.texts), None, (), None))
            continue
        question = chosen.choice(example.texts)
        counts = Counter(question.answers).most_common(3)
        shown_answers = [answer if len(question.answers) == 1 else f"{answer} ({count})" for answer, count in counts]
        items.append(Card(image, question.text, ", ".join(shown_answers), None, (), None))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_contact_sheet(items, path, title=title)
    except OSError as error:
        raise os_failure(error, f"cannot write --contact-sheet {path}") from None


if __name__ == "__main__":
    run_command(main)
