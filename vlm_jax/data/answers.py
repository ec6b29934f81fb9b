"""The closed set of answers a VQA model chooses from."""

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.metrics.vqa_accuracy import canonical
from vlm_jax.types import Example

REMEMBERED = 2**17  # sets of answers whose shares are remembered


class AnswerVocabulary:
    """Answers by class index, the most common first, each in one spelling (`metrics.vqa.canonical`)."""

    def __init__(self, answers: Iterable[str]):
        self.answers: tuple[str, ...] = tuple(answers)
        self._index = {answer: index for index, answer in enumerate(self.answers)}
        if not self.answers:
            raise InputError("the answer vocabulary is empty; expected at least one answer in the training set")
        if len(self._index) != len(self.answers):
            raise InputError("the answer vocabulary lists an answer twice")
        self.shares = lru_cache(REMEMBERED)(self._shares)
        """(class, share of people) of every answer that is in the vocabulary, from all that people gave."""

    def __reduce__(self) -> tuple[type["AnswerVocabulary"], tuple[tuple[str, ...]]]:
        return AnswerVocabulary, (self.answers,)

    @classmethod
    def build(cls, examples: Iterable[Example], *, min_count: int = 1) -> "AnswerVocabulary":
        """The answers given `min_count` times in training, the most common first, ties in alphabetical order."""
        counts = Counter(
            canonical(answer) for example in examples for question in example.texts for answer in question.answers
        )
        frequent = [answer for answer, count in counts.items() if count >= min_count]
        if counts and not frequent:
            most = max(counts.values())
            raise InputError(f"no answer was given {min_count} times; set data.min_answer_count to {most} or less")
        return cls(sorted(frequent, key=lambda answer: (-counts[answer], answer)))

    def index(self, answer: str) -> int | None:
        """The class of `answer`, however spelled, or None for one that is not in the vocabulary."""
        return self._index.get(canonical(answer))

    def _shares(self, answers: tuple[str, ...]) -> tuple[tuple[int, float], ...]:
        classes = ((self.index(answer), count) for answer, count in Counter(answers).most_common())
        return tuple((index, count / len(answers)) for index, count in classes if index is not None)

    def __len__(self) -> int:
        return len(self.answers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnswerVocabulary) and self.answers == other.answers

    def __hash__(self) -> int:
        return hash(self.answers)

    def save(self, path: str | Path) -> None:
        """Write the answers as a JSON list."""
        Path(path).write_text(json.dumps(self.answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "AnswerVocabulary":
        """The vocabulary that `save` wrote; `InputError` where the file is not one."""
        try:
            answers = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the answer vocabulary {path}: {error.strerror}") from None
        except ValueError:
            raise InputError(f"the answer vocabulary {path} is not JSON; expected a list of answers") from None
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise InputError(f"the answer vocabulary {path} is not a list of answers")
        return cls(answers)


def most_answers(examples: Iterable[Example]) -> int:
    """R, the most distinct answers that any one question has; at least 1."""
    return max((len(set(question.answers)) for example in examples for question in example.texts), default=1) or 1
