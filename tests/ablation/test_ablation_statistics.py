"""Statistics over seeds: against scipy and printed tables, then whether they call as often as they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from vlm_jax.ablation.statistics import (
    differences,
    holm,
    permutation_p,
    pooled_std,
    power,
    seeds_needed,
    summary,
)
from vlm_jax.errors import InputError

SCORES = st.lists(st.floats(0, 100), min_size=2, max_size=5)


def sampled_variants(*deviations, seeds=5, means=None, random):
    """Scores of whole runs: a variant's mean, what the seed did, what the 500 questions of the test set did."""
    means = means or [0.6] * len(deviations)
    skills = [random.normal(mean, spread, seeds) for mean, spread in zip(means, deviations, strict=True)]
    return {f"v{place}": random.binomial(500, np.clip(skill, 0, 1)) / 500 for place, skill in enumerate(skills)}


def called_share(studies, *deviations, seed, **kind):
    """Of so many studies, the share in which any variant is called different from the base, `v0`."""
    random = np.random.default_rng(seed)
    calls = [
        any(
            result.distinguishable
            for result in differences(sampled_variants(*deviations, random=random, **kind), "v0").values()
        )
        for _ in range(studies)
    ]
    return sum(calls) / studies


def mean_difference(first, second, axis):
    return first.mean(axis) - second.mean(axis)


