"""How long a replica takes from created to ready, drawn from published measurements.

A start is one of three kinds, each a total that others measured (bundle/startup_facts.csv):

    warm         the node has image, weights and compile cache
    cold-caches  the node has the image; weights are loaded and graphs compiled anew
    new node     a node is provisioned, the image pulled, and then as cold-caches

Which share of the starts is of which kind is a property of a cluster, not a fact: the defaults are ours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.bundle import read_bundled
from autoscaler.sim.engine import SimulationError

FloatArray = NDArray[np.float64]
FACTS = "startup_facts.csv"
RUN_TO_RUN_SIGMA = 0.1  # of log seconds: the facts are averages or single runs
COLD_CACHES_SHARE = 0.15
NEW_NODE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class StartupFacts:
    """Measured seconds by kind, each of shape (number of facts,), and the share of the cold kinds."""

    warm_seconds: FloatArray
    cold_caches_seconds: FloatArray
    node_seconds: FloatArray
    image_seconds: FloatArray
    cold_caches_share: float = COLD_CACHES_SHARE
    new_node_share: float = NEW_NODE_SHARE

    def __post_init__(self) -> None:
        shares = (self.cold_caches_share, self.new_node_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise SimulationError(
                f"start-ups: cold_caches_share {shares[0]}, new_node_share {shares[1]}; allowed: "
                "both >= 0, together at most 1"
            )

    def sample(self, rng: np.random.Generator) -> float:
        """Draw the seconds of one start: a kind, one of its facts, and run-to-run scatter."""
        kind = rng.random()
        if kind < self.new_node_share:
            seconds = (
                rng.uniform(self.node_seconds.min(), self.node_seconds.max())
                + rng.choice(self.image_seconds)
                + rng.choice(self.cold_caches_seconds)
            )
        elif kind < self.new_node_share + self.cold_caches_share:
            seconds = rng.choice(self.cold_caches_seconds)
        else:
            seconds = rng.choice(self.warm_seconds)
        return float(seconds) * math.exp(RUN_TO_RUN_SIGMA * rng.standard_normal())


def startup_facts(
    *, cold_caches_share: float = COLD_CACHES_SHARE, new_node_share: float = NEW_NODE_SHARE
) -> StartupFacts:
    """Return the shipped facts with these shares of cold starts."""
    facts = read_bundled(FACTS)

    def of(kind: str) -> FloatArray:
        return facts.loc[facts.kind == kind, "seconds"].to_numpy(dtype=np.float64)

    return StartupFacts(
        of("warm"), of("cold-caches"), of("node"), of("image"), cold_caches_share, new_node_share
    )


def typical_startup() -> Callable[[np.random.Generator], float]:
    """Return a FleetVariant's `startup`: the shipped facts at the default shares."""
    return startup_facts().sample
