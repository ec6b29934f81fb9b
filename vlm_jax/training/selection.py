"""The validation scores that choose a checkpoint: whether they ever differ."""

import math
from typing import Any

ENOUGH = 3  # validations in a row with the same score, from which on a person should know


class Selection:
    """Counts validations in a row whose score is the same."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._now: dict[str, Any] = {"count": 0, "score": None, "first": 0, "last": 0}
        self._longest = self._now

    def add(self, step: int, score: float) -> list[str]:
        """Count a validation; a warning where at least `ENOUGH` in a row had its score."""
        kept = score if math.isfinite(score) else None  # a score that is no number is the same as another one
        now = self._now
        if now["count"] and now["score"] == kept:
            self._now = now | {"count": now["count"] + 1, "last": step}
        else:
            self._now = {"count": 1, "score": kept, "first": step, "last": step}
        if self._now["count"] >= self._longest["count"]:
            self._longest = self._now
        return self._warnings(self._now)

    def warnings(self) -> list[str]:
        """Of the whole run: the longest row of validations with the same score, where it has at least `ENOUGH`."""
        return self._warnings(self._longest)

    def _warnings(self, row: dict[str, Any]) -> list[str]:
        if row["count"] < ENOUGH:
            return []
        value = "not a finite number" if row["score"] is None else f"{row['score']:.4f}"
        return [
            f"validation {self._metric} was {value} at {row['count']} validations in a row, steps {row['first']} to "
            f"{row['last']}: it could not choose among their checkpoints"
        ]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"now": self._now, "longest": self._longest}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the `state` of a checkpoint."""
        self._now, self._longest = state["now"], state["longest"]