@pytest.mark.parametrize("sizes", [(5, 5), (3, 9), (2, 2), (12, 4)])
def test_welch_agrees_with_scipy(sizes):
    random = np.random.default_rng(sum(sizes))
    variant, base = random.normal(0.63, 0.02, sizes[0]), random.normal(0.6, 0.005, sizes[1])
    result = differences({"base": base, "variant": variant}, "base")["variant"]
    expected = stats.ttest_ind(variant, base, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (result.n, result.base_n) == sizes
    assert result.difference == pytest.approx(variant.mean() - base.mean(), rel=1e-12)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert (result.p, result.df) == pytest.approx((expected.pvalue, expected.df), rel=1e-9)
    assert result.adjusted_p == result.p  # one comparison has nothing to adjust for


def test_uses_of_the_same_trainings_are_compared_seed_by_seed():
    random = np.random.default_rng(3)
    base = random.normal(0.6, 0.05, 5)
    variants = {"base": base, "used": base + random.normal(0.01, 0.004, 5), "trained": random.normal(0.61, 0.05, 5)}
    results = differences(variants, "base", paired={"used": (variants["used"], base)})
    expected = stats.ttest_rel(variants["used"], base)
    interval = expected.confidence_interval(0.95)
    result = results["used"]
    assert result.paired and (result.n, result.df, result.permutation_p) == (5, 4, None)
    assert (result.difference, result.p) == pytest.approx((np.mean(variants["used"] - base), expected.pvalue), rel=1e-9)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert not results["trained"].paired
    assert results["trained"].p == pytest.approx(stats.ttest_ind(variants["trained"], base, equal_var=False).pvalue)
    with pytest.raises(InputError, match="4 and 5 seeds do not pair"):
        differences({"base": base, "used": base[1:]}, "base", paired={"used": (base[1:], base)})


@pytest.mark.parametrize(
    ("values", "base", "p"),
    [
        ([0.5, 0.7], [0.4, 0.6], None),
        ([0.435, 0.41, 0.475], [0.43, 0.405, 0.47], None),  # one image of 200 more, and another rounding of it each
        ([0.4, 0.6], [0.4, 0.6], 1.0),
        ([0.5], [0.4], None),
    ],
)
def test_uses_that_every_seed_tells_apart_alike_are_not_tested(values, base, p):
    result = differences({"base": base, "used": values}, "base", paired={"used": (values, base)})["used"]
    assert (result.low, result.df, result.p) == (None, None, p)


def test_studies_of_uses_that_do_not_differ_call_one_in_3_to_7_percent():
    """Seeds spread, and what is drawn at random from each spreads around them."""
    random, called = np.random.default_rng(1), 0
    for _ in range(2000):
        seeds = random.normal(0.6, 0.03, 5)
        base, used = (seeds + random.normal(0, 0.02, 5) for _ in range(2))
        result = differences({"base": base, "used": used}, "base", paired={"used": (used, base)})["used"]
        called += result.distinguishable
    assert 0.03 <= called / 2000 <= 0.07


def test_the_interval_of_a_mean_agrees_with_scipy():
    values = [0.61, 0.58, 0.64, 0.6, 0.59]
    result = summary(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert result.std == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert (result.n, result.df, result.mean) == (5, 4, pytest.approx(0.604))


def test_the_interval_of_a_mean_has_its_nominal_coverage():
    random = np.random.default_rng(0)
    intervals = [summary(random.normal(0.6, 0.02, 3)) for _ in range(3000)]
    assert 0.94 <= np.mean([result.low <= 0.6 <= result.high for result in intervals]) <= 0.96


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, which may not fall below the one before it: 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(InputError, match=r"a p value of 1\.5"):
        holm([0.1, 1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_between_none_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    for p, adjusted_p in zip(p_values, adjusted, strict=True):
        assert p <= adjusted_p <= min(1, len(p_values) * p)


def test_holm_adjusts_over_all_variants_that_have_a_p():
    random = np.random.default_rng(2)
    variants = sampled_variants(0.01, 0.01, 0.01, means=[0.6, 0.63, 0.61], random=random) | {"once": [0.7]}
    results = differences(variants, "v0")
    assert list(results) == ["v1", "v2", "once"]
    assert [results["v1"].adjusted_p, results["v2"].adjusted_p] == holm([results["v1"].p, results["v2"].p])
    assert results["v1"].adjusted_p == 2 * results["v1"].p
    alone = differences({"v0": variants["v0"], "v1": variants["v1"]}, "v0")["v1"]
    assert (alone.low, alone.high) == (results["v1"].low, results["v1"].high)  # the interval is not adjusted


@pytest.mark.parametrize("sizes", [(6, 6), (6, 8), (8, 7)])
def test_an_exact_permutation_p_agrees_with_scipy(sizes):
    random = np.random.default_rng(sizes[1])
    values, base = random.normal(0.62, 0.02, sizes[0]).round(2), random.normal(0.6, 0.02, sizes[1]).round(2)  # ties

    def gap(first, second, axis):  # scipy's own two-sided p is twice the smaller tail, where the sizes differ
        return np.abs(mean_difference(first, second, axis)).round(9)

    expected = stats.permutation_test((values, base), gap, n_resamples=np.inf, alternative="greater", vectorized=True)
    assert permutation_p(values, base) == pytest.approx(expected.pvalue, rel=1e-12)
    assert differences({"b": base, "v": values}, "b")["v"].permutation_p == permutation_p(values, base)


def test_a_sampled_permutation_p_is_close_to_the_exact_one_and_deterministic():
    random = np.random.default_rng(4)
    values, base = random.normal(0.614, 0.01, 8), random.normal(0.6, 0.01, 8)  # 12,870 splits
    exact = stats.permutation_test((values, base), mean_difference, n_resamples=np.inf, vectorized=True).pvalue
    assert 0.01 < exact < 0.2
    assert permutation_p(values, base) == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))
    assert permutation_p(values, base) == permutation_p(values.tolist(), base.tolist())
    assert permutation_p(values + 10, base) == pytest.approx(1 / 10_001, abs=2 / 10_001)  # small, never 0
    assert permutation_p(values[:5], base) is None and permutation_p(values, base[:5]) is None


def test_what_seeds_cannot_tell_is_none():
    variants = {"base": [0.5, 0.5, 0.5], "once": [0.9], "same": [0.5, 0.5], "stuck": [0.9, 0.9], "moves": [0.9, 0.8]}
    results = differences(variants, "base")
    assert results["once"][3:9] == (None,) * 6 and results["once"].difference == 0.4
    assert results["stuck"][3:9] == (None,) * 6 and not results["stuck"].distinguishable
    assert (results["same"].p, results["same"].low, results["same"].adjusted_p) == (1, None, 1)
    known = stats.ttest_1samp(variants["moves"], 0.5)  # with no spread in the base, it is like a known number
    assert (results["moves"].p, results["moves"].df) == pytest.approx((known.pvalue, 1))
    assert not differences({"base": [0.5], "other": [0.9, 0.91]}, "base")["other"].distinguishable
    assert summary([0.7]) == (1, 0.7, None, None, None, None)
    assert summary([0.1] * 3) == (3, 0.1, 0, 0.1, 0.1, 2)  # 0.1 three times is 0.3 and a bit, but has no spread


def test_seeds_without_spread_have_no_permutation_p_unless_they_are_equal():
    results = differences({"base": [0.5] * 6, "stuck": [0.9] * 6, "same": [0.5] * 6}, "base")
    assert results["stuck"].permutation_p is None and results["same"].permutation_p == 1


@settings(max_examples=50)
@given(SCORES, SCORES, st.floats(-10, 10))
def test_a_difference_changes_its_sign_with_the_base_and_nothing_with_the_scale(first, second, shift):
    forth = differences({"a": first, "b": second}, "a")["b"]
    back = differences({"a": first, "b": second}, "b")["a"]
    assert forth.difference == -back.difference and forth.n == back.base_n
    if forth.low is None:
        assert back.low is None and forth.p == back.p
    else:
        assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), rel=1e-9, abs=1e-300)
        assert forth.low <= forth.difference <= forth.high
        assert forth.p == pytest.approx(back.p, rel=1e-9)
        assert forth.distinguishable == back.distinguishable == (forth.p <= 1 - 0.95)


