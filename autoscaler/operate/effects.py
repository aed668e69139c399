"""What a turn writes to workloads: the scale subresource, each workload at most once, only what changed.

A write asks for the replicas that the decision was made from: whoever changed them meanwhile wins this
turn, and the next one decides from what is there. Before every request the Lease is asked again.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from autoscaler.core.outcome import Decisions
from autoscaler.core.types import TargetRef
from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeError, KubeForbidden
from autoscaler.edge.kube.scale import ScaleView, read_scale, write_scale
from autoscaler.operate.collect import VariantKey

PARALLEL = 8
GRACE_SECONDS = (
    3.0  # from the end of our right to act to the Lease's: its duration less its deadline
)
LOST = "the Lease was lost before the write"


@dataclass(frozen=True, slots=True)
class Write:
    """One workload and the replicas that it shall have."""

    service: str
    variant: str
    namespace: str
    target: TargetRef
    view: ScaleView
    replicas: int

    @property
    def lowers(self) -> bool:
        """Whether replicas go."""
        return self.replicas < self.view.replicas


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one write; `problem` is empty where it was done."""

    write: Write
    problem: str = ""
    conflict: bool = False
    forbidden: bool = False


def writes_of(
    decisions: Decisions,
    targets: Mapping[VariantKey, tuple[str, TargetRef]],
    scales: Mapping[tuple[str, TargetRef], ScaleView | KubeError],
    services: Iterable[str],
) -> list[Write]:
    """Return what has to be written for `services`, the only ones that may be: growth first."""
    writes = []
    for service in services:
        decision = decisions.services.get(service)
        for variant, replicas in {} if decision is None else decision.variants.items():
            namespace, target = targets[service, variant]
            view = scales.get((namespace, target))
            if isinstance(view, ScaleView) and view.replicas != replicas:
                writes.append(Write(service, variant, namespace, target, view, replicas))
    return sorted(writes, key=lambda w: (w.lowers, w.service, w.variant))


def carry_out(
    api: KubeApi, writes: Iterable[Write], left_seconds: Callable[[], float]
) -> list[Outcome]:
    """Write, side by side; what fails is one outcome and keeps nothing else from being written.

    `left_seconds`: how long the Lease is held without another renewal. No request outlives it by more than
    the time in which nobody else can take the Lease yet.
    """

    def one(write: Write) -> Outcome:
        try:
            return _written(api, write, left_seconds)
        except KubeError as error:
            conflict, forbidden = isinstance(error, KubeConflict), isinstance(error, KubeForbidden)
            return Outcome(write, str(error), conflict, forbidden)

    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="write") as pool:
        return list(pool.map(one, writes))


def _written(api: KubeApi, write: Write, left_seconds: Callable[[], float]) -> Outcome:
    in_time = _in_time(api, left_seconds)
    if in_time is None:
        return Outcome(write, LOST, conflict=True)
    try:
        write_scale(in_time, write.namespace, write.target, write.view, write.replicas)
    except KubeConflict:
        return _again(api, write, left_seconds)
    return Outcome(write)


def _again(api: KubeApi, write: Write, left_seconds: Callable[[], float]) -> Outcome:
    """Try once more where only the object's version moved; somebody else's count is left alone."""
    view = read_scale(api, write.namespace, write.target)
    if view.uid != write.view.uid:
        return Outcome(write, "the workload was deleted and created again meanwhile", conflict=True)
    if view.replicas == write.replicas:
        return Outcome(write)
    if view.replicas != write.view.replicas:
        text = f"somebody else set {view.replicas} replicas meanwhile"
        return Outcome(write, text, conflict=True)
    in_time = _in_time(api, left_seconds)
    if in_time is None:
        return Outcome(write, LOST, conflict=True)
    write_scale(in_time, write.namespace, write.target, view, write.replicas)
    return Outcome(write)


def _in_time(api: KubeApi, left_seconds: Callable[[], float]) -> KubeApi | None:
    """Return the API with requests that end before another process may act; None: we may not."""
    left = left_seconds()
    return api.within(min(api.timeout_seconds, left + GRACE_SECONDS)) if left > 0.0 else None
