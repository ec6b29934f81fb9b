"""Look at a data set before training on it: `python -m experiments.inspect_data configs/vqa_jsonl.py`.

Counts, answers or captions, lengths, what splits share, images and rows that cannot be used, and a contact sheet of
images. The exit code is 0 whatever it finds.
"""

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

from vlm_jax.command_line import load_preset, run_command
from vlm_jax.config import Config, Data
from vlm_jax.config_checks import check
from vlm_jax.errors import InputError

NAMES: tuple[str, ...] = get_args(get_type_hints(Data)["name"])
SPLITS = ("train", "validation", "test")
LISTED, NUM_CARDS, SLOW = 50, 24, 2000


def main(argv: list[str]) -> int:
    source = argv[0] if argv and not argv[0].startswith("-") else None
    preset = Config(name=source, data=Data(name=source)) if source in NAMES else Config()
    if source is not None and source not in NAMES:
        preset = load_preset(Path(source))

    import tyro

    def inspect_data(
        data: Data = preset.data,
        contact_sheet: Annotated[
            Path | None, tyro.conf.arg(help="Contact sheet of images (default: runs/NAME-data.png).")
        ] = None,
        all: Annotated[bool, tyro.conf.arg(help=f"List all that cannot be used, not the first {LISTED}.")] = False,
    ) -> tuple[Data, Path, int | None]:
        return data, contact_sheet or Path("runs") / f"{preset.name}-data.png", None if all else LISTED

    usage = f"python -m experiments.inspect_data {source or 'SOURCE'}"
    description = "Show what is in a data set. SOURCE comes first: a config file, or the name of a data set."
    data, contact_sheet, listed = tyro.cli(
        inspect_data, args=argv[source is not None :], prog=usage, description=description
    )
    if source is None:
        raise InputError(f"no data set; give a config file first, or one of: {', '.join(NAMES)}")
    _inspect(_checked(data, task=preset.task), contact_sheet.expanduser(), name=preset.name, listed=listed)
    return 0


def _checked(data, *, task):
    """The data settings with what was left open chosen: captions where these are asked for, or all that there is."""
    from vlm_jax.data.user_dataset import READERS

    if task == "image_generation":  # whatever draws it
        task = "captioning"
    if data.texts is not None:
        task = "vqa" if data.texts == "questions" else "captioning"
    elif "questions" not in READERS.get(data.name, ("questions",)):
        task = "captioning"
    return check(Config(task=task, data=data)).data


def _inspect(data, contact_sheet, *, name, listed):
    from vlm_jax.data.report import caption_report, listing, report
    from vlm_jax.data.statistics import answers_of, describe, describe_captions, inspect_images

    splits, bad_rows, groups = _open(data)
    if (count := sum(map(len, splits.values()))) > SLOW:
        print(f"looking into {count:,} images", file=sys.stderr)
    limits = {"max_pixels": data.image.max_pixels, "threads": data.threads}
    inspections = {split: inspect_images(examples, **limits) for split, examples in splits.items()}
    ids = {split: [example.image_id for example in examples] for split, examples in splits.items()}
    files = {split: inspection.digests.values() for split, inspection in inspections.items()}
    unreadable = dict.fromkeys(
        reason for inspection in inspections.values() for reason in inspection.unreadable.values()
    )
    if data.texts == "questions":
        seen = answers_of(splits["train"])
        statistics = {split: describe(examples, seen) for split, examples in splits.items()}
        print(report(statistics, ids, files, groups), end="\n\n")
    else:
        train = describe_captions(splits["train"], None)
        held_out = {split: describe_captions(splits[split], train.words) for split in list(splits)[1:]}
        print(caption_report({"train": train, **held_out}, ids, files, groups), end="\n\n")
    print(listing("unreadable images", list(unreadable), listed), end="\n\n")
    print(listing("bad rows", bad_rows, listed), end="\n\n")
    for split, examples in splits.items():
        if readable := [example for example in examples if example.image_id not in inspections[split].unreadable]:
            title = f"{name}: {min(NUM_CARDS, len(readable))} of {len(examples):,} images, {split} split"
            captions = data.texts != "questions"
            _plot_examples(readable, contact_sheet, captions=captions, title=title, max_pixels=data.image.max_pixels)
            print(f"saved {contact_sheet}")
            break


def _open(data):
    """The examples of each split, the rows of your own files that cannot be used, and the images of each group."""
    from vlm_jax.config import limit_of
    from vlm_jax.data.sources import open_split
    from vlm_jax.data.split_files import splits_of
    from vlm_jax.data.user_dataset import READERS, read_split

    if data.name not in READERS:
        return {split: open_split(data, split) for split in SPLITS}, [], None
    readings = {split: read_split(data, split) for split in splits_of(data.name)}
    bad_rows = dict.fromkeys(row for reading in readings.values() for row in reading.bad_rows)
    splits = {split: reading.examples[: limit_of(data, split)] for split, reading in readings.items()}
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
            items.append(Card(image, "", " · ".join(text.text for text in example.questions), None, (), None))
            continue
        question = chosen.choice(example.questions)
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
