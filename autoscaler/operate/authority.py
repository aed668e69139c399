"""Who may set a service's replicas now, and whether that has just changed. Pure.

On every change of authority (mode, pause, another writer, a target deleted and made again) somebody else
may have set the counts: the damping windows begin anew with what runs, and that turn writes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.kube.errors import KubeError
from autoscaler.edge.kube.scale import ScaleView
from autoscaler.operate.roster import Member

TargetKey = tuple[str, TargetRef]


@dataclass(frozen=True, slots=True)
class Standing:
    """What may be done for one service, and why not. Empty texts: nothing is in the way."""

    mode: Mode
    paused_by: str  # who paused it
    conflict: str  # who else writes; in Keda mode also: that nobody does
    unreadable: Mapping[str, KubeError]  # variant -> why its scale cannot be read
    uids: tuple[str, ...]  # of the workloads, in the order of the variants; "" for unreadable ones
    conflict_reason: str = "Conflict"  # or NoScaledObject

    @property
    def writes(self) -> bool:
        """Whether the operator sets this service's replicas."""
        return self.mode is Mode.SCALE and not self.paused_by and not self.conflict

    @property
    def authority(self) -> str:
        """The standing as a text to compare with the one before; for the checkpoint."""
        state = "paused" if self.paused_by else "conflict" if self.conflict else "free"
        return "|".join((self.mode.value, state, *self.uids))


def standing_of(
    member: Member,
    scales: Mapping[TargetKey, ScaleView | KubeError],
    paused_by: str,
    conflict: str,
    conflict_reason: str = "Conflict",
) -> Standing:
    """Return the standing of a decided member."""
    policy = member.policy
    assert policy is not None  # noqa: S101 - decided members have one
    unreadable: dict[str, KubeError] = {}
    uids = []
    for v in policy.variants:
        view = scales.get((policy.namespace, v.target_ref))
        if isinstance(view, ScaleView):
            uids.append(view.uid)
            continue
        uids.append("")
        if view is not None:
            unreadable[v.name] = view
    mode = policy.behavior.mode
    return Standing(mode, paused_by, conflict, unreadable, tuple(uids), conflict_reason)


def changed(before: str | None, now: Standing) -> bool:
    """Whether authority changed. Unknown before is no change: a fresh controller remembers what runs.

    A workload that cannot be read just now is no change either; one that is seen for the first time, or
    with another uid, is: nobody knows yet who set its count.
    """
    if before is None:
        return False
    mode, state, *uids = before.split("|")
    if (mode, state) != tuple(now.authority.split("|")[:2]) or len(uids) != len(now.uids):
        return True
    return any(b and a != b for a, b in zip(uids, now.uids, strict=True))


def remembered(before: str | None, now: Standing) -> str:
    """Return the text to remember: of workloads that cannot be read, the uid known before."""
    if before is None:
        return now.authority
    _, _, *uids = before.split("|")
    if len(uids) != len(now.uids):
        return now.authority
    kept = (b or a for a, b in zip(uids, now.uids, strict=True))
    return "|".join((*now.authority.split("|")[:2], *kept))
