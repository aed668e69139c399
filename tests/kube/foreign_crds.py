"""CRDs of others, in our words: fields, defaults, required ones and subresources as LWS v0.10 and Kueue v0.20
serve them, as far as the operator reads or writes them. The rest is kept as it comes.
"""

from typing import Any

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "format": "int32"}
ANYTHING: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
LABELS: Json = {"type": "object", "additionalProperties": TEXT}
QUANTITY: Json = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",  # noqa: E501
    "x-kubernetes-int-or-string": True,
}


def obj(*required: str, **properties: Json) -> Json:
    schema: Json = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def listed(key: str, item: Json) -> Json:
    return {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }


def crd(
    group: str, kind: str, plural: str, versions: dict[str, Json], *, cluster: bool, **more: Json
) -> Json:
    """Return a CRD; the last version is stored. `more`: its subresources."""
    stored = list(versions)[-1]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # groups of Kubernetes' own project need the approval of their API, or a word that they lack it
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
            },
            "scope": "Cluster" if cluster else "Namespaced",
            "versions": [
                {
                    "name": name,
                    "served": True,
                    "storage": name == stored,
                    "schema": {"openAPIV3Schema": obj(metadata={"type": "object"}, **schema)},
                    "subresources": more,
                }
                for name, schema in versions.items()
            ],
        },
    }


LWS_GROUP = "leaderworkerset.x-k8s.io"
LEADER_WORKER_SET = crd(
    LWS_GROUP,
    "LeaderWorkerSet",
    "leaderworkersets",
    {
        "v1": {
            "spec": obj(
                "leaderWorkerTemplate",
                replicas={**COUNT, "default": 1},
                startupPolicy={
                    **TEXT,
                    "default": "LeaderCreated",
                    "enum": ["LeaderCreated", "LeaderReady"],
                },
                rolloutStrategy=ANYTHING,
                networkConfig=ANYTHING,
                leaderWorkerTemplate=obj(
                    "workerTemplate",
                    size={**COUNT, "default": 1},
                    workerTemplate=ANYTHING,
                    leaderTemplate=ANYTHING,
                    restartPolicy={**TEXT, "default": "RecreateGroupOnPodRestart"},
                    subGroupPolicy=ANYTHING,
                ),
            ),
            "status": obj(
                replicas=COUNT,
                readyReplicas=COUNT,
                updatedReplicas=COUNT,
                hpaPodSelector=TEXT,
                observedGeneration={"type": "integer", "format": "int64"},
                conditions={"type": "array", "items": ANYTHING},
            ),
        }
    },
    cluster=False,
    status={},
    scale={
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.hpaPodSelector",
    },
)

KUEUE_GROUP = "kueue.x-k8s.io"
_QUOTA = obj(
    "name",
    "nominalQuota",
    name=TEXT,
    nominalQuota=QUANTITY,
    borrowingLimit=QUANTITY,
    lendingLimit=QUANTITY,
)
_GROUP = obj(
    "coveredResources",
    "flavors",
    coveredResources={"type": "array", "items": TEXT},
    flavors=listed("name", obj("name", "resources", name=TEXT, resources=listed("name", _QUOTA))),
)
_USED = obj("name", name=TEXT, total=QUANTITY, borrowed=QUANTITY)
_USAGE = listed("name", obj("name", "resources", name=TEXT, resources=listed("name", _USED)))


def _cluster_queue(cohort: str) -> Json:
    return {
        "spec": obj(
            resourceGroups={
                "type": "array",
                "items": _GROUP,
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
            },
            **{cohort: TEXT},
            namespaceSelector=ANYTHING,
            preemption=ANYTHING,
            flavorFungibility=ANYTHING,
            queueingStrategy={**TEXT, "default": "BestEffortFIFO"},
            stopPolicy={**TEXT, "default": "None", "enum": ["None", "Hold", "HoldAndDrain"]},
        ),
        "status": obj(
            flavorsReservation=_USAGE,
            flavorsUsage=_USAGE,
            admittedWorkloads=COUNT,
            pendingWorkloads=COUNT,
            reservingWorkloads=COUNT,
            conditions={"type": "array", "items": ANYTHING},
        ),
    }


CLUSTER_QUEUE = crd(
    KUEUE_GROUP,
    "ClusterQueue",
    "clusterqueues",
    {"v1beta1": _cluster_queue("cohort"), "v1beta2": _cluster_queue("cohortName")},
    cluster=True,
    status={},
)
_LOCAL: Json = {
    "spec": obj(clusterQueue=TEXT, stopPolicy={**TEXT, "default": "None"}),
    "status": ANYTHING,
}
LOCAL_QUEUE = crd(
    KUEUE_GROUP,
    "LocalQueue",
    "localqueues",
    {"v1beta1": _LOCAL, "v1beta2": _LOCAL},
    cluster=False,
    status={},
)
_FLAVOR: Json = {
    "spec": obj(
        nodeLabels=LABELS,
        nodeTaints={"type": "array", "items": ANYTHING},
        tolerations={"type": "array", "items": ANYTHING},
        topologyName=TEXT,
    )
}
RESOURCE_FLAVOR = crd(
    KUEUE_GROUP,
    "ResourceFlavor",
    "resourceflavors",
    {"v1beta1": _FLAVOR, "v1beta2": _FLAVOR},
    cluster=True,
)
KUEUE = (CLUSTER_QUEUE, LOCAL_QUEUE, RESOURCE_FLAVOR)
