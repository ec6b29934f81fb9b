"""Scores of captions, equal to the official COCO evaluation's (pycocoevalcap 1.2), and what a set of captions is like.

Scores start from captions that `ptb_tokenize_all` cut: words joined by a space. N items, each with one hypothesis and
at least one reference. A score of each item comes with every score of the corpus.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from vlm_jax.errors import InputError
from vlm_jax.metrics.cider_pairs import CiderPairs
from vlm_jax.metrics.ptb_tokens import ptb_tokenize, ptb_tokenize_all

_ORDERS = range(1, 5)
_TINY, _SMALL = 1e-15, 1e-9  # bleu_scorer.py: against division by zero, and what makes BLEU-4 of two words not quite 0
_BETA_SQUARED = 1.2**2  # rouge.py: recall counts more than precision

Ngrams = Mapping[tuple[str, ...], int]


def score_captions(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every score and statistic of raw captions, by name: what a result file holds. BLEU, ROUGE-L, exact match: 0 to 1.

    CIDEr-D is 0 to 10, and depends on the references of all items: a subset has another. The official scores depend on
    the order of items too, as `official_tokens` does; the others cut each caption by itself, so that equals stay equal.
    """
    _check(hypotheses, references)
    words, truth = official_tokens(hypotheses, references)
    bleu = {f"bleu_{order}": score for order, score in zip(_ORDERS, corpus_bleu(words, truth), strict=True)}
    scores = bleu | {"rouge_l": rouge_l(words, truth), "cider_d": cider_d(words, truth)}
    alone = [ptb_tokenize(hypothesis) for hypothesis in hypotheses]
    truth = [[ptb_tokenize(reference) for reference in item] for item in references]
    return scores | {"exact_match": exact_match(alone, truth)} | caption_statistics(alone)


def official_tokens(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Raw captions as the official evaluation cuts them: all hypotheses as one list, all references as another.

    Scores of items must start from these words too, or they do not belong to the score of the corpus.
    """
    _check(hypotheses, references)
    words = iter(ptb_tokenize_all([reference for item in references for reference in item]))
    return ptb_tokenize_all(hypotheses), [[next(words) for _ in item] for item in references]


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the corpus, 0 to 1: matches and lengths are summed over items before anything is divided."""
    _check(hypotheses, references)
    sums = np.sum([_bleu_sums(*item) for item in zip(hypotheses, references, strict=True)], axis=0, dtype=float)
    precisions = (sums[:4] + _TINY) / (sums[4:8] + _SMALL)
    means = np.cumprod(precisions) ** (1 / np.array(_ORDERS))
    ratio = (sums[8] + _TINY) / (sums[9] + _SMALL)
    return (means * np.exp(np.minimum(0, 1 - 1 / ratio))).tolist()


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean ROUGE-L, 0 to 1: F-measure (beta 1.2) of the best precision and the best recall, each of any reference.

    Split at every single space, so no words are one empty word: an empty hypothesis matches an empty reference.
    """
    _check(hypotheses, references)
    return float(np.mean([_rouge(*item) for item in zip(hypotheses, references, strict=True)]))


def cider_d(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean CIDEr-D (Vedantam et al., arXiv:1411.5726), 0 to 10, rare words of this corpus weighing more.

    0 for a corpus of one item, where no word is rare.
    """
    return float(cider_d_per_item(hypotheses, references).mean())


def cider_d_per_item(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, " N"]:
    """CIDEr-D of each item in this corpus: 10 times the mean over n-gram orders and references of clipped cosines."""
    _check(hypotheses, references)
    items = np.repeat(np.arange(len(references)), [len(item) for item in references])
    captions = [*hypotheses, *(reference for item in references for reference in item)]
    pairs = CiderPairs(captions, np.append(np.full(len(hypotheses), -1), items))
    return np.bincount(items, pairs.paired(items, len(hypotheses) + np.arange(len(items)))) / np.bincount(items)


def exact_match(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of items whose hypothesis is one of their references, 0 to 1; no score of the official evaluation's."""
    _check(hypotheses, references)
    return sum(hypothesis in item for hypothesis, item in zip(hypotheses, references, strict=True)) / len(hypotheses)


def caption_statistics(hypotheses: Sequence[str]) -> dict[str, float]:
    """How varied captions are, whether right or wrong; a model that always says the same has `identical_share` 1.

    `distinct_1`, `distinct_2` (see `distinct_n`), `vocabulary` (different words in use), `mean_length` (in words),
    `identical_share` (of items whose caption is the most frequent one).
    """
    if not hypotheses:
        raise InputError("no captions to describe: expected at least one")
    words = [hypothesis.split() for hypothesis in hypotheses]
    return {
        "distinct_1": distinct_n(hypotheses, 1),
        "distinct_2": distinct_n(hypotheses, 2),
        "vocabulary": float(len({word for caption in words for word in caption})),
        "mean_length": sum(map(len, words)) / len(words),
        "identical_share": max(Counter(hypotheses).values()) / len(hypotheses),
    }


def distinct_n(hypotheses: Sequence[str], n: int) -> float:
    """Different n-grams per n-gram of all captions (Li et al., arXiv:1510.03055), 0 to 1; 0 where there are none."""
    words = [hypothesis.split() for hypothesis in hypotheses]
    ngrams = [ngram for caption in words for ngram in _ngrams_of(caption, n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(hypotheses) != len(references):
        raise InputError(f"{len(hypotheses)} hypotheses for {len(references)} items of references: expected one each")
    if not hypotheses:
        raise InputError("no captions to score: expected at least one")
    for place, item in enumerate(references):
        if isinstance(item, str):
            raise InputError(f"the references of item {place} are one string: expected a list of strings")
        if not item:
            raise InputError(f"item {place} has no references: expected at least one")


def _ngrams_of(words: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(order)), strict=False)  # up to the shortest: the last full n-gram


def _ngrams(caption: str) -> Ngrams:
    """How often each n-gram of one to four words occurs."""
    words = caption.split()
    return Counter(ngram for order in _ORDERS for ngram in _ngrams_of(words, order))


def _bleu_sums(hypothesis: str, references: Sequence[str]) -> list[int]:
    """Of an item: four counts of matching n-grams, four of n-grams, its length, the length to compare with."""
    most: dict[tuple[str, ...], int] = {}  # an n-gram matches as often as the reference that has it most often
    for reference in references:
        for ngram, count in _ngrams(reference).items():
            most[ngram] = max(count, most.get(ngram, 0))
    matches, length = [0] * 4, len(hypothesis.split())
    for ngram, count in _ngrams(hypothesis).items():
        matches[len(ngram) - 1] += min(count, most.get(ngram, 0))
    lengths = [len(reference.split()) for reference in references]
    closest = min(lengths, key=lambda other: (abs(other - length), other))
    return [*matches, *(max(0, length - order + 1) for order in _ORDERS), length, closest]


def _rouge(hypothesis: str, references: Sequence[str]) -> float:
    words, truths = hypothesis.split(" "), [reference.split(" ") for reference in references]
    common = [_common_subsequence(words, truth) for truth in truths]
    precision = max(common) / len(words)
    recall = max(count / len(truth) for count, truth in zip(common, truths, strict=True))
    if not precision:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def _common_subsequence(hypothesis: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence: zero bits mark its members in `hypothesis` (Hyyro, 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(hypothesis):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(hypothesis)) - 1
    state = every
    for word in other:
        matched = state & places.get(word, 0)
        state = (state + matched | state - matched) & every
    return len(hypothesis) - state.bit_count()
