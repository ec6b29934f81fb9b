"""What is in a data set: counts of a split, and images that splits share."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vlm_jax.metrics.ptb_tokens import ptb_tokenize
from vlm_jax.metrics.vqa_accuracy import canonical
from vlm_jax.types import Example, Text


@dataclass
class SplitStatistics:
    """Counts of one split."""

    images: int = 0
    texts_per_image: Counter[int] = field(default_factory=Counter)
    """Images by how many questions or captions they have."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Texts by type."""
    texts: Counter[str] = field(default_factory=Counter)
    """How often each text was given: a question in lower case, a caption as its words are counted."""
    text_words: Counter[int] = field(default_factory=Counter)
    """Texts by words."""

    def _add(self, text: Text, words: Sequence[str]) -> None:
        self.kinds[text.kind] += 1
        self.texts[" ".join(words)] += 1
        self.text_words[len(words)] += 1


@dataclass
class QuestionStatistics(SplitStatistics):
    """Counts of one split that has questions."""

    answers: Counter[str] = field(default_factory=Counter)
    """How often each answer was given, all people of a question counted, in the spelling that training counts."""
    answer_words: Counter[int] = field(default_factory=Counter)
    """Answers by words, as often as they were given, so spelled."""
    some_answer_unseen: int = 0
    """Questions with an answer that training does not hold."""
    every_answer_unseen: int = 0
    """Questions that nothing learned from training can answer."""


@dataclass
class CaptionStatistics(SplitStatistics):
    """Counts of one split that has captions."""

    words: Counter[str] = field(default_factory=Counter)
    """How often each word stands in a caption, cut as the scores of captions cut them."""
    unseen: int = 0
    """Words, as often as they stand in a caption, that training does not hold."""


def describe(examples: Iterable[Example], seen: Collection[str]) -> QuestionStatistics:
    """Counts of a split; `seen` are the answers of training, as `answers_of` gives them."""
    stats = QuestionStatistics()
    for example in examples:
        stats.images += 1
        stats.texts_per_image[len(example.texts)] += 1
        for question in example.texts:
            stats._add(question, question.text.lower().split())
            answers = [canonical(answer) for answer in question.answers]
            stats.answers.update(answers)
            unseen = [answer not in seen for answer in answers]
            stats.some_answer_unseen += any(unseen)
            stats.every_answer_unseen += bool(unseen) and all(unseen)
    for answer, count in stats.answers.items():
        stats.answer_words[len(answer.split())] += count
    return stats


def answers_of(examples: Iterable[Example]) -> set[str]:
    """Every answer that was given, in the spelling that training counts."""
    return {canonical(answer) for example in examples for question in example.texts for answer in question.answers}


def describe_captions(examples: Iterable[Example], seen: Collection[str] | None) -> CaptionStatistics:
    """Counts of a split; `seen` are the words of training, None for training itself."""
    stats = CaptionStatistics()
    for example in examples:
        stats.images += 1
        stats.texts_per_image[len(example.texts)] += 1
        for caption in example.texts:
            words = [word for word in ptb_tokenize(caption.text).split(" ") if word]
            stats._add(caption, words)
            stats.words.update(words)
    stats.unseen = 0 if seen is None else sum(count for word, count in stats.words.items() if word not in seen)
    return stats


def shared(names: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], list[str]]:
    """What two splits have in common, in alphabetical order, for every pair of splits."""
    sets = {split: set(values) for split, values in names.items()}
    return {(a, b): sorted(sets[a] & sets[b]) for a, b in itertools.combinations(sets, 2)}


def histogram(counts: Sequence[Mapping[int, int]], most: int = 10) -> list[tuple[str, list[int]]]:
    """Counts of whole numbers, side by side, in at most `most` bins: (`3`, `4-7` or `8+`, a count for each).

    Bins are of equal width, without gaps; the last takes the largest hundredth, so that one outlier spoils nothing.
    """
    total = sum((Counter(split_counts) for split_counts in counts), Counter())
    if not total:
        return []
    values = sorted(total)
    shares = itertools.accumulate(total[value] for value in values)
    high = next(value for value, share in zip(values, shares, strict=True) if share >= 0.99 * total.total())
    low = values[0]
    width = -(-(high - low + 1) // most)
    size = -(-(high - low + 1) // width)
    table = [[0] * len(counts) for _ in range(size)]
    for column, split_counts in enumerate(counts):
        for value, count in split_counts.items():
            table[min((value - low) // width, size - 1)][column] += count
    labels = [str(first) if width == 1 else f"{first}-{first + width - 1}" for first in range(low, high + 1, width)]
    last = low + (size - 1) * width
    if values[-1] > last + width - 1:
        labels[-1] = f"{last}+"
    return list(zip(labels, table, strict=True))
