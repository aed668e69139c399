"""Who else writes to a target: at most one writer, and the policy says who the other is."""

from typing import Any

import pytest
from cluster_objects import clock

from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.kube.conflicts import (
    Conflict,
    PolicyFacts,
    Writer,
    conflicts,
    hpa_record,
    policy_facts,
    scaled_object_record,
)

CHAT = TargetRef("apps/v1", "Deployment", "chat")
LWS = TargetRef("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "chat")


def policy(
    mode: Mode = Mode.SCALE,
    *targets: TargetRef,
    name: str = "chat",
    minute: int = 0,
    uid: str = "u",
    namespace: str = "prod",
) -> PolicyFacts:
    metadata = {
        "namespace": namespace,
        "name": name,
        "uid": uid,
        "creationTimestamp": clock(minute),
    }
    return policy_facts({"metadata": metadata}, mode, targets or (CHAT,))


def hpa(
    api_version: str = "apps/v1",
    kind: str = "Deployment",
    namespace: str = "prod",
    **metadata: Any,
) -> Writer:
    ref = {"apiVersion": api_version, "kind": kind, "name": "chat"}
    return hpa_record(
        {
            "metadata": {"name": "chat-hpa", "namespace": namespace, **metadata},
            "spec": {"scaleTargetRef": ref},
        }
    )


def scaled_object(**ref: str) -> Writer:
    return scaled_object_record(
        {
            "metadata": {"name": "chat-so", "namespace": "prod"},
            "spec": {"scaleTargetRef": {"name": "chat", **ref}},
        }
    )


OF_KEDA = [
    {"labels": {"scaledobject.keda.sh/name": "chat-so"}},
    {
        "ownerReferences": [
            {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "chat-so"}
        ]
    },
]


def test_an_hpa_on_the_same_workload() -> None:
    assert conflicts([policy()], [hpa()], []) == {
        "prod/chat": Conflict(
            "Conflict",
            "HorizontalPodAutoscaler prod/chat-hpa scales Deployment.apps prod/chat, too; "
            "delete it, or use mode Keda or Recommend.",
        )
    }


@pytest.mark.parametrize(
    "other",
    [
        hpa(namespace="dev"),
        hpa(kind="StatefulSet"),
        hpa("example.com/v1"),
        hpa(LWS.api_version, LWS.kind),
    ],
    ids=["namespace", "kind", "group", "another workload"],
)
def test_an_hpa_on_something_else(other: Writer) -> None:
    assert conflicts([policy()], [other], []) == {}


def test_a_version_is_no_difference() -> None:
    assert "prod/chat" in conflicts([policy()], [hpa("apps/v2")], [])


def test_in_recommend_mode_nobody_is_in_the_way() -> None:
    assert conflicts([policy(Mode.RECOMMEND)], [hpa()], [scaled_object()]) == {}


@pytest.mark.parametrize("mark", OF_KEDA, ids=["label", "owner"])
def test_the_hpa_of_keda_is_fine_in_keda_mode_and_not_in_scale_mode(mark: dict[str, Any]) -> None:
    theirs, so = hpa(**mark), scaled_object()
    assert conflicts([policy(Mode.KEDA)], [theirs], [so]) == {}
    found = conflicts([policy()], [theirs], [so])["prod/chat"]
    assert found.message.startswith("ScaledObject prod/chat-so scales Deployment.apps prod/chat")
    orphan = conflicts([policy()], [theirs], [])["prod/chat"]
    assert "made by ScaledObject chat-so" in orphan.message


def test_an_hpa_beside_keda() -> None:
    found = conflicts([policy(Mode.KEDA)], [hpa()], [scaled_object()])["prod/chat"]
    assert (found.reason, "beside KEDA" in found.message) == ("Conflict", True)


def test_keda_mode_without_a_scaled_object_is_a_problem_of_its_own() -> None:
    elsewhere = scaled_object(apiVersion=LWS.api_version, kind=LWS.kind)
    assert conflicts([policy(Mode.KEDA)], [], [elsewhere]) == {
        "prod/chat": Conflict(
            "NoScaledObject",
            "No ScaledObject scales Deployment.apps prod/chat; "
            "mode Keda needs one that asks this scaler.",
        )
    }
    assert conflicts([policy(Mode.KEDA, LWS)], [], [elsewhere]) == {}
    # a conflict is the graver of two
    assert conflicts([policy(Mode.KEDA, CHAT, LWS)], [hpa()], [elsewhere])["prod/chat"].reason == (
        "Conflict"
    )


def test_the_older_policy_keeps_the_target() -> None:
    old = policy(Mode.RECOMMEND, name="old", minute=1, uid="z")
    young = policy(name="young", minute=2, uid="a")
    assert conflicts([young, old], [], []) == {
        "prod/young": Conflict(
            "Conflict",
            "ScalingPolicy prod/old is older and scales Deployment.apps prod/chat; "
            "one policy may name a workload.",
        )
    }
    assert conflicts([young, policy(name="old", minute=1, namespace="dev")], [], []) == {}


def test_of_the_same_second_the_lower_uid_keeps_it() -> None:
    a, b = policy(name="x", uid="a"), policy(name="a", uid="b")
    assert conflicts([b, a], [], []).keys() == conflicts([a, b], [], []).keys() == {"prod/a"}


def test_a_policy_may_name_several_targets() -> None:
    assert conflicts([policy(Mode.SCALE, CHAT, LWS)], [], []) == {}
