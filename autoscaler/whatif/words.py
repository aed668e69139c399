"""The only place where numbers of a comparison become text for people: percent, dollars, sentences."""

import math

from autoscaler.whatif.results import FORESERVE, Comparison, RunResult
from autoscaler.whatif.uncertainty import Estimate, saving


def headline(comparison: Comparison) -> str:
    """Return the one sentence for a reader who reads only one.

    It never claims a saving over a rival unless both met the attainment that was asked for.
    """
    ours = comparison.run(FORESERVE)
    if ours is None:
        return f"{len(comparison.runs)} autoscalers compared; Foreserve was not among them."
    m = ours.measures
    done = (
        f"Foreserve served {percent(m.slo_attainment_ratio)} of {m.requests:,} requests "
        f"within the SLO for {usd(m.cost_usd)}"
    )
    if not comparison.met(ours):
        done += f", short of the {percent(comparison.attainment)} asked for"
    rival = comparison.best_rival()
    if rival is None:
        return f"{done}."
    return f"{done}{_beside(comparison, ours, rival)}."


def _beside(comparison: Comparison, ours: RunResult, rival: RunResult) -> str:
    other = rival.measures
    theirs = f"{usd(other.cost_usd)}, {percent(other.slo_attainment_ratio)}"
    tuned = "the cheapest rival, " if comparison.met(rival) else "the rival that came closest, "
    if not (comparison.met(ours) and comparison.met(rival)) or other.cost_usd == 0:
        return f"; {tuned}{rival.label}, took {theirs}"
    here = 1 - ours.measures.cost_usd / other.cost_usd
    over_all = saving(ours, rival)
    difference = f"{_more_or_less(here)} than"
    if over_all.is_known and not (over_all.excludes(0.0) and over_all.value * here > 0):
        worlds = len(ours.worlds)
        others = f", {_more_or_less(over_all.value)} over {worlds} worlds" if worlds > 1 else ""
        difference = f"no clear difference ({_more_or_less(here)}{others}: noise) from"
    return f": {difference} {tuned}{rival.label} ({theirs})"


def _more_or_less(saved: float) -> str:
    return f"{abs(saved) * 100:.0f} % {'less' if saved >= 0 else 'more'}"


def span(estimate: Estimate) -> str:
    """Render an interval of a share, or that there is none."""
    if not estimate.is_known:
        return "too few hours to say"
    return f"{estimate.low * 100:.1f} to {estimate.high * 100:.1f} %"


def percent(ratio: float) -> str:
    """Render a ratio, rounded down: 0.98996 has not reached 99 % and must not read as if."""
    if math.isnan(ratio):
        return "-"
    return f"{math.floor(ratio * 10_000 + 1e-9) / 100:.2f} %"


def usd(amount: float) -> str:
    """Render an amount of money."""
    if math.isnan(amount):
        return "-"
    return f"−${-amount:,.0f}" if round(amount) < 0 else f"${abs(amount):,.0f}"


def seconds(value: float) -> str:
    """Render a latency."""
    if math.isnan(value):
        return "-"
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def times(ratio: float) -> str:
    """Render a ratio to the clairvoyant plan."""
    return "-" if math.isnan(ratio) else f"{ratio:.2f} ×"


TABLE_HEADER = (
    "Autoscaler",
    "GPU-hours",
    "Cost",
    "× clairvoyant",
    "SLO attainment",
    "p95 TTFT",
    "Scale-ups",
    "Scale-downs",
    "Setting",
)


def table_row(comparison: Comparison, run: RunResult) -> tuple[str, ...]:
    """Return one row under TABLE_HEADER, rendered."""
    m = run.measures
    return (
        run.label,
        f"{m.gpu_hours:,.1f}",
        usd(m.cost_usd),
        times(comparison.times_clairvoyant(run)),
        percent(m.slo_attainment_ratio),
        seconds(m.ttft_p95_seconds),
        f"{m.scale_ups:,}",
        f"{m.scale_downs:,}",
        run.setting,
    )
