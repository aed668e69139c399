"""Intervals that hold what they should, as often as they say, and say "noise" of noise."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from conftest import measures, run_result, series

from autoscaler.whatif.results import RunResult, World
from autoscaler.whatif.uncertainty import Estimate, attainment, by_hour, saving

HOURS = 72


def run(name: str, costs: np.ndarray, *, missed: np.ndarray | float = 0.01) -> RunResult:
    """Return a run with the given cost of each hour, shape (worlds, hours)."""
    worlds = []
    for seed, row in enumerate(np.atleast_2d(costs)):
        ended = np.full(len(row), 1000.0)
        hours = pd.DataFrame({"cost_usd": row, "met": ended * (1 - missed), "ended": ended})
        share = float(hours.met.sum() / hours.ended.sum())
        made = measures(cost_usd=float(row.sum()), slo_attainment_ratio=share, requests=72_000)
        worlds.append(World(seed, made, hours))
    base = run_result(name, worlds[0].measures, series(1.0, hours=0.1))
    return dataclasses.replace(base, worlds=tuple(worlds))


def test_a_saving_in_every_hour_is_sure_and_exact() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.uniform(50.0, 150.0, (3, HOURS))
    got = saving(run("foreserve", 0.8 * theirs), run("hpa", theirs))
    # block by block the share is 20 %: whatever is drawn, so is the sum
    assert (got.value, got.low, got.high) == pytest.approx((0.2, 0.2, 0.2))
    assert got.excludes(0.0)


def test_what_comes_and_goes_is_noise() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(50.0, 150.0, (2, 1, HOURS))
    got = saving(run("foreserve", a), run("hpa", b))
    assert got.low < 0.0 < got.high
    assert not got.excludes(0.0)


def test_nine_in_ten_intervals_hold_the_truth() -> None:
    """Hours are independent here, so an interval of 95 % holds the true share in most of 60 worlds."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        theirs = rng.uniform(50.0, 150.0, (2, HOURS))
        ours = theirs * 0.9 + rng.normal(0.0, 20.0, theirs.shape)
        got = saving(run("foreserve", ours), run("hpa", theirs))
        held += got.low <= 0.1 <= got.high
    assert held >= 52  # of 57 expected; a bootstrap over two worlds is a little narrow


def test_attainment_is_spread_as_its_hours_are() -> None:
    steady = attainment(run("hpa", np.ones(HOURS), missed=0.01))
    assert (steady.value, steady.low, steady.high) == pytest.approx((0.99, 0.99, 0.99))
    rough = attainment(run("hpa", np.ones(HOURS), missed=np.arange(HOURS) % 24 / 24 * 0.04))
    assert rough.low < rough.value < rough.high <= 1.0


def test_too_few_hours_say_nothing() -> None:
    short = np.ones((1, 8))
    got = saving(run("foreserve", 0.5 * short), run("hpa", short))
    assert got.value == pytest.approx(0.5)
    assert not got.is_known
    assert not got.excludes(0.0)
    assert not Estimate(math.nan).is_known


def test_a_run_without_worlds_still_has_its_value() -> None:
    ours = run_result("foreserve", measures(cost_usd=50.0), series(1.0, hours=0.1))
    theirs = run_result("hpa", measures(cost_usd=100.0), series(1.0, hours=0.1))
    assert saving(ours, theirs).value == pytest.approx(0.5)
    assert attainment(ours).value == pytest.approx(0.9925)


def test_hours_add_up() -> None:
    frame = series(1.0, hours=3.0)
    hours = by_hour(frame)
    assert len(hours) == 3
    assert hours.cost_usd.sum() == pytest.approx(frame.cost_usd.sum())
    assert hours.ended.sum() == pytest.approx(frame.finished_requests.sum())
    assert (hours.met / hours.ended).to_numpy() == pytest.approx(0.992)
