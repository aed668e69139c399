"""Decide again what was decided before, from the log, and compare every byte."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autoscaler.core.leads import leads_now
from autoscaler.core.outcome import Decisions, Forecasts, Outlook, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import ServingModels
from autoscaler.edge.decision_changes import Inputs
from autoscaler.edge.decision_log import Entry, tick_line
from autoscaler.loop import start_leads


@dataclass(frozen=True, slots=True)
class Replayed:
    """One logged tick decided again; `line` is what the log would hold now."""

    entry: Entry
    decisions: Decisions
    line: str

    @property
    def agrees(self) -> bool:
        """Whether every byte of the logged line came out again."""
        return self.line == self.entry.line


def replay(
    policies: Policies, models: ServingModels, entries: Iterator[Entry]
) -> Iterator[Replayed]:
    """Yield every tick decided again, in the log's order, as `Controller.step` decides.

    From a fresh state, these policies and the models' start-up times, until the log says otherwise.
    """
    learned = start_leads(policies, models.lead_time)
    untold = {key: of.mix for key, of in learned.items()}
    known = Inputs(policies, untold, State())
    outlooks: Mapping[str, Outlook] = {}
    for entry in entries:
        known = entry.changed(known)
        outlooks = outlooks if entry.outlooks is None else entry.outlooks
        starts: Mapping[tuple[str, str], StartLead] = known.starts
        if known.starts is untold:  # a log of one model and no operator's: they follow from it
            starts = leads_now(policies, learned, outlooks, entry.observation)
        forecasts = Forecasts(outlooks, models.latency, starts)
        after, decisions = tick(known.policies, forecasts, known.state, entry.observation)
        line = tick_line(entry.observation, entry.outlooks, decisions)
        yield Replayed(entry, decisions, line)
        kept = State({**known.state.services, **after.services})
        known = Inputs(known.policies, known.starts, kept)
