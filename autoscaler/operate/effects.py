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


def carry_out(api: KubeApi, writes: Iterable[Write], may_act: Callable[[], bool]) -> list[Outcome]:
    """Write, side by side; what fails is one outcome and keeps nothing else from being written."""

    def one(write: Write) -> Outcome:
        try:
            return _written(api, write, may_act)
        except KubeError as error:
            conflict, forbidden = isinstance(error, KubeConflict), isinstance(error, KubeForbidden)
            return Outcome(write, str(error), conflict, forbidden)

    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="write") as pool:
        return list(pool.map(one, writes))


def _written(api: KubeApi, write: Write, may_act: Callable[[], bool]) -> Outcome:
    if not may_act():
        return Outcome(write, "the Lease was lost before the write", conflict=True)
    try:
        write_scale(api, write.namespace, write.target, write.view, write.replicas)
    except KubeConflict:
        return _again(api, write, may_act)
    return Outcome(write)


def _again(api: KubeApi, write: Write, may_act: Callable[[], bool]) -> Outcome:
    """Try once more where only the object's version moved; somebody else's count is left alone."""
    view = read_scale(api, write.namespace, write.target)
    if view.uid != write.view.uid:
        return Outcome(write, "the workload was deleted and created again meanwhile", conflict=True)
    if view.replicas == write.replicas:
        return Outcome(write)
    if view.replicas != write.view.replicas:
        text = f"somebody else set {view.replicas} replicas meanwhile"
        return Outcome(write, text, conflict=True)
    if not may_act():
        return Outcome(write, "the Lease was lost before the write", conflict=True)
    write_scale(api, write.namespace, write.target, view, write.replicas)
    return Outcome(write)
