"""Seven hours of an operator whose fleet has every trouble that an alert is for, as Prometheus scrapes it.

The real tick decides for made-up loads; the operator's and the scaler's own registries render each page.
For the last ten minutes nobody decides or leads, and the scaler hears nothing.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from builders import NOW, forecasts, latency_model, outlook, policy, seen, variant
from scaler_rig import Hands
from scaler_rig import policy as policy_object

from autoscaler.core.accounting import Ledger
from autoscaler.core.accounts import Account
from autoscaler.core.outcome import Decisions, Forecasts, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import (
    AcceleratorClass,
    Observation,
    Policies,
    Policy,
    Pool,
    ServiceObservation,
)
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.metrics import OperatorMetrics

INTERVAL = 60.0
STEPS = 420
ALONE = 10  # last steps without decisions
MUTE_FROM = 180  # step at which lab/mute stops being measured
END = NOW + STEPS * INTERVAL
BUSY_END = END - (ALONE + 1) * INTERVAL
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


@dataclass(frozen=True)
class Load:
    """One service's world: its policy, mean load, and how far the forecast is off."""

    policy: Policy
    rate_rps: float
    forecast_ratio: float = 1.0
    attained: float = 0.998
    trusted: bool = True


def _service(name: str, accelerator: str = "h100", **changes: float) -> Policy:
    one = variant("h100", accelerator_class=accelerator)
    return policy(service=name, variants=(one,), **changes)


LOADS = {
    load.policy.service: load
    for load in (
        Load(_service("prod/chat"), 30.0),
        Load(_service("prod/code", "scarce", budget_usd_per_hour=500.0), 60.0, attained=0.8),
        Load(_service("lab/batch", budget_usd_per_hour=9.0), 40.0, trusted=False),
        Load(
            policy(service="lab/small", variants=(variant("h100", max_replicas=2),)),
            40.0,
            forecast_ratio=0.6,
        ),
        Load(_service("lab/mute"), 5.0),
    )
}
POOLS = (
    Pool(
        "gpus",
        (AcceleratorClass("h100", 4.0, 64), AcceleratorClass("scarce", 4.0, 3)),
        budget_usd_per_hour=400.0,
    ),
)
WORLD = Policies({name: load.policy for name, load in LOADS.items()}, POOLS)


@dataclass(frozen=True)
class Step:
    """What `OperatorMetrics` reads of a turn."""

    observation: Observation
    decisions: Decisions
    accounts: Mapping[str, Account]


@dataclass
class Day:
    """The processes, and the pages that were scraped."""

    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.operators = {pod: OperatorMetrics("0.1.0") for pod in ("foreserve-a", "foreserve-b")}
        self.hands = Hands()
        self.plans = Plans(self.hands.clock())
        self.scaler = ScalerMetrics("0.1.0", self.plans)
        self.state = State()
        self.ledger = Ledger()
        self.desired = dict.fromkeys(LOADS, 2)
        self.operators["foreserve-a"].set_leader(held=True)
        for operator in self.operators.values():
            operator.set_model("20260104T000000-abcdef")
        for source in self.scaler.answered.values():
            source()

    def run(self) -> list[str]:
        for step in range(STEPS):
            if step < STEPS - ALONE:
                self._decide(step)
            else:
                self.operators["foreserve-a"].set_leader(held=False)
            self._scaler_works(step)
            at = NOW + step * INTERVAL
            for pod, operator in self.operators.items():
                self._scrape(operator.render()[0], pod, at)
            self._scrape(self.scaler.render("")[0], "foreserve-scaler-a", at)
        return self.lines

    def _decide(self, step: int) -> None:
        now = NOW + step * INTERVAL
        observation = Observation(now, INTERVAL, dict(self._seen(step)), {"h100": 40, "scarce": 8})
        known = _known(step)
        self.state, decisions = tick(WORLD, known, self.state, observation)
        accounts = self.ledger.take_in(WORLD, known, self.state, observation, decisions)
        for name, decision in decisions.services.items():
            self.desired[name] = sum(decision.variants.values())
        for operator in self.operators.values():
            operator.observe_step(Step(observation, decisions, accounts), WORLD)
            for phase, seconds in (("collect", 0.4), ("decide", 0.02), ("actuate", 0.1)):
                operator.observe_phase(phase, seconds)
        leader = self.operators["foreserve-a"]
        leader.count_write("scale", "ok")
        leader.count_write("status", "failed")
        leader.count_api_error("patch", "scalingpolicies/status", "403")

    def _seen(self, step: int) -> Iterator[tuple[str, ServiceObservation]]:
        for name, load in LOADS.items():
            if name == "lab/mute" and step >= MUTE_FROM:
                continue
            rate = load.rate_rps * _wave(step)
            engines = seen(
                self.desired[name],
                running=3.0 * self.desired[name],
                waiting=1.0 + step % 3,
                kv_cache_usage_ratio=0.4,
                finished_requests=rate * INTERVAL,
                slo_attainment_ratio=load.attained,
                ttft_p95_seconds=0.5,
            )
            yield name, ServiceObservation(rate, 1000.0, 100.0, {"h100": engines})

    def _scaler_works(self, step: int) -> None:
        self.hands.elapsed = step * INTERVAL
        if step < STEPS - ALONE:
            self.plans.replace(
                [policy_object("code", decided=self.hands.elapsed, namespace="prod")]
            )
        self.scaler.ended("GetMetrics", "OK")
        self.scaler.ended("GetMetrics", "NOT_FOUND")
        self.scaler.answered["plan"]()
        self.scaler.request_seconds.observe(0.0008)
        self.scaler.open_streams.set(2)

    def _scrape(self, page: bytes, pod: str, at: float) -> None:
        """Keep a page's samples with the labels that a ServiceMonitor gives them."""
        target = f'namespace="foreserve-system",pod="{pod}",job="foreserve"'
        for line in page.decode().splitlines():
            if line.startswith("#"):
                continue
            found = SAMPLE.match(line)
            assert found is not None, line
            name, labels, value = found.groups()
            self.lines.append(
                f"{name}{{{labels + ',' if labels else ''}{target}}} {value} {at:.0f}"
            )


def _wave(step: int) -> float:
    return 1.0 + 0.3 * math.sin(2 * math.pi * step * INTERVAL / 14_400.0)


def _known(step: int) -> Forecasts:
    """Forecasts that know the wave, but for the load's own `forecast_ratio`."""
    now, ahead = NOW + step * INTERVAL, _wave(step + 4)
    outlooks = {
        name: replace(
            outlook(load.rate_rps * load.forecast_ratio * ahead, spread=0.1, cutoff=now),
            trusted=load.trusted,
        )
        for name, load in LOADS.items()
    }
    keys = [(name, "h100") for name in LOADS]
    starts = {key: StartLead(120.0, 240.0) for key in keys}
    return replace(forecasts(outlooks, latency_model(*keys)), starts=starts)
