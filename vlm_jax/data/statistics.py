"""What is in a data set: counts of a split, pictures that splits share, pictures that cannot be read."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from vlm_jax.data.images import decode_image, read_picture
from vlm_jax.errors import InputError
from vlm_jax.metrics.ptb_tokens import ptb_tokenize
from vlm_jax.metrics.vqa import canonical
from vlm_jax.types import Example


class SplitStatistics(NamedTuple):
    """Counts of one split."""

    pictures: int
    questions: int
    questions_of_a_picture: Counter[int]
    """Pictures by how many questions they have."""
    kinds: Counter[str]
    """Questions by type."""
    answers: Counter[str]
    """How often each answer was given, all people of a question counted, in the spelling that training counts."""
    question_words: Counter[int]
    """Questions by words."""
    answer_words: Counter[int]
    """Answers by words, as often as they were given, so spelled."""
    some_answer_unseen: int
    """Questions with an answer that training does not hold."""
    every_answer_unseen: int
    """Questions that nothing learned from training can answer."""
    texts: Counter[str]
    """How often each question was asked, in lower case."""


def describe(examples: Iterable[Example], seen: Collection[str]) -> SplitStatistics:
    """Counts of a split; `seen` are the answers of training, as `answers_of` gives them."""
    found = SplitStatistics(0, 0, Counter(), Counter(), Counter(), Counter(), Counter(), 0, 0, Counter())
    pictures = some = every = 0
    for example in examples:
        pictures += 1
        found.questions_of_a_picture[len(example.questions)] += 1
        for question in example.questions:
            found.kinds[question.kind] += 1
            found.texts[" ".join(question.text.lower().split())] += 1
            answers = [canonical(answer) for answer in question.answers]
            found.answers.update(answers)
            found.question_words[len(question.text.split())] += 1
            unseen = [answer not in seen for answer in answers]
            some += any(unseen)
            every += bool(unseen) and all(unseen)
    for answer, count in found.answers.items():
        found.answer_words[len(answer.split())] += count
    return found._replace(
        pictures=pictures, questions=found.kinds.total(), some_answer_unseen=some, every_answer_unseen=every
    )


def answers_of(examples: Iterable[Example]) -> set[str]:
    """Every answer that was given, in the spelling that training counts."""
    return {canonical(answer) for example in examples for question in example.questions for answer in question.answers}


class CaptionStatistics(NamedTuple):
    """Counts of one split that has captions."""

    pictures: int
    captions_of_a_picture: Counter[int]
    """Pictures by how many captions they have."""
    kinds: Counter[str]
    """Captions by kind."""
    captions: Counter[str]
    """How often each caption was given, its words as `words` has them."""
    words: Counter[str]
    """How often each word stands in a caption, cut as the scores of captions cut them."""
    caption_words: Counter[int]
    """Captions by words."""
    unseen: int
    """Words, as often as they stand in a caption, that training does not hold."""


def describe_captions(examples: Iterable[Example], seen: Collection[str] | None) -> CaptionStatistics:
    """Counts of a split; `seen` are the words of training, None for training itself."""
    found = CaptionStatistics(0, Counter(), Counter(), Counter(), Counter(), Counter(), 0)
    for example in examples:
        found.captions_of_a_picture[len(example.questions)] += 1
        for caption in example.questions:
            words = [word for word in ptb_tokenize(caption.text).split(" ") if word]
            found.kinds[caption.kind] += 1
            found.captions[" ".join(words)] += 1
            found.words.update(words)
            found.caption_words[len(words)] += 1
    unseen = 0 if seen is None else sum(count for word, count in found.words.items() if word not in seen)
    return found._replace(pictures=found.captions_of_a_picture.total(), unseen=unseen)


def shared(names: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], list[str]]:
    """What two splits have in common, in alphabetical order, for every pair of splits."""
    sets = {split: set(values) for split, values in names.items()}
    return {(a, b): sorted(sets[a] & sets[b]) for a, b in itertools.combinations(sets, 2)}


class Pictures(NamedTuple):
    """What a look into every picture file found."""

    digests: dict[str, str]
    """SHA-256 of the file, by image id; of all that could be read as files."""
    unreadable: dict[str, str]
    """Why a picture cannot be decoded, by image id."""


def inspect_pictures(examples: Sequence[Example], *, max_pixels: int, threads: int = 2) -> Pictures:
    """Read and decode every picture, in threads."""

    def look(position: int) -> tuple[str, str | None, str | None]:
        example, digest = examples[position], None
        try:
            data = example.image if isinstance(example.image, bytes) else read_picture(example.image)
            digest = hashlib.sha256(data).hexdigest()
            decode_image(data, name=name_of(example), max_pixels=max_pixels)
        except InputError as error:
            return example.image_id, digest, str(error)
        return example.image_id, digest, None

    found = Pictures({}, {})
    pool = ThreadPoolExecutor(threads)
    try:
        for image_id, digest, reason in pool.map(look, range(len(examples))):
            if digest is not None:
                found.digests[image_id] = digest
            if reason is not None:
                found.unreadable[image_id] = reason
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted look ends at once
    return found


def name_of(example: Example) -> str:
    """What a message calls a picture: its file, or its id where it has none of its own."""
    return f"picture {example.image_id}" if isinstance(example.image, bytes) else str(example.image)


def histogram(counts: Sequence[Mapping[int, int]], most: int = 10) -> list[tuple[str, list[int]]]:
    """Counts of whole numbers, side by side, in at most `most` bins: (`3`, `4-7` or `8+`, a count for each).

    Bins are of equal width, without gaps; the last takes the largest hundredth, so that one outlier spoils nothing.
    """
    total = sum((Counter(each) for each in counts), Counter())
    if not total:
        return []
    values = sorted(total)
    shares = itertools.accumulate(total[value] for value in values)
    high = next(value for value, share in zip(values, shares, strict=True) if share >= 0.99 * total.total())
    low = values[0]
    width = -(-(high - low + 1) // most)
    size = -(-(high - low + 1) // width)
    table = [[0] * len(counts) for _ in range(size)]
    for column, each in enumerate(counts):
        for value, count in each.items():
            table[min((value - low) // width, size - 1)][column] += count
    labels = [str(first) if width == 1 else f"{first}-{first + width - 1}" for first in range(low, high + 1, width)]
    last = low + (size - 1) * width
    if values[-1] > last + width - 1:
        labels[-1] = f"{last}+"
    return list(zip(labels, table, strict=True))
