"""How numbers, intervals and verdicts are spelled, in the text report and on the page alike."""

import functools
import math

from vlm_jax.ablation.statistics import Difference, Summary
from vlm_jax.config.tasks import TASKS
from vlm_jax.figures import visible

MISSING = "missing"
CALLED = ("higher", "lower")  # verdicts by the adjusted p; all others leave the question open
ONE_SEED = "one seed: no interval"
EVERY_SEED = "with every seed"
NO_SPREAD = "no spread between seeds: no interval"
SAME_WITH_EVERY_SEED = "the same with every seed"

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


@functools.cache
def _shares() -> frozenset[str]:
    """The scores of all tasks that are shown in percent. The others keep their unit."""
    from vlm_jax.tasks import task_class

    return frozenset(name for task in TASKS for name in task_class(task).shares)


def is_share(metric: str) -> bool:
    """Whether a metric is shown in percent.

    Its first or its last part decides (`accuracy/yes_no`, `baseline/no_image/rule_accuracy`); a control without a
    metric of its own (`baseline/majority`) is an accuracy.
    """
    first, *rest = metric.split("/")
    last = rest[-1] if rest else first
    return first in _shares() or last in _shares() or (first == "baseline" and len(rest) == 1)


def heading(metric: str) -> str:
    """The metric with its unit."""
    return f"{metric}, %" if is_share(metric) else metric


def score(value: float | int | None, metric: str, *, fine: bool = False, signed: bool = False) -> str:
    """A value of a metric, in percent if it is a share; `fine` gives a share a digit more, as a difference needs."""
    if value is None or not math.isfinite(value):
        return MISSING
    sign = "+" if signed else ""
    if is_share(metric):
        digits = 2 if fine else 1
        return f"{round(100 * value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: never -0.0
    if 0 < abs(value) < 0.01:
        return f"{value:{sign}.2g}"
    digits = 3 if abs(value) < 10 else 2
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def interval(low: float | None, high: float | None, metric: str, *, fine: bool = False, signed: bool = False) -> str:
    """`[81.8, 84.6]`."""
    ends = (score(end, metric, fine=fine, signed=signed) for end in (low, high))
    return f"[{', '.join(ends)}]"


def mean_with_interval(summary: Summary | None, metric: str) -> str:
    """`83.2 [81.8, 84.6]`, or what stands in the way of it."""
    if summary is None:
        return MISSING
    mean = score(summary.mean, metric)
    if summary.std == 0:
        return f"{mean} ({EVERY_SEED})"
    return f"{mean} ({ONE_SEED})" if summary.low is None else f"{mean} {interval(summary.low, summary.high, metric)}"


def difference_interval(difference: Difference, metric: str) -> str:
    """The interval of a difference, or why there is none."""
    if difference.low is not None:
        return interval(difference.low, difference.high, metric, fine=True, signed=True)
    if min(difference.n, difference.base_n) == 1:
        return ONE_SEED
    return f"{SAME_WITH_EVERY_SEED}: no interval" if difference.paired else NO_SPREAD


def difference_in_words(difference: Difference, metric: str) -> str:
    """`+3.40 points`: percentage points for a share, else in the metric's own unit."""
    return score(difference.difference, metric, fine=True, signed=True) + (" points" if is_share(metric) else "")


def verdict(difference: Difference | None) -> str:
    """What the seeds say of a difference: `higher`, `lower`, or that they cannot tell."""
    if difference is None:
        return MISSING
    if min(difference.n, difference.base_n) == 1:
        return ONE_SEED
    if difference.adjusted_p is None:
        return f"{SAME_WITH_EVERY_SEED if difference.paired else 'no spread between seeds'}: not tested"
    if difference.distinguishable:
        return CALLED[difference.difference < 0]
    n, base_n = difference.n, difference.base_n
    return f"not distinguishable with {n if n == base_n else f'{n} and {base_n}'} seeds"


def probability(p: float | None) -> str:
    """A p value."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def amount(value: float | int | None) -> str:
    """Three digits and a prefix of a thousand: `2.41 G`."""
    if value is None:
        return MISSING
    power = min(len(PREFIXES) - 1, max(0, int(math.log10(value) // 3))) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {PREFIXES[power]}".strip()


def duration(seconds: float | int | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return MISSING
    size, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{seconds / size:.1f} {unit}"


def mebibytes(count: float | int | None) -> str:
    """Bytes as MiB."""
    return MISSING if count is None else f"{count / 2**20:,.0f} MiB"


def format_value(value: object) -> str:
    """Anything that was recorded, on one line; nothing that is missing is left out."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(entry)}" for name, entry in value.items()) or MISSING
    if isinstance(value, (list, tuple)):
        between = "; or " if any(isinstance(entry, dict) for entry in value) else ", "
        return between.join(map(format_value, value)) or MISSING
    return visible(str(value)) or MISSING
