"""Whether variants of a study differ. The seed is the unit of analysis: each value is the one number of one seed's run.

Questions within a run share its weights, so that more of them make one seed's number sharper, never the difference of
two methods surer. Values are fractions, percent or losses alike: means, deviations and intervals keep their unit.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from vlm_jax.errors import InputError, one_of
from vlm_jax.metrics.student import LEVEL, Values, checked_values, student_margin, student_p

_PERMUTED_SEEDS = 6  # a side: the least p is 2 / 924; of four and four seeds it would be 2 / 70
_SPLITS = 10_000  # up to so many are all looked at; of more, so many are drawn
_MOST_SEEDS = 10_000
_POWER = 0.8


class Summary(NamedTuple):
    """Seeds of one variant: `std` is the sample's (n - 1), `low` to `high` Student's interval of the mean.

    With one seed there is no deviation, interval or `df` (degrees of freedom, n - 1): all None.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    df: float | None


class Difference(NamedTuple):
    """A variant's mean minus the base's. `low` to `high` is Welch's interval, of this one variant: not adjusted.

    `df`: Welch-Satterthwaite degrees of freedom. `p`: of Welch's test, two-sided. `adjusted_p`: Holm's, over the
    variants of the comparison. `permutation_p`: see `permutation_p`. None is what these seeds cannot tell.
    Where `paired`, all of it is of the differences seed by seed: Student's interval, `df` and `p`, no permutation p.
    """

    difference: float
    n: int
    base_n: int
    low: float | None = None
    high: float | None = None
    df: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    permutation_p: float | None = None
    paired: bool = False

    @property
    def distinguishable(self) -> bool:
        """Whether the test calls it: where no variant differs, at most 1 - LEVEL of comparisons call one."""
        return self.adjusted_p is not None and self.adjusted_p <= 1 - LEVEL


def summary(values: Values) -> Summary:
    """Mean of one variant's seeds and its t interval (Student, Biometrika 6, 1908)."""
    values = checked_values(values, "the seeds of a variant")
    n, mean, variance = len(values), _mean(values), _variance(values)
    if variance is None:
        return Summary(n, mean, None, None, None, None)
    df = float(n - 1)
    margin = student_margin(math.sqrt(variance / n), df)
    return Summary(n, mean, math.sqrt(variance), mean - margin, mean + margin, df)


