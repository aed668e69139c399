"""What is said and done where a decision cannot be written as it is, or telemetry tells half of it."""

import itertools
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from apidouble import ApiDouble
from crd_setup import install
from operating import (
    OWN_NAMESPACE,
    Json,
    Rig,
    Script,
    Time,
    Workloads,
    deployment,
    nothing_learned,
    policy,
)

from autoscaler.core.types import Policies
from autoscaler.edge.reading import Reading
from models.frames import validate_startups
from models.lead_time import LeadTimeModel

NAMESPACE = "llm"
CHAT, CODE = f"{NAMESPACE}/chat", f"{NAMESPACE}/code"


@pytest.fixture
def world(double: ApiDouble) -> Workloads:
    install(double)
    for name in (OWN_NAMESPACE, NAMESPACE):
        double.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return Workloads(double, NAMESPACE)


def a_pool(count: int) -> Json:
    gpu = {
        "name": "any",
        "resourceName": "nvidia.com/gpu",
        "usdPerHour": 2.0,
        "quota": {"count": count},
    }
    return {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": "fleet"},
        "spec": {"classes": [gpu]},
    }


def test_who_may_not_be_scaled_keeps_no_room_from_others(
    double: ApiDouble, world: Workloads
) -> None:
    """12 accelerators: chat (priority 200, 2 run) would have 10 and code 2, but chat cannot be written."""
    world.put(
        a_pool(12),
        deployment(NAMESPACE, "chat", 2),
        deployment(NAMESPACE, "code", 2),
        policy(NAMESPACE, "chat", priority=200),
        policy(NAMESPACE, "code", priority=100),
    )
    for name in ("chat", "code"):
        world.run_pods(name)
    double.fail("PUT", "deployments/chat/scale", 403, times=100_000)
    rig = Rig(double, Script({CHAT: 80.0, CODE: 80.0}), Time())  # 10 each
    rig.turn(1)
    assert world.condition("chat", "Ready")[:2] == ("False", "Forbidden")
    rig.turn(2)
    assert world.replicas("chat") == 2
    assert world.replicas("code") == 10  # all that chat does not hold
    assert world.condition("chat", "Ready")[:2] == ("False", "Forbidden")
    double.heal()  # the right is given
    rig.turn(1)
    assert world.replicas("chat") == 2  # which was asked, and not with the advice of 10
    rig.turn(3)
    assert world.condition("chat", "Ready")[0] == "True"
    assert world.replicas("chat") + world.replicas("code") <= 12


def test_the_turn_after_a_switch_does_not_say_written(double: ApiDouble, world: Workloads) -> None:
    world.put(deployment(NAMESPACE, "chat", 2), policy(NAMESPACE, "chat", mode="Recommend"))
    world.run_pods("chat")
    rig = Rig(double, Script({CHAT: 48.0}), Time())
    rig.turn(2)
    world.edit("chat", {"spec": {"behavior": {"mode": "Scale"}}})
    rig.turn(1)
    assert world.replicas("chat") == 2
    message = world.condition("chat", "Ready")[2]
    assert "6 replicas wanted (written from the next turn on" in message
    rig.turn(1)
    assert world.replicas("chat") == 6
    rig.turn(1)
    assert "as the workloads have it" in world.condition("chat", "Ready")[2]


