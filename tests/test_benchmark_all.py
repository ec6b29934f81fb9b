"""The performance table: a noisy row has no ratio, a roof is the slower of arithmetic and memory."""

import pytest

from experiments import benchmark_all
from experiments.benchmark_all import Figures, Roof


@pytest.mark.parametrize(
    ("ratios", "shown"), [((0.5, 0.51, 0.52, 0.5), "0.51"), ((0.5, 1.0, 0.4, 0.9), "too noisy to tell")]
)
def test_a_noisy_machine_gives_no_ratio(ratios, shown):
    cells = benchmark_all._text(Figures("a step", 0.05, 0.1, ratios, 0.025)).strip("| ").split(" | ")
    assert cells[:4] == ["a step", "50 ms", "100 ms", shown] and cells[5:] == ["25 ms", "2.0"]
    assert len(cells) == benchmark_all.HEADER.count("|") - 1


def test_a_roof_is_the_slower_of_arithmetic_and_memory():
    assert Roof(flops=10.0, bytes=5.0).seconds(100.0, 5.0) == 10.0
    assert Roof(flops=10.0, bytes=5.0).seconds(10.0, 50.0) == 10.0


def test_every_row_is_a_benchmark_that_exists():
    for row in benchmark_all.ROWS:
        module = row.command.split()[0]
        assert __import__(module, fromlist=["main"]).main
