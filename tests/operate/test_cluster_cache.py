"""The cache between watches and turns: late and repeated events change nothing, lists put right."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.edge.kube.cluster import Cluster

Json = dict[str, Any]


def obj(uid: str, version: int, value: str = "") -> Json:
    return {
        "metadata": {"uid": uid, "resourceVersion": str(version)},
        "value": value or str(version),
    }


def cache() -> Cluster:
    return Cluster({"pods": lambda o: (o["metadata"]["uid"], o["value"])})


def known(cluster: Cluster) -> dict[str, str] | None:
    values = cluster.values("pods")
    return None if values is None else dict(values)


def test_unknown_is_not_empty() -> None:
    cluster = cache()
    assert known(cluster) is None
    cluster.apply("pods", "ADDED", obj("a", 1))
    assert known(cluster) is None  # one event is not all there is
    cluster.replace("pods", [obj("a", 1)], "1")
    assert known(cluster) == {"a": "1"}
    cluster.forget("pods")
    assert known(cluster) is None


def test_an_event_older_than_the_list_changes_nothing() -> None:
    cluster = cache()
    cluster.replace("pods", [obj("a", 5)], "7")
    cluster.apply("pods", "MODIFIED", obj("a", 3))
    assert known(cluster) == {"a": "5"}
    cluster.apply("pods", None, obj("a", 6))  # None: what a stream begins with
    assert known(cluster) == {"a": "6"}


def test_what_a_list_does_not_name_is_gone_unless_it_is_newer() -> None:
    cluster = cache()
    cluster.replace("pods", [obj("a", 1), obj("b", 2)], "2")
    cluster.apply("pods", "ADDED", obj("c", 9))
    cluster.replace("pods", [obj("b", 2)], "8")
    assert known(cluster) == {"b": "2", "c": "9"}


def test_what_was_deleted_stays_deleted() -> None:
    cluster = cache()
    cluster.replace("pods", [obj("a", 1)], "1")
    cluster.apply("pods", "DELETED", obj("a", 4))
    cluster.apply("pods", "MODIFIED", obj("a", 3))  # came late
    assert known(cluster) == {}
    cluster.replace("pods", [obj("a", 3)], "3")  # a list made before, that took its time
    assert known(cluster) == {}
    cluster.replace("pods", [obj("a", 6)], "6")
    assert known(cluster) == {"a": "6"}


def test_a_late_delete_of_something_newer_is_ignored() -> None:
    cluster = cache()
    cluster.replace("pods", [obj("a", 5)], "5")
    cluster.apply("pods", "DELETED", obj("a", 4))
    assert known(cluster) == {"a": "5"}


@pytest.mark.parametrize("listed_at", range(7))
@given(order=st.permutations(range(6)))
def test_whatever_the_order_the_newest_counts(listed_at: int, order: list[int]) -> None:
    """Six changes of two objects in any order, and a list of some moment at the end or in between."""
    changes = [
        ("ADDED", "a", 1), ("ADDED", "b", 2), ("MODIFIED", "a", 3),
        ("DELETED", "b", 4), ("MODIFIED", "a", 5), ("MODIFIED", "a", 6),
    ]  # fmt: skip
    alive = {"a": 0, "b": 0}
    for event, uid, version in changes[:listed_at]:
        alive[uid] = 0 if event == "DELETED" else version
    cluster = cache()
    cluster.replace("pods", [obj(u, v) for u, v in alive.items() if v], str(listed_at))
    for i in order:
        event, uid, version = changes[i]
        cluster.apply("pods", event, obj(uid, version))
    assert known(cluster) == {"a": "6"}
