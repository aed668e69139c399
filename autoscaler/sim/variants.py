"""What a fleet is made of: ways to serve, and the life of one replica."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoscaler.sim.engine import EngineProfile, SimulationError
from autoscaler.sim.state import BOTH, DECODE, NONE, PREFILL

ROLES = {"both": BOTH, "prefill": PREFILL, "decode": DECODE}


@dataclass(frozen=True, slots=True)
class KvTransfer:
    """Seconds from the end of a prompt on a prefill replica until its keys and values are elsewhere."""

    base_seconds: float = 0.0
    seconds_per_token: float = 0.0


@dataclass(frozen=True, slots=True)
class Spot:
    """Capacity that is taken back: how often a ready replica is, and how long before it is told."""

    interruptions_per_hour: float
    notice_seconds: float = 120.0  # AWS; Google and Azure give 30 s


@dataclass(frozen=True, slots=True)
class FleetVariant:
    """One way to serve: an engine, its accelerators, its limits, and how long a start takes.

    `startup` draws the seconds from created to ready. At most max_replicas are ready or starting.
    role: both, prefill (computes prompts and hands them over, `transfer` says how fast) or decode.
    spot: None is capacity that stays.
    """

    name: str
    profile: EngineProfile
    accelerators_per_replica: int
    initial_replicas: int
    max_replicas: int
    startup: Callable[[np.random.Generator], float]
    role: str = "both"
    transfer: KvTransfer = KvTransfer()
    spot: Spot | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.initial_replicas <= self.max_replicas:
            raise SimulationError(
                f"variant '{self.name}': initial_replicas is {self.initial_replicas}; "
                f"allowed: 0 to max_replicas ({self.max_replicas})"
            )
        if self.role not in ROLES:
            raise SimulationError(
                f"variant '{self.name}': role is '{self.role}'; allowed: {', '.join(ROLES)}"
            )
        spot = self.spot or Spot(0.0)
        times = (
            self.transfer.base_seconds,
            self.transfer.seconds_per_token,
            spot.interruptions_per_hour,
            spot.notice_seconds,
        )
        if not all(math.isfinite(t) and t >= 0 for t in times):
            raise SimulationError(
                f"variant '{self.name}': transfer times, interruptions_per_hour and notice_seconds "
                f"are {times}; allowed: >= 0"
            )


class Counts(NamedTuple):
    """A variant's replicas: how many are ready, how many starting, how many are wanted."""

    ready: int
    starting: int
    desired: int


@dataclass(slots=True)
class Pod:
    """One replica from its creation to its end; times in seconds from the fleet's start."""

    variant: int
    created: float
    ready: float  # when it is (to be) ready
    first: bool  # there from the beginning: its start was not seen
    slot: int = NONE  # while ready or draining
    draining: bool = False
    told: float = math.inf  # when its interruption is announced
    lost: float = math.inf  # when it is taken away, whatever it is doing
    ended: float = math.inf

    @property
    def next_change(self) -> float:
        """When it becomes ready, is told or is lost, whichever comes next."""
        if self.slot == NONE:
            return self.ready
        return self.lost if self.draining else self.told
