"""The first screen says what the numbers say: saved, dearer, noise, missed."""

import dataclasses

import numpy as np
import pytest
from conftest import measures, series

from autoscaler.whatif.results import Comparison, RunResult, World
from autoscaler.whatif.uncertainty import by_hour
from autoscaler.whatif.verdict import shown_runs, verdict
from autoscaler.whatif.words import headline


def costing(run: RunResult, factor: float, *, noise: float = 0.0, seed: int = 0) -> RunResult:
    """Return a run whose hours cost `factor` dollars each, give or take noise."""
    rng = np.random.default_rng(seed)
    frame = series(1.0)
    hourly = factor * np.exp(noise * rng.standard_normal(24))
    frame["cost_usd"] = np.repeat(hourly / 240, 240)
    made = dataclasses.replace(run.measures, cost_usd=float(hourly.sum()))
    world = World(7, made, by_hour(frame))
    return dataclasses.replace(
        run, measures=made, services=dict.fromkeys(run.services, made), worlds=(world,)
    )


def of(comparison: Comparison, ours: RunResult, hpa: RunResult) -> Comparison:
    return dataclasses.replace(comparison, runs=(ours, hpa))


def test_a_saving_in_every_hour_is_sure_and_recommended(comparison: Comparison) -> None:
    got = verdict(
        of(comparison, costing(comparison.runs[0], 75.0), costing(comparison.runs[2], 100.0))
    )
    saved, attained, sure = got.cards
    assert (saved.title, saved.figure, saved.tone) == (
        "Saved, beside HPA on concurrency",
        "25 %",
        "good",
    )
    assert "$600 in 24 hours, about $18,250 a month" in saved.text
    assert (attained.figure, attained.tone) == ("99.25 %", "good")
    assert sure.figure == "Fairly sure"  # one world: the luck of its draw is not in it
    assert got.advice.startswith("Foreserve. ")


def test_noise_is_called_noise_everywhere(comparison: Comparison) -> None:
    ours = costing(comparison.runs[0], 99.0, noise=0.3, seed=1)
    hpa = costing(comparison.runs[2], 100.0, noise=0.3, seed=2)
    both = of(comparison, ours, hpa)
    got = verdict(both)
    assert got.cards[0].tone == "plain"
    assert got.cards[2].figure == "Noise"
    assert "about as much as HPA on concurrency" in got.advice
    assert "no clear difference" in headline(both)


def test_a_dearer_foreserve_says_so_first(comparison: Comparison) -> None:
    both = of(comparison, costing(comparison.runs[0], 120.0), costing(comparison.runs[2], 100.0))
    got = verdict(both)
    assert (got.cards[0].title, got.cards[0].tone) == ("Dearer, beside HPA on concurrency", "bad")
    assert "was cheaper" in got.advice
    assert "20 % more than" in headline(both)


@pytest.mark.parametrize(("hpa_met", "words"), [(0.995, "keep to it"), (0.9, "Nobody")])
def test_a_missed_slo_is_no_success(comparison: Comparison, hpa_met: float, words: str) -> None:
    missed = measures(slo_attainment_ratio=0.95)
    ours = dataclasses.replace(
        comparison.runs[0],
        measures=missed,
        services=dict.fromkeys(comparison.runs[0].services, missed),
    )
    theirs = measures(slo_attainment_ratio=hpa_met)
    hpa = dataclasses.replace(
        comparison.runs[2],
        measures=theirs,
        services=dict.fromkeys(comparison.runs[2].services, theirs),
    )
    got = verdict(of(comparison, ours, hpa))
    assert got.cards[1].tone == "bad"
    assert words in got.advice


@pytest.mark.parametrize(
    ("mean", "swing", "words"),
    [
        (0.989, 0.009, "Open. Foreserve costs less"),  # half of the hours at 0.98, half at 0.998
        (0.989, 0.0001, "keep to it"),  # short in every hour: no luck
        (0.9905, 0.009, "Foreserve. 99.05 % cannot be told from the 99.00 % asked for"),
        (0.995, 0.0001, "Foreserve. Apply"),
    ],
)
def test_what_hours_cannot_tell_is_said(
    comparison: Comparison, mean: float, swing: float, words: str
) -> None:
    ours = costing(comparison.runs[0], 75.0)
    hours = ours.worlds[0].hours
    share = mean + swing * np.where(np.random.default_rng(1).permutation(len(hours)) % 2, 1.0, -1.0)
    hours = hours.assign(met=hours.ended * share)
    got = dataclasses.replace(ours.measures, slo_attainment_ratio=mean)
    ours = dataclasses.replace(
        ours,
        measures=got,
        services=dict.fromkeys(ours.services, got),
        worlds=(World(7, got, hours),),
    )
    advice = verdict(of(comparison, ours, costing(comparison.runs[2], 100.0))).advice
    assert words in advice


def test_today_is_beside_the_best_rival(comparison: Comparison) -> None:
    today = dataclasses.replace(comparison.runs[1], name="recorded")
    runs = (comparison.runs[0], today, comparison.runs[2])
    got = verdict(dataclasses.replace(comparison, runs=runs))
    assert [c.title for c in got.cards[:2]] == [
        "Saved, beside today's fleet",
        "Saved, beside HPA on concurrency",
    ]


def test_without_foreserve_nothing_is_recommended(comparison: Comparison) -> None:
    got = verdict(dataclasses.replace(comparison, runs=comparison.runs[1:]))
    assert "nothing is recommended" in got.advice


def test_lines_over_time_are_the_ones_that_matter(comparison: Comparison) -> None:
    names = ("keda", "apa", "wva", "dynamo")
    more = tuple(dataclasses.replace(comparison.runs[3], name=n) for n in names)
    shown = shown_runs(dataclasses.replace(comparison, runs=(*comparison.runs, *more)))
    assert [r.name for r in shown][:3] == ["foreserve", "static", "hpa"]
    assert len(shown) == 5
    assert shown[3].name == "clairvoyant" or shown[-1].name in ("clairvoyant", *names)
