"""The validation scores that choose a checkpoint: whether they tell validations apart."""

import math

from vlm_jax.types import Json

ENOUGH = 3  # validations with the same score, from which on a person should know


class Selection:
    """Counts validations by their score."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._rows: list[dict[str, Json]] = []
        """One a score, in the order in which they came."""

    def add(self, step: int, score: float) -> list[str]:
        """Count a validation; a warning where at least `ENOUGH` had its score."""
        known = score if math.isfinite(score) else None  # a score that is no number is the same as another one
        row = next((row for row in self._rows if row["score"] == known), None)
        if row is None:
            row = {"score": known, "count": 0, "first": step}
            self._rows.append(row)
        row |= {"count": row["count"] + 1, "last": step}
        return self._warnings(row)

    def warnings(self) -> list[str]:
        """Of the whole run: the score that most validations had, the last of several, where at least `ENOUGH` had."""
        return self._warnings(max(reversed(self._rows), key=lambda row: row["count"])) if self._rows else []

    def _warnings(self, row: dict[str, Json]) -> list[str]:
        if row["count"] < ENOUGH:
            return []
        value = "not a finite number" if row["score"] is None else f"{row['score']:.4f}"
        return [
            f"validation {self._metric} was {value} at {row['count']} validations, steps {row['first']} to "
            f"{row['last']}: it could not choose among their checkpoints"
        ]

    def state(self) -> list[dict[str, Json]]:
        """What a checkpoint keeps, as JSON."""
        return self._rows

    def restore(self, state: list[dict[str, Json]]) -> None:
        """Go on from the `state` of a checkpoint."""
        self._rows = [dict(row) for row in state]
