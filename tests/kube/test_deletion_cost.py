"""Which pods go first: the idlest, and never against what a user set."""

import math
from typing import Any

from cluster_objects import pod
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.edge.kube.deletion_cost import IDLE_COST, cost_patch, deletion_costs
from autoscaler.edge.kube.pods import DELETION_COST, DELETION_COST_OURS, PodRecord


def serving(name: str, cost: int | None = None, *, mark: bool = False, **more: Any) -> PodRecord:
    annotations = {} if cost is None else {DELETION_COST: str(cost)}
    annotations |= {DELETION_COST_OURS: "true"} if mark else {}
    metadata = {"annotations": annotations, **more.pop("metadata", {})}
    return pod(name, ready=more.pop("ready", True), metadata=metadata, **more)


def costs(pods: list[PodRecord], load: dict[str, float], remove: int) -> dict[str, int | None]:
    names = {p.uid: p.name for p in pods}
    return {names[uid]: cost for uid, cost in deletion_costs(pods, load, remove).items()}


A, B, C = serving("a"), serving("b"), serving("c")


def test_the_idlest_are_marked() -> None:
    assert costs([A, B, C], {"a": 9.0, "b": 1.0, "c": 4.0}, 2) == {"b": -1, "c": -1}
    assert costs([A, B, C], {"a": 9.0, "b": 1.0, "c": 4.0}, 0) == {}


def test_an_unknown_load_is_busy() -> None:
    load = {"a": 9.0, "b": math.nan}  # c: nothing known
    assert costs([A, B, C], load, 2) == {"a": -1}


def test_pods_that_do_not_serve_go_before() -> None:
    new = serving("new", ready=False)
    load = {"a": 9.0, "b": 1.0, "c": 4.0, "new": 0.0}
    assert costs([A, B, C, new], load, 2) == {"b": -1}  # new goes anyway
    assert costs([A, B, C, new], load, 1) == {}


def test_old_marks_are_kept_or_taken_back() -> None:
    marked = [serving("a", -1, mark=True), serving("b", -1, mark=True), C]
    load = {"a": 1.0, "b": 9.0, "c": 4.0}
    assert costs(marked, load, 1) == {"b": None}  # a has its mark: nothing to write
    assert costs(marked, load, 0) == {"a": None, "b": None}
    assert costs([serving("a", -7, mark=True), B, C], {"a": 1.0}, 1) == {"a": -1}


def test_a_cost_of_a_user_is_not_touched() -> None:
    keep, first = serving("keep", 100), serving("first", -50)
    load = {"keep": 0.0, "first": 9.0, "a": 5.0, "b": 1.0}
    assert costs([keep, first, A, B], load, 2) == {"b": -1}  # first goes, then b
    assert costs([keep, first, A, B], load, 1) == {}
    assert costs([serving("a", 0), B], {"a": 0.0, "b": 5.0}, 1) == {"b": -1}


def test_only_pods_of_replica_sets() -> None:
    owner = {"ownerReferences": [{"kind": "StatefulSet", "name": "chat", "controller": True}]}
    assert costs([serving("a", metadata=owner)], {"a": 0.0}, 1) == {}
    assert costs([serving("a", metadata={"ownerReferences": []})], {"a": 0.0}, 1) == {}


def test_pods_on_their_way_out_are_left_alone() -> None:
    going = serving("a", -1, mark=True, metadata={"deletionTimestamp": "2026-11-27T06:00:00Z"})
    assert costs([going, B], {"b": 3.0}, 0) == {}


def test_the_patch_sets_and_takes_back_both_annotations() -> None:
    assert cost_patch(-1) == {
        "metadata": {
            "annotations": {
                "controller.kubernetes.io/pod-deletion-cost": "-1",
                "foreserve.dev/deletion-cost": "true",
            }
        }
    }
    assert cost_patch(None)["metadata"] == {
        "annotations": {DELETION_COST: None, DELETION_COST_OURS: None}
    }


@given(
    st.lists(
        st.builds(
            serving,
            st.uuids().map(str),
            st.one_of(st.none(), st.integers(-3, 3)),
            mark=st.booleans(),
            ready=st.booleans(),
        ),
        max_size=6,
    ),
    st.integers(0, 7),
    st.data(),
)
def test_no_more_marks_than_removals_and_settled_after_one_pass(
    pods: list[PodRecord], remove: int, data: st.DataObject
) -> None:
    number = st.one_of(st.just(math.nan), st.floats(0, 10))
    load = {p.name: data.draw(number) for p in pods}
    changes = deletion_costs(pods, load, remove)
    after = []
    for p in pods:
        mine = p.deletion_cost_ours
        cost, mark = (changes[p.uid], True) if p.uid in changes else (p.deletion_cost, mine)
        if p.uid in changes:
            assert mine or p.deletion_cost is None  # never a user's
        after.append(serving(p.name, cost, mark=mark and cost is not None, ready=p.ready))
    assert deletion_costs(after, load, remove) == {}
    ours = [p for p in after if p.deletion_cost_ours]
    assert len(ours) <= remove
    assert all(p.deletion_cost == IDLE_COST for p in ours)
    idle = [load[p.name] for p in ours]
    free = [p for p in after if p.ready and p.deletion_cost is None]
    assert all(load[p.name] >= max(idle, default=0) for p in free if not math.isnan(load[p.name]))
