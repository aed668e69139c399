"""The SLO's error budget: how much of it is spent, and how safe the next plan should be.

The budget of a window is (1 - attainment) times the requests of the window. It is whole at the start:
until a window's worth of requests has been seen, the missing part counts as served just as planned.
The plan's own target follows what was attained: a deficit makes it safer, in proportion (GAIN), down to
SAFEST; a surplus is luck, and is not spent. A RESERVE of the budget is not planned for, so that 99 %
asked for means a little more than 99 %.

What a plan aims at comes true only if the latency model is neither too dark nor too bright, and if plans
are no safer than their aim. The window keeps what is needed to correct both: the misses that the model
expected of the loads that came (miss_bias), and those that plans aimed at and promised (plan_slack).
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from autoscaler.core.outcome import BudgetHour, Told
from autoscaler.core.types import ServiceObservation
from models.slo import SloTargets

GAIN = 1.0
RESERVE = 0.1  # of the allowed misses, not planned for
SAFEST = (
    0.25  # at least this part of the allowed misses is planned for: certainty costs without end
)
LEAST_BIAS = 0.7  # of expected misses that come true: less is luck, and luck turns
MOST_BIAS = 4.0
LEAST_SLACK = 0.3  # of the misses aimed at that a plan expects: more rests on few plans
HOURS_OF_GRACE = 6.0  # requests at the recent rate that count as served as planned
HOURS_OF_DOUBT = 2.0  # and that count as just as foretold
SECONDS_PER_HOUR = 3600.0
LEVELS = (0.5, 0.95, 0.99)  # of the percentiles that are measured
MOST_TOLD = 0.995  # share within a target that p99 meets: nothing is known beyond it
NOTHING = Told()


class Spent(NamedTuple):
    """A window's hours that were seen, and their sums: requests, and those that missed or were to miss."""

    hours: int
    finished: float
    missed: float
    foretold: float
    aimed: float
    promised: float


