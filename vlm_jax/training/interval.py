"""What is reported of a few optimizer steps together."""

from collections.abc import Mapping
from typing import SupportsFloat


class Interval:
    """Means over the steps since the last report, from sums."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._sums: dict[str, float] = {}
        self._seconds = self._timed = 0.0

    def add(self, metrics: Mapping[str, SupportsFloat], seconds: float) -> None:
        """Count one optimizer step; one that took no seconds (it compiled) does not count towards the speed."""
        if seconds:
            self._seconds += seconds
            self._timed += float(metrics["examples"])
        for name in {"loss", "weight", "correct"} & set(metrics):
            self._sums[name] = self._sums.get(name, 0.0) + float(metrics[name])
        self._last = {name: float(metrics[name]) for name in ("gradient_norm", "learning_rate")}

    def sums(self) -> dict[str, float]:
        """What a checkpoint keeps, so that an interval in which a run was stopped is reported whole."""
        return dict(self._sums)

    def restore(self, sums: dict[str, float]) -> None:
        """Go on from the `sums` of a checkpoint."""
        self._sums = dict(sums)

    def close(self) -> dict[str, float]:
        """The report; a new interval begins."""
        sums, weight = self._sums, max(self._sums["weight"], 1.0)
        values = {"loss": sums["loss"] / weight}
        if "correct" in sums:
            values["accuracy"] = sums["correct"] / weight
        values |= self._last | {"examples_per_second": self._timed / max(self._seconds, 1e-9)}
        self._restart()
        return values
