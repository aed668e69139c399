"""Pods of the API as records, label selectors, replica counts, and what the scheduler lacks."""

import math
from typing import Any

import pytest
from cluster_objects import GPU, HOUR_SECONDS, clock, condition, pod, pod_object, ready_at
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.edge.kube.pods import (
    Counts,
    lacking,
    pod_record,
    pods_of,
    replica_counts,
    selects,
)
from autoscaler.edge.kube.quantities import KubeObjectError, whole
from autoscaler.edge.kube.selectors import group_selector


def container(gpus: int, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {GPU: str(gpus), "cpu": "4"}}, **more}


def test_a_pod_keeps_what_is_used() -> None:
    p = pod_record(
        pod_object(
            gpus=4,
            labels={"app": "chat"},
            conditions=ready_at(5),
            metadata={
                "annotations": {
                    "controller.kubernetes.io/pod-deletion-cost": "-1",
                    "foreserve.dev/deletion-cost": "true",
                }
            },
            spec={"priorityClassName": "serving"},
            status={"containerStatuses": [{"restartCount": 2}, {"restartCount": 1}]},
        )
    )
    assert (p.namespace, p.name, p.node, p.owner) == (
        "prod",
        "chat-0",
        "n1",
        ("ReplicaSet", "chat-7d9"),
    )
    assert dict(p.requests) == {GPU: 4}  # cpu is nobody's accelerator
    assert p.created_seconds == HOUR_SECONDS
    assert p.scheduled_seconds == HOUR_SECONDS + 5
    assert p.initialized_seconds == HOUR_SECONDS + 60
    assert p.ready_seconds == HOUR_SECONDS + 300
    assert p.ready
    assert not p.deleting
    assert (p.deletion_cost, p.deletion_cost_ours, p.restarts) == (-1, True, 3)
    assert p.priority_class == "serving"


def test_what_has_not_happened_is_nan() -> None:
    p = pod_record({"metadata": {"name": "new", "uid": "u", "creationTimestamp": clock(0)}})
    for seconds in (
        p.scheduled_seconds,
        p.initialized_seconds,
        p.ready_seconds,
        p.deletion_seconds,
    ):
        assert math.isnan(seconds)
    assert (p.node, p.owner, p.ready, p.deletion_cost) == (None, None, False, None)


def test_a_condition_that_is_false_gives_no_time() -> None:
    p = pod_record(pod_object(conditions=[condition("Ready", clock(9), "False")]))
    assert math.isnan(p.ready_seconds)
    assert p.unready_seconds == HOUR_SECONDS + 540


def test_the_deletion_was_asked_for_a_grace_period_before_its_timestamp() -> None:
    metadata = {"deletionTimestamp": clock(10, 30), "deletionGracePeriodSeconds": 30}
    assert pod_record(pod_object(metadata=metadata)).deletion_seconds == HOUR_SECONDS + 600


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"containers": [container(1), container(2)]}, 3, id="containers add up"),
        pytest.param(
            {"containers": [container(1)], "initContainers": [container(4), container(2)]},
            4,
            id="init containers run one after the other",
        ),
        pytest.param(
            {
                "containers": [container(2)],
                "initContainers": [container(1, restartPolicy="Always"), container(3)],
            },
            4,  # while the second init container runs: sidecar 1 + 3; later: 1 + 2
            id="an init container runs beside the sidecars before it",
        ),
        pytest.param(
            {
                "containers": [container(2)],
                "initContainers": [container(3), container(1, restartPolicy="Always")],
            },
            3,  # max(3 alone, 2 + sidecar 1)
            id="a sidecar that starts later does not add to an earlier init container",
        ),
        pytest.param(
            {"containers": [container(1)], "resources": {"requests": {GPU: "8"}}},
            8,
            id="the pod's own request has the last word",
        ),
        pytest.param(
            {"containers": [{"resources": {"limits": {GPU: 2}}}]}, 2, id="a limit is a request"
        ),
    ],
)
def test_requests_are_what_the_scheduler_counts(spec: dict[str, Any], expected: int) -> None:
    assert dict(pod_record(pod_object(spec=spec)).requests) == {GPU: expected}


def test_claims_are_named_by_the_pod_or_by_its_status() -> None:
    p = pod_record(
        pod_object(
            spec={
                "resourceClaims": [
                    {"name": "shared", "resourceClaimName": "two-gpus"},
                    {"name": "own", "resourceClaimTemplateName": "one-gpu"},
                ]
            },
            status={"resourceClaimStatuses": [{"name": "own", "resourceClaimName": "chat-0-x7"}]},
        )
    )
    assert p.claims == ("two-gpus", "chat-0-x7")


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("8", 8), (8, 8), ("1k", 1000), ("1Ki", 1024), ("2500m", 2), ("1e1", 10), ("-1", -1)],
)
def test_quantities_come_whole(quantity: str | int, expected: int) -> None:
    assert whole(quantity) == expected


@pytest.mark.parametrize("quantity", ["", "eight", "8 GPUs", "1.2.3"])
def test_what_is_no_quantity_is_refused(quantity: str) -> None:
    with pytest.raises(KubeObjectError, match="is not a quantity; allowed"):
        whole(quantity)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(KubeObjectError, match="'yesterday' is not a time"):
        pod_record(pod_object(metadata={"creationTimestamp": "yesterday"}))


