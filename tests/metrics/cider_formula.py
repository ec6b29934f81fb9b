"""CIDEr-D word by word, as cider_scorer.py of pycocoevalcap has it."""

from collections import Counter

import numpy as np


def ngrams(caption):
    words = caption.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


def cosine_sum(hypothesis, reference, rarity):
    """The clipped cosines of the four orders with the penalty on lengths; `rarity` weighs an n-gram."""
    counts = ngrams(hypothesis), ngrams(reference)
    total = 0.0
    for order in range(1, 5):
        first, second = ({g: c * rarity(g) for g, c in grams.items() if len(g) == order} for grams in counts)
        norms = np.sqrt(sum(v * v for v in first.values())) * np.sqrt(sum(v * v for v in second.values()))
        product = sum(min(v, second[g]) * second[g] for g, v in first.items() if g in second)
        total += product / norms if norms else 0.0
    return total * np.exp(-((len(hypothesis.split()) - len(reference.split())) ** 2) / 72)


def rarity_in(items):
    """The weight of an n-gram by the items, each a list of references, that have it."""
    having = Counter(ngram for item in items for ngram in {g for reference in item for g in ngrams(reference)})
    return lambda ngram: np.log(len(items) / max(1, having[ngram]))


def cider(hypothesis, references, rarity):
    """CIDEr-D of a hypothesis, 0 to 10."""
    return 10 / 4 * np.mean([cosine_sum(hypothesis, reference, rarity) for reference in references])
