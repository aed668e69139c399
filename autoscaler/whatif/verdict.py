"""What a manager wants to know first: saved cost, attainment, what to do, how sure that is."""

from dataclasses import dataclass

from autoscaler.whatif.results import CLAIRVOYANT, FORESERVE, Comparison, RunResult
from autoscaler.whatif.uncertainty import Estimate, attainment, mean_cost_usd, saving
from autoscaler.whatif.words import percent, span, usd

MONTH_HOURS = 730.0


@dataclass(frozen=True, slots=True)
class Card:
    """One figure of the first screen. tone: good, bad or plain."""

    title: str
    figure: str
    text: str
    tone: str = "plain"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first screen: its figures, and what is recommended in a sentence."""

    cards: tuple[Card, ...]
    advice: str


def verdict(comparison: Comparison) -> Verdict:
    """Return the first screen of a comparison."""
    ours = comparison.run(FORESERVE)
    if ours is None:
        best = comparison.best_rival()
        advice = "Foreserve was not among those compared: nothing is recommended."
        return Verdict(() if best is None else (_attained(comparison, best),), advice)
    rival = comparison.best_rival()
    today = comparison.run("recorded")
    others = [r for r in (today, rival) if r is not None and r is not ours]
    cards = [_saved(comparison, ours, other) for other in dict.fromkeys(r.name for r in others)]
    cards += [_attained(comparison, ours), _sure(ours, rival)]
    return Verdict(tuple(cards), _advice(comparison, ours, rival))


def _saved(comparison: Comparison, ours: RunResult, name: str) -> Card:
    other = comparison.run(name)
    assert other is not None  # noqa: S101  (it comes from the comparison)
    share = saving(ours, other)
    hours = _hours(ours)
    less = mean_cost_usd(other) - mean_cost_usd(ours)
    month = less / hours * MONTH_HOURS if hours else 0.0
    title = f"{'Saved' if share.value >= 0 else 'Dearer'}, beside {other.label.lower()}"
    if other.label[0] != "T":  # names of products keep their capitals
        title = f"{'Saved' if share.value >= 0 else 'Dearer'}, beside {other.label}"
    text = f"{usd(abs(less))} in {hours:g} hours, about {usd(abs(month))} a month at this pace."
    if len(ours.worlds) > 1:
        text += f" Mean of {len(ours.worlds)} drawn worlds; the table below is the first."
    if not comparison.met(other):
        text += f" {other.label} missed the SLO: {percent(other.measures.slo_attainment_ratio)}."
    tone = "plain"
    if share.excludes(0.0):
        tone = "good" if share.value > 0 else "bad"
    return Card(title, f"{abs(share.value) * 100:.0f} %", text, tone)


def _attained(comparison: Comparison, run: RunResult) -> Card:
    got = attainment(run)
    met = comparison.met(run)
    text = (
        f"of {run.measures.requests:,} requests within the SLO; "
        f"{percent(comparison.attainment)} was asked for."
    )
    if got.is_known:
        text += f" 95 % interval: {span(got)}."
    title = f"Attainment, {run.label}"
    return Card(title, percent(run.measures.slo_attainment_ratio), text, "good" if met else "bad")


def _sure(ours: RunResult, rival: RunResult | None) -> Card:
    worlds = len(ours.worlds)
    drawn = f"{worlds} drawn worlds" if worlds > 1 else "one drawn world"
    if rival is None:
        return Card("How sure", "-", "There was no rival to compare with.")
    share = saving(ours, rival)
    if not share.is_known:
        return Card("How sure", "Unknown", "Too few hours were judged to say how much is luck.")
    where = f"95 of 100 redraws of {drawn} and of their hours put it at {span(share)}"
    if share.excludes(0.0):
        figure = "Sure" if worlds > 1 else "Fairly sure"
        return Card("How sure", figure, f"The difference to {rival.label}: {where}.", "good")
    return Card("How sure", "Noise", f"No clear difference to {rival.label}: {where}.")


def _advice(comparison: Comparison, ours: RunResult, rival: RunResult | None) -> str:
    trial = "Apply these policies in Recommend mode, which scales nothing, and compare for a week."
    luck = _within_luck(comparison, ours)
    if not comparison.met(ours):
        if luck and rival is not None and saving(ours, rival).low > 0:
            return (
                f"Open. Foreserve costs less than {rival.label}, set with hindsight, and may have missed "
                f"the SLO by chance. {luck} {trial}"
            )
        if rival is not None and comparison.met(rival):
            return f"{rival.label} ({rival.setting}) met the SLO and Foreserve did not: keep to it. {trial}"
        return f"Nobody that could be run met the SLO: look at the SLO and at the limits first. {trial}"
    if rival is None or not comparison.met(rival):
        return f"Foreserve met the SLO, and no rival did. {trial}"
    share: Estimate = saving(ours, rival)
    if share.excludes(0.0) and share.value > 0:
        return " ".join(part for part in ("Foreserve.", luck, trial) if part)
    if share.excludes(0.0):
        return f"{rival.label} ({rival.setting}) was cheaper, set with hindsight. {trial}"
    return f"Foreserve costs about as much as {rival.label} set with hindsight. {trial}"


def _within_luck(comparison: Comparison, run: RunResult) -> str:
    """Say that these hours cannot tell what was attained from what was asked for; nothing if they can."""
    got = attainment(run)
    if not got.is_known or got.excludes(comparison.attainment):
        return ""
    return (
        f"{percent(run.measures.slo_attainment_ratio)} cannot be told from the "
        f"{percent(comparison.attainment)} asked for (95 % interval: {span(got)}): more days or seeds can."
    )


def _hours(run: RunResult) -> float:
    ends = run.series.ts_seconds
    if len(ends) < 2:
        return 0.0
    tick = float(ends.drop_duplicates().sort_values().diff().median())
    return round((float(ends.max()) - float(ends.min()) + tick) / 3600.0, 2)


def shown_runs(comparison: Comparison) -> tuple[RunResult, ...]:
    """Return the runs that plots over time show: Foreserve, the bound, today's and the best rivals."""
    ranked = sorted(
        (r for r in comparison.runs if r.name not in (FORESERVE, CLAIRVOYANT, "recorded")),
        key=lambda r: (not comparison.met(r), r.measures.cost_usd),
    )
    names = {FORESERVE, CLAIRVOYANT, "recorded", *(r.name for r in ranked[:3])}
    return tuple(r for r in comparison.runs if r.name in names)