def record(
    hours: tuple[BudgetHour, ...],
    now_seconds: float,
    window_hours: float,
    finished: float,
    attained_ratio: float,
    told: Told = NOTHING,
) -> tuple[BudgetHour, ...]:
    """Return the window's hours with one interval's finished requests added.

    `told`: what the tick before said of them. Until something was, an hour's `aimed` and `promised` are NaN.
    """
    hour = int(now_seconds // SECONDS_PER_HOUR)
    since = hour - window_hours
    if hours and hours[0].hour <= since:  # once an hour: a month has 720 of them
        hours = tuple([h for h in hours if h.hour > since])
    if not (math.isfinite(finished) and math.isfinite(attained_ratio)) or finished <= 0:
        return hours
    missed = finished * (1.0 - attained_ratio)
    expected = finished * (1.0 - told.expected)
    foretold = expected if math.isfinite(expected) else missed
    aimed, promised = finished * (1.0 - told.aimed), finished * (1.0 - told.promised)
    if not math.isfinite(aimed + promised):  # one without the other compares nothing
        aimed = promised = math.nan
    if hours and hours[-1].hour == hour:
        last, hours = hours[-1], hours[:-1]
        finished, missed = finished + last.finished, missed + last.missed
        foretold += _foretold(last)
        aimed, promised = _told_sum(aimed, last.aimed), _told_sum(promised, last.promised)
    return (*hours, BudgetHour(hour, finished, missed, foretold, aimed, promised))


def _told_sum(misses: float, before: float) -> float:
    """Return the sum of what was told; NaN only where neither was."""
    if math.isnan(misses) or math.isnan(before):
        return before if math.isnan(misses) else misses
    return misses + before


def spent(hours: Sequence[BudgetHour]) -> Spent:
    """Return a window's sums; misses aimed at and promised are of the hours in which both were told."""
    finished = missed = foretold = aimed = promised = 0.0
    for h in hours:
        finished += h.finished
        missed += h.missed
        foretold += _foretold(h)
        if math.isfinite(h.aimed + h.promised):
            aimed += h.aimed
            promised += h.promised
    return Spent(len(hours), finished, missed, foretold, aimed, promised)


def attained_ratio(window: Spent, attainment: float, recent_rate_rps: float) -> float:
    """Return the share of requests that met the SLO in the window, the grace counted as planned."""
    grace = _grace_requests(window, recent_rate_rps)
    planned = grace * planned_misses(attainment)
    return 1.0 - (window.missed + planned) / (window.finished + grace)


def miss_bias(window: Spent, attainment: float, recent_rate_rps: float) -> float:
    """Return how many requests miss for each that the latency model expects to, at the loads that came.

    Its doubt counts as one to one; from LEAST_BIAS to MOST_BIAS.
    """
    doubt = _doubted_misses(window, attainment, recent_rate_rps)
    return min(max((window.missed + doubt) / (window.foretold + doubt), LEAST_BIAS), MOST_BIAS)


def plan_slack(window: Spent, attainment: float, recent_rate_rps: float) -> float:
    """Return how many misses plans expect for each that they aimed at, from LEAST_SLACK to 1.

    Replicas are whole, and those that may be needed again soon are kept: plans are safer than their aim.
    """
    doubt = _doubted_misses(window, attainment, recent_rate_rps)
    return min(max((window.promised + doubt) / (window.aimed + doubt), LEAST_SLACK), 1.0)


def _foretold(hour: BudgetHour) -> float:
    return hour.missed if math.isnan(hour.foretold) else hour.foretold


def _doubted_misses(window: Spent, attainment: float, recent_rate_rps: float) -> float:
    requests = _grace_requests(window, recent_rate_rps) * HOURS_OF_DOUBT / HOURS_OF_GRACE
    return requests * (1.0 - attainment)


def _grace_requests(window: Spent, recent_rate_rps: float) -> float:
    rate = recent_rate_rps
    if not math.isfinite(rate):  # blind: as busy as the window was
        rate = window.finished / (max(1, window.hours) * SECONDS_PER_HOUR)
    return max(1.0, rate * HOURS_OF_GRACE * SECONDS_PER_HOUR)


def left_ratio(
    window: Spent, attainment: float, window_hours: float, recent_rate_rps: float
) -> float:
    """Return the share of the window's error budget left: 1 nothing missed, 0 spent, negative overspent.

    1 - missed / ((1 - attainment) * requests of the whole window), where the part of the window that has
    not been seen yet counts with the recent rate: the budget is whole at the start.
    """
    if window.missed <= 0:
        return 1.0
    seen_hours = min(window.hours, window_hours)
    rate = recent_rate_rps if math.isfinite(recent_rate_rps) else 0.0
    requests = window.finished + rate * (window_hours - seen_hours) * SECONDS_PER_HOUR
    return 1.0 - window.missed / ((1.0 - attainment) * requests)


def planned_misses(attainment: float) -> float:
    """Return the share of requests that may miss, less the reserve."""
    return (1.0 - RESERVE) * (1.0 - attainment)


def attainment_target(
    attained: float, attainment: float, bias: float = 1.0, slack: float = 1.0
) -> float:
    """Return what the next plan should aim at, given what the window attained.

    Of the misses that a plan aims at it expects `slack` (plan_slack), and of those `bias` come true
    (miss_bias): it may aim at that many more. RESERVE is kept back.
    """
    allowed = planned_misses(attainment)
    miss = allowed + GAIN * (allowed - (1.0 - attained))
    wanted = min(max(miss, SAFEST * allowed), allowed)
    return 1.0 - min(wanted / (bias * slack), 0.5)


def observed_attainment(
    observation: ServiceObservation, targets: SloTargets
) -> tuple[float, float]:
    """Return (finished requests, share of them within the SLO) over all variants; NaN if unknown.

    Where no share is measured, it is read off the latency percentiles.
    """
    finished = missed = 0.0
    for v in observation.variants.values():
        if not 0.0 < v.finished_requests < math.inf:
            continue
        share = v.slo_attainment_ratio
        if not math.isfinite(share):
            ttft = (v.ttft_p50_seconds, v.ttft_p95_seconds, v.ttft_p99_seconds)
            tpot = (v.tpot_p50_seconds, v.tpot_p95_seconds, v.tpot_p99_seconds)
            share = min(
                share_within(ttft, targets.ttft_seconds), share_within(tpot, targets.tpot_seconds)
            )
        if math.isfinite(share):
            finished += v.finished_requests
            missed += v.finished_requests * (1.0 - share)
    if finished <= 0:
        return math.nan, math.nan
    return finished, 1.0 - missed / finished


def share_within(percentiles: tuple[float, float, float], target_seconds: float) -> float:
    """Share of requests within a target, from p50, p95 and p99: linear in the log of latency.

    1 without a target, NaN without a percentile; at most 0.995 and at least 0.25, since nothing is
    known beyond the percentiles.
    """
    if math.isinf(target_seconds):
        return 1.0
    if 0.0 < percentiles[-1] <= target_seconds:  # as it should be: the others tell no more
        return MOST_TOLD
    known = [(s, q) for s, q in zip(percentiles, LEVELS, strict=True) if 0.0 < s < math.inf]
    if not known:
        return math.nan
    last_seconds, last = known[-1]
    if target_seconds >= last_seconds:
        return MOST_TOLD if last >= 0.99 else (1.0 + last) / 2
    if target_seconds < known[0][0]:
        return 0.25
    for (s0, q0), (s1, q1) in itertools.pairwise(known):
        if s0 <= target_seconds < s1:
            x0, x1 = math.log(s0), math.log(s1)
            return q0 + (q1 - q0) * (math.log(target_seconds) - x0) / (x1 - x0)
    return last
