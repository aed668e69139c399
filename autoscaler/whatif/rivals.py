"""Rivals of a case: one per service from a setting, and the ranges in which the best one is sought."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.core.types import Observation
from autoscaler.whatif.baselines import Autoscaler, Clairvoyant, RecordedFleet, StaticFleet
from autoscaler.whatif.baselines_kubernetes import Hpa, KedaSaturation, KnativeKpa
from autoscaler.whatif.baselines_llm import AibrixApa, DynamoPlanner, EngineLimits, WvaSaturation
from autoscaler.whatif.case import Case, ServiceCase
from autoscaler.whatif.tuning import Search

PEAK_SECONDS = 60.0  # of load that a static fleet's size is thought of in
LIMIT_REPLICAS = 1  # a rival is never told to go to zero


@dataclass(frozen=True, slots=True)
class Setting:
    """One rival's setting; can be sent to another process.

    value: see UNITS. `relative`: in units of each service's own reference (`reference`), where one number
    has to do for several.
    """

    name: str
    value: float
    relative: bool = False
    window_seconds: float = 0.0  # over which the metric, or the future, is averaged

    def words(self) -> str:
        """Return the setting as people read it."""
        window = f", {self.window_seconds:g} s mean" if self.window_seconds else ""
        if self.name == RECORDED:
            return "as it ran"
        if self.relative:
            unit = "the peak's need" if self.name == "static" else "a full replica's concurrency"
            return f"{self.value:.3g} × {unit}{window}"
        return UNITS[self.name].format(f"{self.value:.3g}") + window


RECORDED = "recorded"  # today's fleet: nothing to set
UNITS = {
    "static": "{} replicas",
    "hpa": "{} requests a replica",
    "hpa-queue": "{} waiting a replica",
    "keda": "saturation {}",
    "kpa": "{} requests a replica",
    "apa": "{} requests a replica",
    "wva": "scale up at {}",
    "dynamo": "{} × an engine's capacity",
    "clairvoyant": "margin {}",
}
ABSOLUTE = ("keda", "wva", "dynamo", "clairvoyant")  # one number does for every service
# (lean, safe) around the reference, and the windows to try
RANGES: Mapping[str, tuple[float, float, tuple[float, ...]]] = {
    "static": (0.35, 1.6, (0.0,)),
    "hpa": (1.6, 0.15, (60.0, 300.0)),
    "hpa-queue": (1.0, 0.003, (60.0, 300.0)),
    "keda": (1.5, 0.04, (0.0,)),
    "kpa": (1.6, 0.1, (0.0,)),
    "apa": (1.6, 0.1, (0.0,)),
    "wva": (1.0, 0.05, (0.0,)),
    "dynamo": (1.3, 0.3, (0.0,)),
    "clairvoyant": (0.4, 1.8, (60.0,)),
}
# where the scenario fixes the setting
WINDOWS = {"hpa": 60.0, "hpa-queue": 60.0, "clairvoyant": 60.0}


class PerService:
    """One rival a service, each on its first variant; other variants stay as they began."""

    def __init__(self, name: str, rivals: Mapping[str, tuple[str, Autoscaler]]) -> None:
        """`rivals`: service -> (variant, rival)."""
        self.name = name
        self._rivals = dict(rivals)

    def decide(self, observation: Observation) -> dict[str, dict[str, int]]:
        """Ask each rival about its own service and variant."""
        wanted: dict[str, dict[str, int]] = {}
        for service, (variant, rival) in self._rivals.items():
            mine = observation.services[service]
            if len(mine.variants) > 1:
                mine = replace(mine, variants={variant: mine.variants[variant]})
            answer = rival.decide(
                Observation(
                    observation.now_seconds,
                    observation.interval_seconds,
                    {service: mine},
                    observation.pools,
                    observation.free_on_nodes,
                )
            )
            wanted.update({s: dict(v) for s, v in answer.items()})
        return wanted


def make_rival(case: Case, setting: Setting) -> Autoscaler:
    """Build the rival for every service of a case."""
    if setting.name == RECORDED:
        return RecordedFleet({n: s.recorded for n, s in case.services.items() if s.recorded})
    build = _BUILDERS[setting.name]
    return PerService(
        setting.name,
        {
            name: (service.variants[0].name, build(service, _absolute(service, setting)))
            for name, service in case.services.items()
        },
    )


def reference(service: ServiceCase, name: str) -> float:
    """Return what a setting of 1 means where it is relative: at its capacity, at its peak."""
    if name in ABSOLUTE:
        return 1.0
    if name == "static":
        return peak_rps(service) / service.capacity.rate_rps
    return service.capacity.concurrency


def peak_rps(service: ServiceCase) -> float:
    """Return the highest rate of any minute."""
    at = service.requests.arrive_seconds
    minutes = np.floor((at - at[0]) / PEAK_SECONDS).astype(np.int64)
    return float(np.bincount(minutes).max()) / PEAK_SECONDS


def searches(case: Case, name: str, runs: int) -> list[tuple[Setting, Search]]:
    """Return where to look for the best setting of a rival, at most `runs` runs for each window.

    Each pair is a setting whose value is to be replaced by what the search asks for.
    """
    lean, safe, windows = RANGES[name]
    alone = len(case.services) == 1
    unit = reference(next(iter(case.services.values())), name) if alone else 1.0
    whole = alone and name == "static"
    if whole:
        most = next(iter(case.services.values())).variants[0].max_replicas
        lean, safe = max(1.0, lean * unit), min(float(most), max(2.0, safe * unit))
    else:
        lean, safe = lean * unit, safe * unit
    attainment = max(service.attainment for service in case.services.values())
    return [
        (
            Setting(name, safe, relative=not alone and name not in ABSOLUTE, window_seconds=w),
            Search(lean, safe, attainment, runs, whole=whole),
        )
        for w in windows
    ]


def _absolute(service: ServiceCase, setting: Setting) -> Setting:
    unit = reference(service, setting.name) if setting.relative else 1.0
    return replace(setting, value=setting.value * unit, relative=False)


def _static(service: ServiceCase, setting: Setting) -> Autoscaler:
    most = service.variants[0].max_replicas
    return StaticFleet(int(min(max(LIMIT_REPLICAS, round(setting.value)), most)))


def _hpa(service: ServiceCase, setting: Setting) -> Autoscaler:
    return Hpa(
        target=setting.value,
        metric="queue" if setting.name == "hpa-queue" else "concurrency",
        max_replicas=service.variants[0].max_replicas,
        metric_window_seconds=setting.window_seconds,
    )


def _keda(service: ServiceCase, setting: Setting) -> Autoscaler:
    return KedaSaturation(threshold=setting.value, max_replicas=service.variants[0].max_replicas)


def _kpa(service: ServiceCase, setting: Setting) -> Autoscaler:
    return KnativeKpa(
        target_concurrency=setting.value, max_replicas=service.variants[0].max_replicas
    )


def _apa(service: ServiceCase, setting: Setting) -> Autoscaler:
    return AibrixApa(target=setting.value, max_replicas=service.variants[0].max_replicas)


def _wva(service: ServiceCase, setting: Setting) -> Autoscaler:
    profile = service.variants[0].profile
    limits = EngineLimits(
        profile.kv_capacity_tokens, profile.max_num_seqs, profile.max_num_batched_tokens
    )
    return WvaSaturation(
        limits,
        scale_up_threshold=setting.value,
        max_replicas=service.variants[0].max_replicas,
    )


def _dynamo(service: ServiceCase, setting: Setting) -> Autoscaler:
    return DynamoPlanner(
        engine_rps=service.capacity.rate_rps * setting.value,
        max_replicas=service.variants[0].max_replicas,
    )


def _clairvoyant(service: ServiceCase, setting: Setting) -> Autoscaler:
    return Clairvoyant(
        service.requests.arrive_seconds,
        replica_capacity_rps=service.capacity.rate_rps,
        lead_time_seconds=service.typical_start_seconds,
        window_seconds=setting.window_seconds,
        margin=setting.value,
        max_replicas=service.variants[0].max_replicas,
    )


_BUILDERS: Mapping[str, Callable[[ServiceCase, Setting], Autoscaler]] = {
    "static": _static,
    "hpa": _hpa,
    "hpa-queue": _hpa,
    "keda": _keda,
    "kpa": _kpa,
    "apa": _apa,
    "wva": _wva,
    "dynamo": _dynamo,
    "clairvoyant": _clairvoyant,
}