LABELS = {"app": "chat", "tier": "gold", "gen": "3", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=chat", True),
        ("app==chat", True),
        ("app = chat , tier = gold", True),
        ("app=chat,tier=silver", False),
        ("app!=chat", False),
        ("app!=mail", True),
        ("missing!=x", True),  # as in the API: no label is not x
        ("app in (chat,mail)", True),
        ("app in (mail)", False),
        ("missing in (a)", False),
        ("app notin (mail, code)", True),
        ("missing notin (a)", True),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("! app", False),
        ("gen>2", True),
        ("gen<3", False),
        ("app>2", False),
        ("empty=", True),
        ("app=", False),
        ("in=x", False),  # 'in' is a key here
        ("leaderworkerset.sigs.k8s.io/name=chat,leaderworkerset.sigs.k8s.io/worker-index=0", False),
    ],
)
def test_selectors(selector: str, expected: bool) -> None:
    assert selects(selector, LABELS) is expected


@pytest.mark.parametrize(
    "selector",
    ["", "  ", ",", "a=b,", "a=b=c", "a in b", "a in (b", "!a=b", "=b", "a b", "a>x", "a in (b c)"],
)
def test_a_selector_that_cannot_be_read_is_refused(selector: str) -> None:
    with pytest.raises(KubeObjectError, match="selector"):
        selects(selector, LABELS)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (
            "leaderworkerset.sigs.k8s.io/name=chat,leaderworkerset.sigs.k8s.io/worker-index=0",
            "leaderworkerset.sigs.k8s.io/name=chat",
        ),
        ("app=chat,tier in (a,b)", "app=chat,tier in (a,b)"),
        (
            "leaderworkerset.sigs.k8s.io/worker-index=0",
            "leaderworkerset.sigs.k8s.io/worker-index=0",
        ),
    ],
)
def test_workers_of_a_group_hold_accelerators_too(selector: str, expected: str) -> None:
    assert group_selector(selector) == expected


def test_pods_of_many_targets_in_one_pass() -> None:
    a, b = pod("a", labels={"app": "chat", "v": "1"}), pod("b", labels={"app": "chat", "v": "2"})
    elsewhere = pod("a", namespace="dev", labels={"app": "chat", "v": "1"})
    found = pods_of(
        {
            "both": ("prod", "app=chat"),
            "one": ("prod", "app=chat,v=2"),
            "set": ("prod", "v in (1,2),app"),
            "none": ("prod", "app=mail"),
            "dev": ("dev", "v=1"),
            "unreadable": ("prod", ""),
        },
        [a, b, elsewhere],
    )
    assert found == {"both": [a, b], "one": [b], "set": [a, b], "none": [], "dev": [elsewhere]}


words = st.sampled_from(["a", "b", "c"])


@given(
    st.lists(st.dictionaries(words, words, max_size=3), max_size=6),
    st.lists(
        st.builds("{}{}{}".format, words, st.sampled_from(["=", "!="]), words),
        min_size=1,
        max_size=3,
    ),
)
def test_the_pass_finds_what_each_selector_selects(
    labels: list[dict[str, str]], terms: list[str]
) -> None:
    pods = [pod(f"p{i}", labels=of) for i, of in enumerate(labels)]
    selector = ",".join(terms)
    found = pods_of({"t": ("prod", selector)}, pods)
    assert found["t"] == [p for p in pods if selects(selector, p.labels)]


def test_replicas_serve_start_or_drain() -> None:
    going = {"deletionTimestamp": clock(7)}
    unschedulable = [
        condition("PodScheduled", clock(0), "False", reason="Unschedulable", message="0/3 nodes")
    ]
    pods = [
        pod("ready", ready=True),
        pod("starting"),
        pod("unschedulable", node=None, phase="Pending"),
        pod_record(pod_object("waiting", node=None, phase="Pending", conditions=unschedulable)),
        pod("draining", ready=True, metadata=going),
        pod("given-up", metadata=going),
        pod("evicted", phase="Failed"),
        pod("evicted-and-going", phase="Failed", metadata=going),
        pod("done", phase="Succeeded"),
    ]
    assert replica_counts(pods) == Counts(ready=1, starting=3, draining=2)
    assert replica_counts([]) == Counts(0, 0, 0)


def waiting(name: str, message: str, **more: Any) -> Any:
    conditions = [
        condition("PodScheduled", clock(0), "False", reason="Unschedulable", message=message)
    ]
    return pod_record(pod_object(name, node=None, phase="Pending", conditions=conditions, **more))


def test_pods_that_lack_an_accelerator() -> None:
    message = (
        "0/3 nodes are available: 1 node(s) had untolerated taint {x: }, 2 Insufficient "
        "nvidia.com/gpu. preemption: 0/3 nodes are available."
    )
    found = lacking(
        [
            waiting("a", message, gpus=4),
            waiting("b", message, gpus=2),
            waiting("c", "0/3 nodes are available: 3 Insufficient cpu.", gpus=2),
            pod("d", gpus=2),
        ],
        GPU,
    )
    assert found is not None
    assert (found.pods, found.accelerators) == (2, 6)
    assert found.message == message


@pytest.mark.parametrize(
    "message",
    [
        "3 Insufficient nvidia.com/gpu.shared.",
        "3 Insufficient nvidia.com/gpu-1g",
        "3 Insufficient xnvidia.com/gpu",
    ],
)
def test_another_resource_of_a_like_name_is_not_lacking(message: str) -> None:
    assert lacking([waiting("a", message, gpus=1)], GPU) is None


def test_a_device_class_is_lacking_when_claims_cannot_be_allocated() -> None:
    claim = {"resourceClaims": [{"name": "gpu", "resourceClaimName": "chat-0-x7"}]}
    message = "0/3 nodes are available: 3 cannot allocate all claims."
    found = lacking([waiting("a", message, spec=claim)], "gpu.example.com")
    assert found is not None
    assert found.pods == 1
    assert lacking([waiting("a", message)], "gpu.example.com") is None  # no claim of its own
