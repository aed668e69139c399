"""Golden walks: small worlds driven tick by tick, a function each; the fleet obeys with a delay.

`python tests/golden/walks.py` writes what they do now; the test compares with what was written. Read
the difference before you commit it: every changed line is a changed decision.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
from builders import (
    NOW,
    SERVICE,
    forecasts,
    latency_model,
    observation,
    outlook,
    policies,
    policy,
    seen,
    silence,
    variant,
)

from autoscaler.core.outcome import Decisions, Forecasts, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import AcceleratorClass, Observation, Policies, Pool

EXPECTED = Path(__file__).parent / "expected"
START_TICKS = 3  # a start takes three ticks of a minute
Row = dict[str, object]


@dataclass
class Fleet:
    """Replicas per variant that start after START_TICKS and stop at once."""

    ready: dict[str, int]
    starting: list[tuple[int, str]] = field(default_factory=list)  # (ready at tick, variant)

    def obey(self, at: int, wanted: Mapping[str, int]) -> None:
        for name, n in wanted.items():
            pending = [s for s in self.starting if s[1] == name]
            have = self.ready.get(name, 0) + len(pending)
            for _ in range(max(0, n - have)):
                self.starting.append((at + START_TICKS, name))
            for _ in range(max(0, have - n)):
                if pending:
                    self.starting.remove(pending.pop())
                else:
                    self.ready[name] -= 1

    def pass_time(self, at: int) -> None:
        for start in [s for s in self.starting if s[0] <= at]:
            self.starting.remove(start)
            self.ready[start[1]] = self.ready.get(start[1], 0) + 1

    def shown(self, **changes: float) -> dict[str, object]:
        out = {}
        for name, ready in self.ready.items():
            starting = sum(1 for s in self.starting if s[1] == name)
            out[name] = replace(seen(ready, **changes), starting=starting, desired=ready + starting)
        return out


Known = Callable[[int], Forecasts]
Shown = Callable[[int, Fleet], Observation]


def walk(world: Policies, fleet: Fleet, ticks: int, known: Known, shown: Shown) -> Iterator[Row]:
    state = State()
    for i in range(ticks):
        fleet.pass_time(i)
        state, decisions = tick(world, known(i), state, shown(i, fleet))
        decision = decisions.services[SERVICE]
        fleet.obey(i, decision.variants)
        yield _row(i, decisions)


def _row(i: int, decisions: Decisions) -> Row:
    decision = decisions.services[SERVICE]
    return {
        "minute": i,
        "replicas": dict(decision.variants),
        "reason": decision.reason.value,
        "detail": decision.detail,
        "required": decision.required_replicas,
        "target": round(decision.attainment_target_ratio, 6),
        "plan": decisions.plan_status,
    }


def at(i: int) -> float:
    return NOW + 60.0 * i


def day_rate(minute: float) -> float:
    """Two requests a second at night, twenty by the end of a ramp of half an hour, and back."""
    up = min(max((minute - 20) / 30.0, 0.0), 1.0)
    down = min(max((minute - 70) / 30.0, 0.0), 1.0)
    return 2.0 + 18.0 * (up - down)


def day_outlook(i: int) -> Forecasts:
    base = outlook(1.0, cutoff=at(i))
    rates = [
        [q * day_rate(i + lead / 60.0) for q in base.arrival_rate_rps[0]]
        for lead in base.leads_seconds
    ]
    import numpy as np

    return forecasts({SERVICE: replace(base, arrival_rate_rps=np.array(rates))})


def morning_and_evening() -> Iterator[Row]:
    """A ramp is met one lead ahead; the way down waits for horizon and window."""
    return walk(
        policies(policy()),
        Fleet({"h100": 2}),
        120,
        day_outlook,
        lambda i, fleet: observation(at(i), rate=day_rate(i), **fleet.shown()),
    )


def burst_beyond_the_forecast() -> Iterator[Row]:
    """The forecast sees nothing; from minute 5 to 12 the load is five times it and requests wait."""

    def shown(i: int, fleet: Fleet) -> Observation:
        if 5 <= i < 12:
            bad = {"waiting": 40.0, "ttft_p95_seconds": 6.0, "slo_attainment_ratio": 0.3}
            return observation(at(i), rate=20.0, **fleet.shown(**bad))
        return observation(at(i), rate=4.0, **fleet.shown())

    known = lambda i: forecasts({SERVICE: outlook(4.0, cutoff=at(i))})  # noqa: E731
    return walk(policies(policy()), Fleet({"h100": 2}), 30, known, shown)


def telemetry_goes_and_comes_back() -> Iterator[Row]:
    """Blind from minute 10 to 25 while the load falls: nothing is lowered until it is seen."""

    def shown(i: int, fleet: Fleet) -> Observation:
        if 10 <= i < 25:
            return silence(at(i))
        return observation(at(i), rate=15.0 if i < 10 else 3.0, **fleet.shown())

    known = lambda i: forecasts({SERVICE: outlook(15.0 if i < 25 else 3.0, cutoff=at(i))})  # noqa: E731
    return walk(policies(policy()), Fleet({"h100": 5}), 40, known, shown)


def move_to_a_cheaper_gpu() -> Iterator[Row]:
    """Variant b appears at a third of the price: it is made ready before a is given up."""
    lead = StartLead(120.0, 240.0)
    model = latency_model((SERVICE, "a"), (SERVICE, "b"))
    pool = Pool("p", (AcceleratorClass("a", 6.0, None), AcceleratorClass("b", 2.0, None)))
    world = policies(
        policy(variants=(variant("a", min_replicas=0), variant("b", min_replicas=0))), pools=(pool,)
    )
    known = lambda i: forecasts({SERVICE: outlook(10.0, cutoff=at(i))}, model, a=lead, b=lead)  # noqa: E731
    return walk(
        world,
        Fleet({"a": 4, "b": 0}),
        20,
        known,
        lambda i, fleet: observation(at(i), rate=10.0, **fleet.shown()),
    )


WALKS = (
    morning_and_evening,
    burst_beyond_the_forecast,
    telemetry_goes_and_comes_back,
    move_to_a_cheaper_gpu,
)


def text_of(each: Callable[[], Iterator[Row]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in each())


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    for each in WALKS:
        (EXPECTED / f"{each.__name__}.jsonl").write_text(text_of(each))
