"""Mode Keda: what the operator says of the HPA that KEDA made, and falls that the HPA ignores one by one."""

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from apiserver import ApiServer
from crd_setup import install
from operating import OWN_NAMESPACE, Rig, Script, Time, Workloads, deployment, policy

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))

from hpa_emulator import Hpa, Rules, keda_rounds

from autoscaler.operate.keda import PATIENCE_SECONDS

Json = dict[str, Any]
SCALED_OBJECTS = "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects"
HPAS = "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers"
FREE = Rules([("Pods", 100_000, 15.0)], 0.0)
LOAD = 8.0  # requests in flight that one replica is given where nothing is learned

CRD = {  # as much of KEDA's as an API server needs to keep ScaledObjects; KEDA's own is not ours to ship
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


def scaled_object(namespace: str, **metadata: str) -> Json:
    said = {"scalerAddress": "foreserve-scaler:6000", "policy": "chat"} | metadata
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "chat", "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"name": "chat"},
            "triggers": [{"type": "external-push", "metadata": said}],
        },
    }


def keda_hpa(namespace: str, **behavior: Json) -> Json:
    target = {"type": "AverageValue", "averageValue": "1"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": "keda-hpa-chat",
            "namespace": namespace,
            "labels": {"scaledobject.keda.sh/name": "chat"},
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
            "minReplicas": 1,
            "maxReplicas": 50,
            "metrics": [
                {
                    "type": "External",
                    "external": {"metric": {"name": "s0-foreserve-chat"}, "target": target},
                }
            ],
            **({"behavior": behavior} if behavior else {}),
        },
    }


class Cluster(Workloads):
    """A Deployment whose replicas an emulated HPA sets."""

    def set_up(self, replicas: int, **spec: Any) -> None:
        self.put(
            deployment(self.namespace, "chat", replicas),
            policy(self.namespace, "chat", mode="Keda", **spec),
        )
        self.obey(replicas)

    def obey(self, replicas: int) -> None:
        """Bring the Deployment and its pods to a count."""
        if self.replicas("chat") != replicas:
            self.scale("chat", replicas)
        self._merge(f"{self._deployment('chat')}/status", {"status": {"replicas": replicas}})
        self.run_pods("chat")

    def delivery(self) -> Json:
        (variant,) = self.status("chat")["variants"]
        return dict(variant["delivery"])


@pytest.fixture
def keda(kube: ApiServer, namespace: str) -> Any:
    install(kube)
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": OWN_NAMESPACE}})
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert kube.request("POST", crds, CRD)[0] in {201, 409}
    yield Cluster(kube, namespace)
    kube.request("DELETE", f"{crds}/scaledobjects.keda.sh")


def apply_keda(cluster: Cluster, scaled: Json, hpa: Json | None) -> None:
    place = cluster.namespace
    until_served(cluster, SCALED_OBJECTS.format(place))
    cluster.ask("POST", SCALED_OBJECTS.format(place), scaled)
    if hpa is not None:
        cluster.ask("POST", HPAS.format(place), hpa)


def until_served(cluster: Cluster, path: str) -> None:
    import time

    end = time.monotonic() + 30.0
    while cluster.kube.request("GET", path)[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_the_hpa_makes_of_it_is_told(kube: ApiServer, keda: Cluster) -> None:
    keda.set_up(10)
    script = Script({f"{keda.namespace}/chat": 11 * LOAD})
    rig = Rig(kube, script, Time())
    rig.turn()
    assert keda.condition("chat", "Ready")[:2] == ("False", "NoScaledObject")
    apply_keda(keda, scaled_object(keda.namespace), None)
    rig.turn()
    assert keda.condition("chat", "Ready")[:2] == ("True", "ServingKeda")
    assert keda.condition("chat", "Delivered")[:2] == ("Unknown", "NoHPA")
    keda.ask("POST", HPAS.format(keda.namespace), keda_hpa(keda.namespace))
    rig.turn()
    status, reason, message = keda.condition("chat", "Delivered")
    assert (status, reason) == ("False", "ToleranceLimited")
    assert "11 decided, 10 asked for now; the HPA sets 12 at its next look." in message
    assert 'behavior.scaleUp.tolerance: "0"' in message
    told = keda.delivery()
    assert (told["hpa"], told["metric"], told["landsOn"], told["existing"]) == (
        "keda-hpa-chat",
        12,
        12,
        10,
    )


def test_a_scaled_object_of_a_policy_in_another_mode_is_told(
    kube: ApiServer, keda: Cluster
) -> None:
    keda.set_up(2)
    apply_keda(keda, scaled_object(keda.namespace), keda_hpa(keda.namespace))
    keda.edit("chat", {"spec": {"behavior": {"mode": "Recommend"}}})
    rig = Rig(kube, Script({f"{keda.namespace}/chat": 3 * LOAD}), Time())
    rig.turn()
    status, reason, message = keda.condition("chat", "Delivered")
    assert (status, reason) == ("False", "NotServed")
    assert "behavior.mode is Recommend, not Keda" in message
    assert keda.condition("chat", "Ready")[:2] == ("True", "Recommending")
    keda.edit("chat", {"spec": {"behavior": {"mode": "Keda"}}})
    rig.turn()
    assert keda.condition("chat", "Delivered")[1] == "Exact"


@pytest.mark.parametrize("window", [0, 45])
def test_small_falls_add_up_until_the_hpa_sees_them(
    kube: ApiServer, keda: Cluster, window: int
) -> None:
    """One replica at a time is allowed; of 23 the HPA ignores a fall of 1 or 2, and of 12 a fall of 1."""
    rules = {"scaleDown": {"stabilizationWindowSeconds": window}}
    down = {"stabilizationWindowSeconds": 0}
    keda.set_up(23, behavior={"mode": "Keda", "scaleDown": down})
    apply_keda(keda, scaled_object(keda.namespace), keda_hpa(keda.namespace, **rules))
    rig = Rig(kube, Script({f"{keda.namespace}/chat": 9 * LOAD}), Time())
    h = Hpa(spec=23, target=1.0, scale_up=FREE, scale_down=Rules(FREE.policies, float(window)))
    counts = [23]
    for _ in range(40):
        rig.turn(1, 15.0)
        counts.append(h.look(keda_rounds(keda.delivery()["metric"])))
        h.status = h.ready = counts[-1]
        h.clock += 15.0
        keda.obey(counts[-1])
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 9
    assert max(a - b for a, b in itertools.pairwise(counts)) <= 3 + window // 15


def test_falls_that_nobody_carries_out_are_no_landslide_later(
    kube: ApiServer, keda: Cluster
) -> None:
    down = {"stabilizationWindowSeconds": 0}
    keda.set_up(23, behavior={"mode": "Keda", "scaleDown": down})
    rules = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    apply_keda(keda, scaled_object(keda.namespace), keda_hpa(keda.namespace, **rules))
    rig = Rig(kube, Script({f"{keda.namespace}/chat": 1 * LOAD}), Time())
    every = 120.0
    rig.turn(int(PATIENCE_SECONDS / every) + 4, every)
    (variant,) = keda.status("chat")["variants"]
    assert variant["current"] == 23
    assert variant["desired"] >= 23 - 1 - PATIENCE_SECONDS / every - 3
    assert variant["delivery"]["landsOn"] >= variant["desired"]
