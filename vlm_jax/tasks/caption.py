"""Generated captions, and how much of them is true where the scene is known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_jax.figures import Card
from vlm_jax.scenes.rules import CaptionCheck
from vlm_jax.types import Json


class Hypothesis(NamedTuple):
    """One text that was decoded."""

    text: str
    log_probability: float
    """The model's, of all its tokens."""
    score: float
    """What it was ranked by."""
    token_log_probabilities: tuple[float, ...]

    def as_dict(self) -> dict[str, Json]:
        """The caption as JSON has it."""
        tokens = [round(value, 5) for value in self.token_log_probabilities]
        record = {"caption": self.text, "log_probability": self.log_probability, "score": self.score}
        return record | {"token_log_probabilities": tokens}


class Caption(NamedTuple):
    """The captions generated for one image."""

    image_id: str
    hypotheses: tuple[Hypothesis, ...]
    """Best first."""
    references: tuple[str, ...]
    """Captions that people wrote."""
    check: CaptionCheck | None
    """The best caption compared with the scene, where it is known."""

    @property
    def text(self) -> str:
        """The best caption."""
        return self.hypotheses[0].text

    @property
    def right(self) -> bool | None:
        """Whether every statement in it is true; None where nobody knows."""
        return self.check.true if self.check else None

    def as_dict(self) -> dict[str, Json]:
        record = {"image_id": self.image_id, "captions": [hypothesis.as_dict() for hypothesis in self.hypotheses]}
        record["references"] = list(self.references)
        return record | ({"check": self.check._asdict()} if self.check else {})

    def card(self, image: np.ndarray) -> Card:
        return Card(image, "", self.text, None, self.references[:1], self.right)


def rule_scores(checks: Sequence[CaptionCheck]) -> dict[str, float]:
    """Means over captions of known scenes; nothing where there are none."""
    if not checks:
        return {}
    stated = sum(check.relations for check in checks)
    return {
        "rule_accuracy": float(np.mean([check.true for check in checks])),
        "objects_named": float(np.mean([check.objects_named for check in checks])),
        "attributes": float(np.mean([check.attributes for check in checks])),
        "hallucinated": float(np.mean([check.hallucinated for check in checks])),
        "relations": stated / len(checks),
        "relations_true": sum(check.relations_true for check in checks) / max(1, stated),
    }