def test_200_studies_of_nothing_call_a_difference_in_3_to_7_percent():
    """Of 200, a perfect test would leave this range with one seed in seven; the thousands below leave less to luck."""
    assert 0.03 <= called_share(200, 0.02, 0.02, seed=3) <= 0.07


@pytest.mark.parametrize("deviations", [(0.02, 0.02), (0.005, 0.04)], ids=["equal", "unequal"])
def test_thousands_of_studies_of_nothing_call_a_difference_in_4_to_6_percent(deviations):
    assert 0.04 <= called_share(3000, *deviations, seed=1) <= 0.06


def test_whole_studies_of_four_variants_without_a_difference_rarely_call_any():
    assert 0.02 <= called_share(1200, *[0.02] * 4, seed=2) <= 0.055


def test_a_pooled_test_would_not_do_with_unequal_numbers_of_seeds():
    random = np.random.default_rng(3)
    studies = [(random.normal(0, 4, 4), random.normal(0, 1, 12)) for _ in range(600)]
    result = np.mean([differences({"a": a, "b": b}, "a")["b"].distinguishable for a, b in studies])
    pooled = np.mean([stats.ttest_ind(a, b).pvalue <= 0.05 for a, b in studies])
    assert result <= 0.065 and pooled > 0.15


def test_questions_as_the_unit_would_call_false_differences():
    random = np.random.default_rng(4)
    calls = 0
    for _ in range(300):
        shares = [values.mean() for values in sampled_variants(0.02, 0.02, random=random).values()]
        error = math.sqrt(sum(share * (1 - share) / 2500 for share in shares))
        calls += abs(shares[0] - shares[1]) > 1.96 * error
    assert calls / 300 > 0.12


@pytest.mark.parametrize(
    "seeds, effect, chance",
    [(20, 1.0, 0.868953), (64, 0.5, 0.801460), (26, 0.8, 0.807487), (17, 1.0, 0.807037)],
)
def test_power_is_what_programs_print(seeds, effect, chance):
    """R's `power.t.test(n = 20, delta = 1)`, which is the example of its manual, and G*Power's for Cohen's sizes."""
    assert round(power(seeds, 1.0, effect), 6) == chance


