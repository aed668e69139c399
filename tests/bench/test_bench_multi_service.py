"""The arithmetic of the multi-service benchmark, by hand; the benchmark itself takes minutes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_multi_service as bench


def test_turns_are_counted_and_steps_are_not() -> None:
    assert bench.reversals([2, 3, 3, 5]) == 0
    assert bench.reversals([2, 3, 2, 2, 4]) == 2
    assert bench.reversals([4]) == 0


def test_the_partition_is_the_cheapest_that_covers_within_the_limits() -> None:
    needs = {"gold/code": {"h100": 2, "a100": 6}, "bronze/api": {"a100": 3, "l40s": 9}}
    plenty = {"h100": 100, "a100": 100, "l40s": 100}
    # of two GPUs each: 2 x 13.76 = 27.52 beside 6 x 6.86 = 41.16; 3 x 6.86 = 20.58 beside 9 x 5.24 = 47.16
    assert bench.partition(needs, plenty, 1e9) == {
        "gold/code": {"h100": 2, "a100": 0},
        "bronze/api": {"a100": 3, "l40s": 0},
    }
    # 4 GPUs of A100 are two replicas, two thirds of the API: the last third is three L40S
    scarce = {"h100": 4, "a100": 4, "l40s": 100}
    assert bench.partition(needs, scarce, 1e9) == {
        "gold/code": {"h100": 2, "a100": 0},
        "bronze/api": {"a100": 2, "l40s": 3},
    }
    assert bench.partition(needs, scarce, 40.0) is None  # 27.52 + 13.72 + 15.72 are dearer


def test_decisions_beyond_a_limit_are_counted() -> None:
    quota = {"h100": 4, "a100": 2, "l40s": 0}
    fits = {"gold/code": {"h100": 2}, "bronze/api": {"a100": 1}}
    many = {"gold/code": {"h100": 2}, "bronze/api": {"h100": 1}}
    assert bench.infeasible([fits, many, fits], quota, 1e9) == 1
    assert bench.infeasible([fits], quota, 30.0) == 1  # 27.52 + 6.86


def test_a_third_of_four_fifths_of_the_peaks() -> None:
    peaks = {"gold/code": {"h100": 2, "a100": 6}, "bronze/api": {"a100": 3}}
    assert bench.third(peaks, "a100") == 3  # 0.8 x (6 + 3) / 3 = 2.4
    # H100 is too dear for the API: three times the price of 3 A100, which is 3 x 10.29 / 6.88 = 4.49 H100
    assert bench.third(peaks, "h100") == 2  # 0.8 x (2 + 4.49) / 3 = 1.73
