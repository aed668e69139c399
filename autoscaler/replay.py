"""Decide again what was decided before, from the log, and compare every byte."""

from collections.abc import Iterator
from dataclasses import dataclass

from autoscaler.core.outcome import Decisions, Forecasts, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import ServingModels
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
    """Yield every tick decided again, from a fresh state, in the log's order."""
    starts = start_leads(policies, models.lead_time)
    state = State()
    forecasts = Forecasts({}, models.latency, starts)
    for entry in entries:
        if entry.outlooks is not None:
            forecasts = Forecasts(entry.outlooks, models.latency, starts)
        state, decisions = tick(policies, forecasts, state, entry.observation)
        line = tick_line(entry.observation, entry.outlooks, decisions)
        yield Replayed(entry, decisions, line)