@pytest.mark.parametrize("effect, seeds", [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_seeds_needed_are_those_of_the_tables(effect, seeds):
    assert seeds_needed(1.0, effect) == seeds == seeds_needed(0.01, -0.01 * effect)
    assert power(seeds, 1.0, effect) >= 0.8 > power(seeds - 1, 1.0, effect)


def test_power_agrees_with_the_noncentral_f_distribution_everywhere():
    """The square of a noncentral t; scipy's noncentral t has no answer for the far tail of a large difference."""
    for seeds in (2, 3, 5, 10, 50, 300, 10_000):
        df = 2 * (seeds - 1)
        for effect in (1e-6, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 1e3):
            for comparisons in (1, 3):
                least = special.stdtrit(df, 1 - 0.025 / comparisons)
                expected = 1 - stats.ncf.cdf(least**2, 1, df, effect**2 * seeds / 2)
                result = power(seeds, 1.0, effect, comparisons=comparisons)
                assert result == pytest.approx(expected, abs=1e-7), (seeds, effect)
    assert power(5, 1.0, 0.0) == pytest.approx(0.05) and power(5, 1.0, 0.0, comparisons=5) == pytest.approx(0.01)


@pytest.mark.parametrize("seeds, effect", [(2, 2.0), (5, 0.3), (5, 1.5), (12, -1.0)])
def test_power_agrees_with_a_simulation(seeds, effect):
    random = np.random.default_rng(5)
    variant, base = random.normal(0, 1, (2, 40_000, seeds))
    error = np.sqrt((variant.var(axis=1, ddof=1) + base.var(axis=1, ddof=1)) / seeds)
    ratios = (variant.mean(axis=1) - base.mean(axis=1) + effect) / error
    share = np.mean(np.abs(ratios) >= special.stdtrit(2 * (seeds - 1), 0.975))
    assert power(seeds, 1.0, effect) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("difference", [0.021, 0.044])
def test_a_planted_difference_is_called_at_the_nominal_power(difference):
    std = math.hypot(0.01, math.sqrt(0.6 * 0.4 / 500))  # of seeds, and of the questions of the test set
    seeds = seeds_needed(std, difference)
    share = called_share(600, 0.01, 0.01, seeds=seeds, means=[0.6, 0.6 + difference], seed=6)
    assert 3 < seeds < 30 and 0.77 <= share <= 0.9


def test_more_comparisons_and_smaller_differences_need_more_seeds():
    needed = [seeds_needed(0.01, 0.02, comparisons=count) for count in (1, 2, 4, 8)]
    assert needed == sorted(set(needed))
    assert seeds_needed(0.01, 0.01) > seeds_needed(0.01, 0.02) > seeds_needed(0.01, 1.0) == 2


def test_deviations_pool_within_variants():
    assert pooled_std([[1.0, 3.0], [10.0, 11.0, 12.0], [99.0]]) == pytest.approx(math.sqrt((2 + 2) / 3))
    assert pooled_std([[1.0], [2.0]]) is None and pooled_std([]) is None


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: summary([]), r"shape \(0,\): expected a list of at least one number"),
        (lambda: summary([0.5, math.nan]), "nan at place 1: expected finite"),
        (lambda: summary(np.array(["high"])), "not all numbers"),
        (lambda: differences({"base": [0.5], "film": [math.inf]}, "base"), "variant 'film' hold inf at place 0"),
        (lambda: differences({"concat": [0.5], "film": [0.5]}, "fil"), "choose one of: concat, film"),
        (lambda: pooled_std([[]]), "at least one number"),
        (lambda: power(1, 0.1, 0.1), "1 seeds a variant have no spread"),
        (lambda: power(5, 0.0, 0.1), "a deviation between seeds of 0.0: expected a finite number above 0"),
        (lambda: seeds_needed(0.1, math.nan), "a difference of nan"),
        (lambda: seeds_needed(0.1, 0.0), "found by no number of seeds"),
        (lambda: seeds_needed(0.1, 0.1, comparisons=0), "0 comparisons: expected at least 1"),
        (
            lambda: seeds_needed(1.0, 0.001),
            r"more than 10,000 seeds a variant: expected a difference of 0.0397 or more",
        ),
    ],
)
def test_wrong_input_gets_one_line(wrong, message):
    with pytest.raises(InputError, match=message) as raised:
        wrong()
    assert "\n" not in str(raised.value)


def test_the_difference_that_the_error_names_is_detectable():
    assert seeds_needed(1.0, 0.0397) <= 10_000
