"""CIDEr-D (Vedantam et al., arXiv:1411.5726) of many captions with many single references at once.

An n-gram that occurs c times in a hypothesis and c' times in a reference has the clipped product min(c, c') c'
rarity^2. With a column for every repetition of an n-gram, min(c, c') is a sum of products: so all pairs are one product
of sparse matrices.
"""

from collections.abc import Sequence

import numpy as np
import scipy
from jaxtyping import Float, Int

from vlm_jax.errors import InputError

_ORDERS = 4
_SIGMA = 6.0  # cider_scorer.py: width of the penalty on a difference in length, in words


class CiderPairs:
    """Vectors of tokenized captions; what is rare is decided by the items that they are references of."""

    def __init__(self, captions: Sequence[str], item_of: Int[np.ndarray, " N"]) -> None:
        """`item_of`: the item that each caption is a reference of, counted from 0; -1 where it is of none."""
        if len(captions) != len(item_of):
            raise InputError(f"{len(item_of)} items for {len(captions)} captions: expected one for each caption")
        words = [caption.split() for caption in captions]
        self._lengths = np.array([len(caption) for caption in words], np.int64)
        owner, ngram, order = _ngrams(words, self._lengths)
        rarity = _rarity(ngram, item_of[owner], len(np.unique(item_of[item_of >= 0])))
        # Sorted by caption and n-gram, equal n-grams of a caption stand together.
        by_caption = np.lexsort((ngram, owner))
        owner, ngram, order = owner[by_caption], ngram[by_caption], order[by_caption]
        first = np.append(True, (np.diff(owner) != 0) | (np.diff(ngram) != 0))[: len(owner)]
        starts, group = np.flatnonzero(first), np.cumsum(first) - 1
        count = np.diff(np.append(starts, len(owner)))[group]
        repetition, weight = np.arange(len(owner)) - starts[group], rarity[ngram]
        norm_index = owner * _ORDERS + order
        norms = np.sqrt(np.bincount(norm_index, count * weight**2, minlength=len(words) * _ORDERS))[norm_index]
        self._as_hypothesis = np.divide(weight, norms, out=np.zeros_like(weight), where=norms > 0)
        self._as_reference = count * self._as_hypothesis
        self._column = ngram + repetition * len(rarity)
        self._starts = np.searchsorted(owner, np.arange(len(words) + 1))

    def __call__(
        self, hypotheses: Int[np.ndarray, " H"], references: Int[np.ndarray, " R"]
    ) -> Float[np.ndarray, "H R"]:
        """CIDEr-D, 0 to 10, of each hypothesis with each reference alone, both by their place among the captions."""
        hypothesis_matrix, reference_matrix = self._matrices(hypotheses, references)
        products = (hypothesis_matrix @ reference_matrix.T).toarray()
        return self._scores(products, self._lengths[hypotheses][:, None] - self._lengths[references])

    def paired(self, hypotheses: Int[np.ndarray, " P"], references: Int[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
        """CIDEr-D of each hypothesis with the reference at the same place."""
        hypothesis_matrix, reference_matrix = self._matrices(hypotheses, references)
        products = hypothesis_matrix.multiply(reference_matrix).sum(axis=1)
        return self._scores(products, self._lengths[hypotheses] - self._lengths[references])

    def _scores(self, products: Float[np.ndarray, "*s"], difference: Int[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
        return 10 / _ORDERS * products * np.exp(-(difference**2) / (2 * _SIGMA**2))

    def _matrices(
        self, hypotheses: Int[np.ndarray, " H"], references: Int[np.ndarray, " R"]
    ) -> "tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]":
        columns = _distinct(self._column[self._entries(hypotheses)])
        return (
            self._matrix(hypotheses, self._as_hypothesis, columns),
            self._matrix(references, self._as_reference, columns),
        )

    def _entries(self, places: Int[np.ndarray, " P"]) -> Int[np.ndarray, " E"]:
        """Where the entries of some captions stand, one caption after the other."""
        sizes = self._starts[places + 1] - self._starts[places]
        shift = self._starts[places] - np.append(0, np.cumsum(sizes)[:-1])[: len(places)]
        return np.arange(sizes.sum()) + np.repeat(shift, sizes)

    def _matrix(
        self, places: Int[np.ndarray, " P"], values: Float[np.ndarray, " A"], columns: Int[np.ndarray, " C"]
    ) -> "scipy.sparse.csr_array":
        """Some captions as rows, of these columns alone: memory is that of what can match."""
        entries = self._entries(places)
        column = np.searchsorted(columns, self._column[entries])
        known = np.append(columns, -1)[column] == self._column[entries]
        ends = np.append(0, np.cumsum(self._starts[places + 1] - self._starts[places]))
        starts = np.append(0, np.cumsum(known))[ends]
        shape = len(places), len(columns)
        return scipy.sparse.csr_array((values[entries[known]], column[known], starts), shape=shape)


def _ngrams(
    words: Sequence[Sequence[str]], lengths: Int[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " A"], Int[np.ndarray, " A"], Int[np.ndarray, " A"]]:
    """Of each n-gram of one to four words, as often as it occurs: its caption, its number, and n - 1."""
    numbers: dict[str, int] = {}
    word = np.array([numbers.setdefault(token, len(numbers)) for caption in words for token in caption], np.int64)
    owner = np.repeat(np.arange(len(words)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(word))  # words from here to the caption's end
    place, number, met = np.arange(len(word)), word, 0
    parts = []
    for order in range(_ORDERS):
        inside = left[place] > order
        place = place[inside]
        keys = number[inside] * max(1, len(numbers)) + word[place + order] if order else word
        distinct, number = np.unique(keys, return_inverse=True)
        parts.append((owner[place], met + number, np.full(len(place), order)))
        met += len(distinct)
    owners, ngrams, orders = (np.concatenate(column) for column in zip(*parts, strict=True))
    return owners, ngrams, orders


def _rarity(ngram: Int[np.ndarray, " A"], item: Int[np.ndarray, " A"], items: int) -> Float[np.ndarray, " G"]:
    """log(items / items with the n-gram); of one that no item has, log(items)."""
    size = int(ngram.max(initial=0)) + 1
    pairs = _distinct((item * size + ngram)[item >= 0])
    return np.log(max(1, items) / np.maximum(1, np.bincount(pairs % size, minlength=size)))


def _distinct(numbers: Int[np.ndarray, " A"]) -> Int[np.ndarray, " B"]:
    """In order; for millions of numbers a tenth of the time of `np.unique`, which hashes them."""
    numbers = np.sort(numbers)
    return numbers[np.append(True, np.diff(numbers) != 0)[: len(numbers)]]
