"""Scores of answered questions: pure functions on strings and arrays."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from vlm_jax.metrics.vqa_accuracy import canonical, vqa_accuracy


def accuracy_by_kind(scores: Float[np.ndarray, " Q"], kinds: Sequence[str]) -> dict[str, float]:
    """`accuracy`, and `accuracy/KIND` for each kind of question, as fractions."""
    if not kinds:
        return {}
    named = np.asarray(kinds)
    by_kind = {f"accuracy/{kind}": float(scores[named == kind].mean()) for kind in sorted(set(kinds))}
    return {"accuracy": float(scores.mean()), **by_kind}


def soft_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The share of people who gave this answer, however spelled; with one answer a question, plain accuracy."""
    return sum(canonical(answer) == canonical(prediction) for answer in answers) / max(1, len(answers))


ACCURACIES = {"soft": soft_accuracy, "vqa": vqa_accuracy}


class BlindPrior:
    """What training answers alone predict: the most common one, overall or for the same question text."""

    def __init__(self, questions: Iterable[tuple[str, Sequence[str]]]) -> None:
        overall: Counter[str] = Counter()
        by_text: dict[str, Counter[str]] = {}
        for text, answers in questions:
            if answers:
                spelled = [canonical(answer) for answer in answers]
                overall.update(spelled)
                by_text.setdefault(text, Counter()).update(spelled)
        self.majority = _most_common(overall)
        self._by_text = {text: _most_common(counts) for text, counts in by_text.items()}

    def answer(self, text: str) -> str:
        """The most common training answer to this very question, or the majority for a new one."""
        return self._by_text.get(text, self.majority)


def _most_common(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")
