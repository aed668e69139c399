"""ResourceQuotas as limits on accelerators, by pool and namespace."""

from typing import Any

from cluster_objects import GPU, OTHERS, OURS, from_nodes, ours, pod, pool
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.edge.kube.quotas import NamespaceLimits, namespace_limits

MIG = "nvidia.com/mig-1g.10gb"
POOL = pool(from_nodes())


def quota(hard: dict[str, str], namespace: str = "prod", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": "q"}, "spec": {"hard": hard, **spec}}


def gpus(count: int, **more: Any) -> dict[str, Any]:
    return quota({f"requests.{GPU}": str(count), "pods": "100"}, **more)


def priority(operator: str, *values: str) -> dict[str, Any]:
    expression = {"scopeName": "PriorityClass", "operator": operator, "values": list(values)}
    return {"scopeSelector": {"matchExpressions": [expression]}}


MINE = pod("mine", gpus=4, labels=OURS, spec={"priorityClassName": "serving"})
THEIRS = pod("theirs", gpus=3, labels=OTHERS)


def test_hard_less_what_others_use() -> None:
    pods = [
        MINE,
        THEIRS,
        pod("pending", gpus=1, labels=OTHERS, node=None, phase="Pending"),  # counted by the quota
        pod("done", gpus=8, labels=OTHERS, phase="Succeeded"),
        pod("elsewhere", gpus=8, labels=OTHERS, namespace="dev"),
    ]
    found = namespace_limits([POOL], [gpus(16), quota({"cpu": "4"}, "dev")], pods, ours)
    assert found == NamespaceLimits({"fleet": {"prod": 12}}, ())  # 16 - 3 - 1


def test_the_smaller_of_both_kinds_of_quota() -> None:
    both = pool(from_nodes(), namespace_quotas={"prod": 8, "dev": 2})
    assert namespace_limits([both], [gpus(16)], [THEIRS], ours).limits == {
        "fleet": {"prod": 8, "dev": 2}
    }
    assert namespace_limits([both], [gpus(9)], [THEIRS], ours).limits["fleet"]["prod"] == 6


def test_the_tightest_of_several_quotas() -> None:
    found = namespace_limits([POOL], [gpus(16), gpus(6), gpus(20)], [], ours)
    assert found.limits == {"fleet": {"prod": 6}}


def test_others_may_use_more_than_there_is_now() -> None:
    assert namespace_limits([POOL], [gpus(2)], [THEIRS], ours).limits == {"fleet": {"prod": 0}}


def test_resources_of_a_pool_add_up_if_all_are_bounded() -> None:
    two = pool(from_nodes(), from_nodes("mig", resourceName=MIG))
    both = quota({f"requests.{GPU}": "8", f"requests.{MIG}": "7"})
    assert namespace_limits([two], [both], [THEIRS], ours).limits == {"fleet": {"prod": 12}}
    found = namespace_limits([two], [gpus(8)], [], ours)
    assert found.limits == {"fleet": {}}
    assert found.problems[0].startswith(f"namespace prod: no ResourceQuota bounds {MIG}")


def test_pools_that_share_a_resource_are_reported() -> None:
    pools = [POOL, pool(from_nodes("other"), name="second")]
    found = namespace_limits(pools, [gpus(8)], [], ours)
    assert found.limits == {"fleet": {"prod": 8}, "second": {"prod": 8}}
    assert found.problems == (
        f"namespace prod: pools fleet, second share the ResourceQuota of {GPU}; "
        "each is given the whole of it.",
    )


def limit(of: dict[str, Any], pods: Any = (MINE, THEIRS)) -> tuple[int | None, int]:
    """Return the limit in namespace prod, None for no limit, and the number of problems."""
    found = namespace_limits([POOL], [of], pods, ours)
    return found.limits["fleet"].get("prod"), len(found.problems)


def test_a_scoped_quota_counts_where_it_applies() -> None:
    assert limit(gpus(8, **priority("In", "serving"))) == (8, 0)  # theirs has another priority
    assert limit(gpus(8, **priority("NotIn", "batch"))) == (5, 0)  # counts theirs, too
    assert limit(gpus(8, **priority("Exists"))) == (8, 0)
    assert limit(gpus(8, **priority("In", "batch"))) == (None, 0)
    assert limit(gpus(8, **priority("DoesNotExist"))) == (None, 0)
    assert limit(gpus(8, scopes=["NotTerminating"])) == (5, 0)
    assert limit(gpus(8, scopes=["Terminating"])) == (None, 0)


def test_a_scope_that_cannot_be_told_is_reported() -> None:
    mixed = [MINE, pod("plain", gpus=1, labels=OURS)]
    assert limit(gpus(8, **priority("In", "serving")), mixed) == (None, 1)
    assert limit(gpus(8, **priority("In", "serving")), [THEIRS]) == (None, 1)  # none of ours yet
    assert limit(gpus(8, scopes=["NotBestEffort"])) == (None, 1)


def test_a_quota_of_devices_is_reported() -> None:
    dra = pool(from_nodes(resourceName="gpu.example.com"))
    of = quota({"gpu.example.com.deviceclass.resource.k8s.io/devices": "4"})
    found = namespace_limits([dra], [of], [], ours)
    assert found.limits == {"fleet": {}}
    assert "quota of DRA devices is not counted" in found.problems[0]


@given(st.integers(0, 20), st.lists(st.integers(0, 9), max_size=4), st.integers(0, 9))
def test_never_negative_and_others_never_add(hard: int, taken: list[int], more: int) -> None:
    pods = [pod(f"p{i}", gpus=n, labels=OTHERS) for i, n in enumerate(taken)]
    (before, _), (after, _) = (
        limit(gpus(hard), of) for of in (pods, [*pods, pod("q", gpus=more, labels=OTHERS)])
    )
    assert before is not None
    assert after is not None
    assert 0 <= after <= before <= hard