def test_a_typo_in_the_maximum_is_no_outage(double: ApiDouble, world: Workloads) -> None:
    spec = policy(NAMESPACE, "chat")
    limit = {"type": "Percent", "value": 50, "periodSeconds": 60}
    spec["spec"]["behavior"]["scaleDown"]["policies"] = [limit]
    world.put(deployment(NAMESPACE, "chat", 20), spec)
    world.run_pods("chat")
    script = Script({CHAT: 160.0})
    rig = Rig(double, script, Time())
    rig.turn(2)
    assert world.replicas("chat") == 20
    variant = {**spec["spec"]["variants"][0], "maxReplicas": 2}
    world.edit("chat", {"spec": {"variants": [variant]}})
    seen = []
    for _ in range(12):
        rig.turn(1)
        seen.append(world.replicas("chat"))
        if len(seen) == 2:
            assert "20 run, maxReplicas is 2" in world.condition("chat", "Ready")[2]
    # 31 s a turn: four turns within the window of 120 s, then half of it a minute
    assert seen[:4] == [20] * 4
    assert seen[4] == 10
    assert seen[-1] == 2  # honoured in the end
    assert all(b >= a // 2 for a, b in itertools.pairwise(seen))


@dataclass
class Partly(Script):
    """Telemetry of some replicas only: sums are over these."""

    scraped: dict[str, float] = field(default_factory=dict)

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        reading = super().read(policies, now_seconds)
        scraped = {(name, "default"): n for name, n in self.scraped.items()}
        return replace(reading, scraped=scraped, rebuilt=frozenset(self.scraped))


def settled(world: Workloads, name: str, time: Time) -> None:
    """Let the test's clock be a day after the pods became ready: they were made just now, by the server's."""
    created = world.pods(name)[0]["metadata"]["creationTimestamp"]
    time.seconds = datetime.fromisoformat(created).timestamp() + 86_400.0


def test_a_scrape_that_is_lost_is_no_lack_of_load(double: ApiDouble, world: Workloads) -> None:
    """Six replicas with 8 requests each; two are no longer scraped: 32 are seen, and 6 are needed still."""
    world.put(deployment(NAMESPACE, "chat", 6), policy(NAMESPACE, "chat"))
    world.run_pods("chat")
    time = Time()
    settled(world, "chat", time)
    script = Partly({CHAT: 48.0}, {CHAT: 6.0})
    rig = Rig(double, script, time)
    rig.turn(2)
    assert world.condition("chat", "TelemetryFresh")[1] == "Measured"
    script.running[CHAT], script.scraped[CHAT] = 32.0, 4.0
    rig.turn(8)  # four minutes: the window of two would have let go
    assert world.replicas("chat") == 6
    status, reason, message = world.condition("chat", "TelemetryFresh")
    assert (status, reason) == ("True", "PartlyMeasured")
    assert message == "4 of 6 ready replicas are scraped: their load stands for all"
    script.running[CHAT], script.scraped[CHAT] = 16.0, 2.0  # now most are missing
    rig.turn(8)
    assert world.replicas("chat") == 6
    status, reason, message = world.condition("chat", "TelemetryFresh")
    assert (status, reason) == ("False", "Stale")
    assert "2 of 6 ready replicas are scraped" in message


def test_a_pool_names_the_nodes_that_it_leaves_out(double: ApiDouble, world: Workloads) -> None:
    pool = a_pool(1)
    pool["spec"]["classes"][0] |= {"quota": {"fromNodes": True}, "nodeSelector": {"gpu": "h100"}}
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"gpu-{i}", "labels": {"gpu": "h100"}},
            "spec": {"unschedulable": i == 1},
        }
        for i in range(3)
    ]
    world.put(pool, deployment(NAMESPACE, "chat", 2), policy(NAMESPACE, "chat"), *nodes)
    for i in range(3):
        ready = {"type": "Ready", "status": "False" if i == 2 else "True"}
        status = {"conditions": [ready], "allocatable": {"nvidia.com/gpu": "8"}}
        double.request(
            "PATCH",
            f"/api/v1/nodes/gpu-{i}/status",
            {"status": status},
            content_type="application/merge-patch+json",
        )
    world.run_pods("chat")
    Rig(double, Script({CHAT: 8.0}), Time()).turn(1)
    code, found = double.request("GET", "/apis/foreserve.dev/v1alpha1/acceleratorpools/fleet")
    assert code == 200
    assert found["status"]["excludedNodeCount"] == 2
    assert found["status"]["excludedNodes"] == [
        {"name": "gpu-1", "reason": "cordoned"},
        {"name": "gpu-2", "reason": "not Ready"},
    ]


def started(waited: float, took: float, count: int) -> pd.DataFrame:
    """Starts of the last hours, one a minute; `waited` until a node was found."""
    created = pd.Timestamp(Time().seconds - 7200.0, unit="s", tz="UTC") + pd.to_timedelta(
        60.0 * np.arange(count), unit="s"
    )
    rows = {"service": CHAT, "variant": "default", "created_ts": created}
    ready = created + pd.to_timedelta(took, unit="s")
    return pd.DataFrame({**rows, "ready_ts": ready, "phase_schedule_seconds": waited})


def test_a_plan_looks_as_far_ahead_as_a_start_on_the_node_with_room_takes(
    double: ApiDouble, world: Workloads
) -> None:
    """One node of eight accelerators, then none: the horizon is that of a start there, then of a new node."""
    pool = a_pool(8)
    pool["spec"]["classes"][0] |= {"quota": {"fromNodes": True}, "nodeSelector": {"gpu": "h100"}}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n", "labels": {"gpu": "h100"}},
    }
    world.put(pool, deployment(NAMESPACE, "chat", 2), policy(NAMESPACE, "chat"), node)
    world.run_pods("chat")
    starts = pd.concat([started(1.0, 60.0, 60), started(300.0, 600.0, 60)], ignore_index=True)
    lead_time = LeadTimeModel.fit(
        validate_startups(starts, "starts"), end_seconds=Time().seconds - 60.0
    )
    rig = Rig(
        double,
        Script({CHAT: 8.0}),
        Time(),
        models=replace(nothing_learned(), lead_time=lead_time),
    )
    seen = []
    for free in (8, 0):
        double.request(
            "PATCH",
            "/api/v1/nodes/n/status",
            {
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "allocatable": {"nvidia.com/gpu": str(free)},
                }
            },
            content_type="application/merge-patch+json",
        )
        turn = rig.turn(30)  # of fifteen seconds: nodes are listed again
        assert turn is not None
        horizon = turn.step.decisions.services[CHAT].horizon_seconds
        seen.append((turn.step.observation.free_on_nodes, horizon))
    (there, short), (full, long) = seen
    assert (there, full) == ({"any": (8,)}, {"any": ()})
    assert short < 100.0
    assert long > 600.0