def differences(
    variants: Mapping[str, Values], base: str, *, paired: Mapping[str, tuple[Values, Values]] | None = None
) -> dict[str, Difference]:
    """Each variant but the base against it, by Welch's t test of unequal variances (Biometrika 29, 1938, section 5).

    A variant may share the trainings of the base and use them in another way. Then `paired` has the values of both
    for the seeds that both have, in one order, and they are compared seed by seed (Student, Biometrika 6, 1908, section
    7).

    With one seed on either side: no interval and no p. Where neither side has any spread, no interval; p is 1 for
    equal means, and None for different ones: seeds that agree to the last bit say that the seed did nothing, so that
    they are one run, not several. A spread on one side is enough. Holm adjusts over those that have a p.
    """
    if base not in variants:
        raise InputError(f"the base {base!r} is none of the variants: {one_of(variants)}")
    seeds = {name: checked_values(values, f"the seeds of variant {name!r}") for name, values in variants.items()}
    results = {name: _welch(values, seeds[base]) for name, values in seeds.items() if name != base}
    results |= {name: _paired(*both) for name, both in (paired or {}).items()}
    tested = {name: result.p for name, result in results.items() if result.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {name: result._replace(adjusted_p=adjusted.get(name)) for name, result in results.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given (Holm, Scandinavian Journal of Statistics 6, 1979, pages 65 to 70).

    Calling those at or below alpha calls any true null hypothesis with a chance of at most alpha. The tests may depend
    on each other, as they do here by their common base.
    """
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise InputError(f"a p value of {wrong[0]}: expected 0 to 1")
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted.tolist()


def permutation_p(values: Values, base: Values) -> float | None:
    """Share of the splits of all seeds whose means differ at least as much as these, either way (Pitman, 1937).

    Needs no normal numbers, but takes both sides to be spread alike. Exact up to 10,000 splits, else of 10,000 drawn
    ones, always the same, and the observed one, so never 0 (Phipson and Smyth, arXiv:1603.05766). None with fewer
    than six seeds on either side.
    """
    values, base = checked_values(values, "the seeds of a variant"), checked_values(base, "the seeds of the base")
    if min(len(values), len(base)) < _PERMUTED_SEEDS:
        return None
    pooled = np.concatenate([values, base])
    pooled = pooled - pooled.mean()  # of sum 0: one side's sum says the difference, but for a constant factor
    gaps = np.abs(pooled[_splits(len(values), len(pooled))].sum(axis=1))
    return float(np.mean(gaps >= gaps[0] - 1e-9 * np.abs(pooled).max()))  # ties count, whatever their rounding


def pooled_std(groups: Iterable[Values]) -> float | None:
    """Standard deviation between seeds within variants, each weighing by its n - 1; None with no two seeds of any."""
    checked = [checked_values(values, "the seeds of a variant") for values in groups]
    squares = sum((_variance(values) or 0.0) * (len(values) - 1) for values in checked)
    freedom = sum(len(values) - 1 for values in checked)
    return math.sqrt(squares / freedom) if freedom else None


def power(seeds: int, std: float, difference: float, *, comparisons: int = 1) -> float:
    """Chance that `seeds` seeds a variant call a true `difference` of means, with `std` between seeds of either.

    Of the two-sided t test with equal variances, by the noncentral t distribution (Cohen, Statistical Power Analysis
    for the Behavioral Sciences, 1988, chapter 2). Alpha is divided by `comparisons`, as Bonferroni does: a lower bound
    for Holm's. For a difference of 0 it is that alpha.
    """
    _check_plan(std, difference, comparisons)
    if seeds < 2:
        raise InputError(f"{seeds} seeds a variant have no spread to test by: expected at least 2")
    from scipy import stats  # a second to import; only planning needs it

    df, shift = 2 * (seeds - 1), abs(difference / std) * math.sqrt(seeds / 2)
    least = special.stdtrit(df, 1 - (1 - LEVEL) / comparisons / 2)
    with np.errstate(invalid="ignore"):
        wrong_way = np.nan_to_num(stats.nct.cdf(-least, df, shift))  # NaN where it is 1e-13 or less
    return float(np.clip(stats.nct.sf(least, df, shift) + wrong_way, 0, 1))


def seeds_needed(std: float, difference: float, *, comparisons: int = 1) -> int:
    """Fewest seeds a variant, 2 or more, that call a true `difference` 8 times in 10 (`power`)."""
    _check_plan(std, difference, comparisons)
    if difference == 0:
        raise InputError("a difference of 0 is found by no number of seeds: expected the smallest that matters")

    def enough(seeds: int) -> bool:
        return power(seeds, std, difference, comparisons=comparisons) >= _POWER

    if not enough(_MOST_SEEDS):
        alpha = (1 - LEVEL) / comparisons
        detectable = std * math.sqrt(2 / _MOST_SEEDS) * float(special.ndtri(1 - alpha / 2) + special.ndtri(_POWER))
        raise InputError(
            f"a difference of {difference:g} with a deviation of {std:g} needs more than {_MOST_SEEDS:,} seeds a "
            f"variant: expected a difference of {detectable * 1.001:.3g} or more"
        )
    return 2 + bisect.bisect_left(range(2, _MOST_SEEDS), True, key=enough)


def _welch(values: Float[np.ndarray, " n"], base: Float[np.ndarray, " m"]) -> Difference:
    gap, variance, base_variance = _mean(values) - _mean(base), _variance(values), _variance(base)
    nothing = Difference(gap, len(values), len(base))
    if variance is None or base_variance is None:
        return nothing
    parts = variance / len(values), base_variance / len(base)
    if not sum(parts):
        return nothing if gap else nothing._replace(p=1.0, permutation_p=permutation_p(values, base))
    share = parts[0] / sum(parts)
    df = 1 / (share**2 / (len(values) - 1) + (1 - share) ** 2 / (len(base) - 1))
    error = math.sqrt(sum(parts))
    margin = student_margin(error, df)
    p, permuted = student_p(gap / error, df), permutation_p(values, base)
    return nothing._replace(low=gap - margin, high=gap + margin, df=df, p=p, permutation_p=permuted)


def _paired(seeds: Values, base_seeds: Values) -> Difference:
    values, base = checked_values(seeds, "the seeds of a variant"), checked_values(base_seeds, "the seeds of the base")
    if len(values) != len(base):
        raise InputError(f"{len(values)} and {len(base)} seeds do not pair: expected a value of the base for each")
    gaps = values - base
    # Equal differences differ by their rounding, which is no spread.
    if np.ptp(gaps) <= 1e-9 * max(np.abs(values).max(), np.abs(base).max()):
        gaps = np.full_like(gaps, np.median(gaps))
    gap = summary(gaps)
    nothing = Difference(gap.mean, gap.n, gap.n, paired=True)
    if gap.std is None:
        return nothing
    if not gap.std:
        return nothing if gap.mean else nothing._replace(p=1.0)
    p = student_p(gap.mean / (gap.std / math.sqrt(gap.n)), gap.df)
    return nothing._replace(low=gap.low, high=gap.high, df=gap.df, p=p)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values[0] + (values - values[0]).mean())  # equal values have that very mean, and so no spread


def _variance(values: Float[np.ndarray, " n"]) -> float | None:
    return float(np.var(values - values[0], ddof=1)) if len(values) > 1 else None


@lru_cache(maxsize=8)
def _splits(count: int, total: int) -> Int[np.ndarray, "S count"]:
    """Members of the first side in each split; the first row is the observed one, 0 to count - 1."""
    if math.comb(total, count) <= _SPLITS:
        return np.array(list(itertools.combinations(range(total), count)))
    sampled = np.random.default_rng(0).permuted(np.tile(np.arange(total), (_SPLITS, 1)), axis=1)[:, :count]
    return np.concatenate([np.arange(count)[None], sampled])


def _check_plan(std: float, difference: float, comparisons: int) -> None:
    if not 0 < std < math.inf:
        raise InputError(f"a deviation between seeds of {std}: expected a finite number above 0")
    if not math.isfinite(difference):
        raise InputError(f"a difference of {difference}: expected a finite number")
    if comparisons < 1:
        raise InputError(f"{comparisons} comparisons: expected at least 1, the number of variants but the base")
