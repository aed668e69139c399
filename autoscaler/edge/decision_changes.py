"""What a tick is given besides load and forecast, as differences: policies, start-up times, state.

The operator's policies are edited, its state restored, its start-up times learned. Before each tick its log
says what differs from what a reader has so far (docs/design/014), in records of these kinds:

    {"kind": "policies", "services": {name: policy or null}, "pools": [...]}
    {"kind": "starts", "leads": {service: {variant: [typical seconds, upper seconds]} or null}}
    {"kind": "state", "services": {name: what is remembered, or null}}
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from autoscaler.core.outcome import ServiceState, StartLead, State
from autoscaler.core.types import Policies, Policy, Pool
from autoscaler.edge.codec import Convert, decoder, encoder

Leads = Mapping[tuple[str, str], StartLead]  # (service, variant)
KINDS = ("policies", "starts", "state")
Value = TypeVar("Value")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that enters a tick and is neither observed nor forecast."""

    policies: Policies
    starts: Leads
    state: State


NOTHING = Inputs(Policies({}, ()), {}, State())


def differences(known: Inputs, given: Inputs) -> Iterator[Record]:
    """Yield the records that make `given` of `known`."""
    policies = _changed(known.policies.services, given.policies.services)
    if policies or known.policies.pools != given.policies.pools:
        pool = encoder(Pool)
        yield {
            "kind": "policies",
            "services": _encoded(encoder(Policy), policies),
            "pools": [pool(p) for p in given.policies.pools],
        }
    leads = _changed(_by_service(known.starts), _by_service(given.starts))
    if leads:
        pairs = encoder(Mapping[str, tuple[float, float]])
        yield {
            "kind": "starts",
            "leads": {n: None if own is None else pairs(own) for n, own in leads.items()},
        }
    remembered = _changed(known.state.services, given.state.services)
    if remembered:
        yield {"kind": "state", "services": _encoded(encoder(ServiceState), remembered)}


def with_change(known: Inputs, record: Mapping[str, Any]) -> Inputs:
    """Return the inputs after one record of KINDS; KeyError, TypeError or ValueError if it is none."""
    kind = record["kind"]
    if kind == "policies":
        services = _decoded(decoder(Policy), record["services"])
        pool = decoder(Pool)
        policies = Policies(
            _merged(known.policies.services, services), tuple(pool(p) for p in record["pools"])
        )
        return Inputs(policies, known.starts, known.state)
    if kind == "starts":
        pairs = decoder(Mapping[str, tuple[float, float]])
        changed = {n: None if own is None else pairs(own) for n, own in record["leads"].items()}
        merged = _merged(_by_service(known.starts), changed)
        starts = {(n, v): StartLead(*lead) for n, own in merged.items() for v, lead in own.items()}
        return Inputs(known.policies, starts, known.state)
    if kind == "state":
        remembered = _decoded(decoder(ServiceState), record["services"])
        state = State(_merged(known.state.services, remembered))
        return Inputs(known.policies, known.starts, state)
    raise ValueError(f"kind {kind!r}; allowed: {', '.join(KINDS)}")


def _changed(before: Mapping[str, Value], now: Mapping[str, Value]) -> dict[str, Value | None]:
    """Return what is new or other than before by name, and None for what is gone."""
    out: dict[str, Value | None] = {
        name: value
        for name, value in now.items()
        if name not in before or (before[name] is not value and before[name] != value)
    }
    return out | dict.fromkeys(name for name in before if name not in now)


def _merged(before: Mapping[str, Value], changed: Mapping[str, Value | None]) -> dict[str, Value]:
    kept = {name: value for name, value in before.items() if name not in changed}
    return kept | {name: value for name, value in changed.items() if value is not None}


def _by_service(starts: Leads) -> dict[str, dict[str, tuple[float, float]]]:
    out: dict[str, dict[str, tuple[float, float]]] = {}
    for (service, variant), lead in starts.items():
        out.setdefault(service, {})[variant] = (lead.typical_seconds, lead.upper_seconds)
    return out


def _encoded(one: Convert, changed: Mapping[str, Any]) -> Record:
    return {name: None if value is None else one(value) for name, value in changed.items()}


def _decoded(one: Convert, content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else one(value) for name, value in content.items()}
