"""From quantiles to demand points."""

from dataclasses import replace

import numpy as np
import pytest
from builders import NOW, outlook
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.demand import (
    PROBABILITIES,
    WEIGHTS,
    fans_of,
    measured_rate_rps,
    rates_at,
    unmodelled_points,
)
from autoscaler.core.outcome import FloatArray, Outlook, Sample
from models.quantiles import QUANTILES

Q = np.array(QUANTILES)


def envelope(outlook: Outlook, now: float, start: float, end: float) -> FloatArray:
    (fans,) = fans_of({"a": outlook}, now)
    highest: FloatArray = fans.highest(np.array([start]), np.array([end]))[0]
    return highest


def at_leads(outlook: Outlook, leads: list[float]) -> list[float]:
    """Medians at leads after the cutoff."""
    (fans,) = fans_of({str(i): outlook for i in range(len(leads))}, outlook.cutoff_seconds)
    medians: list[float] = fans.at(np.array(leads))[:, 1].tolist()
    return medians


def demand_points(values: FloatArray) -> FloatArray:
    points: FloatArray = rates_at(PROBABILITIES, values[np.newaxis], Q)[0]
    return points


def test_the_grid_is_a_distribution() -> None:
    assert WEIGHTS.sum() == pytest.approx(1.0)
    assert (np.diff(PROBABILITIES) > 0).all()


def test_points_follow_a_linear_quantile_function() -> None:
    # uniform on [0, 100]: the quantile q is 100 q, so is every point
    assert demand_points(100.0 * Q) == pytest.approx(100.0 * PROBABILITIES)


def test_unmodelled_demand_keeps_its_mean() -> None:
    assert float(unmodelled_points(10.0) @ WEIGHTS) == pytest.approx(10.0, rel=0.02)


def test_the_envelope_sees_the_peak_between() -> None:
    flat = outlook(1.0)
    rates = np.array(flat.arrival_rate_rps)
    rates[4] *= 5.0  # one minute, five minutes ahead
    peak = replace(flat, arrival_rate_rps=rates)
    assert envelope(peak, NOW, 0.0, 600.0) == pytest.approx(rates[4])
    assert envelope(peak, NOW, 0.0, 200.0) == pytest.approx(rates[0])
    # a forecast that is a minute old: the peak is four minutes ahead of now
    assert envelope(peak, NOW + 60, 239.0, 241.0) == pytest.approx(rates[4])


def test_leads_between_are_linear_and_the_ends_are_held() -> None:
    flat = outlook(1.0)
    rates = np.array(flat.arrival_rate_rps)
    rates *= np.arange(60)[:, np.newaxis]  # grows by one each minute from 0 at 60 s
    grows = replace(flat, arrival_rate_rps=rates)
    got = at_leads(grows, [0.0, 60.0, 90.0, 120.0, 3600.0, 9999.0])
    assert got == pytest.approx([0.0, 0.0, 0.5, 1.0, 59.0, 59.0])
    one = replace(flat, leads_seconds=np.array([60.0]), arrival_rate_rps=rates[5:6])
    assert at_leads(one, [0.0, 500.0]) == pytest.approx([5.0, 5.0])


def test_the_measured_rate_weighs_intervals() -> None:
    samples = [Sample(10.0, 10.0, 4.0, 0.0), Sample(40.0, 30.0, 8.0, 0.0)]
    assert measured_rate_rps(samples, 40.0, 60.0) == pytest.approx(7.0)  # (40 + 240) / 40
    assert measured_rate_rps(samples, 40.0, 20.0) == pytest.approx(8.0)
    assert np.isnan(measured_rate_rps([], 40.0, 60.0))


def test_services_are_asked_together_as_if_alone() -> None:
    other = replace(outlook(3.0), cutoff_seconds=NOW - 77.0)
    short = replace(  # other leads: a stack of its own
        other, leads_seconds=other.leads_seconds[:7], arrival_rate_rps=other.arrival_rate_rps[:7]
    )
    stacks = list(fans_of({"a": outlook(1.0), "b": other, "c": short}, NOW))
    assert [s.services for s in stacks] == [("a", "b"), ("c",)]
    both = stacks[0].highest(np.array([10.0, 200.0]), np.array([500.0, 240.0]))
    assert (both[0] == envelope(outlook(1.0), NOW, 10.0, 500.0)).all()
    assert (both[1] == envelope(other, NOW, 200.0, 240.0)).all()


@given(st.lists(st.floats(0.0, 1e4), min_size=6, max_size=6))
def test_points_never_cross_and_are_never_negative(values: list[float]) -> None:
    points = demand_points(np.sort(np.array(values)))
    assert (np.diff(points) >= -1e-9).all()
    assert (points >= 0).all()
