"""Puts the project's CRDs on a test API server."""

import time
from typing import Any

from apiserver import ApiServer

from autoscaler.policy.crds import crd_documents

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/foreserve.dev/v1alpha1"
SERVED_SECONDS = 30.0


def install(kube: ApiServer) -> None:
    """Create or replace both CRDs and wait until their resources are served as they now are."""
    for document in crd_documents():
        path = f"{CRDS}/{document['metadata']['name']}"
        code, answer = kube.request("POST", CRDS, document)
        if code == 409:
            found = kube.request("GET", path)[1]
            found["spec"] = document["spec"]
            code, answer = kube.request("PUT", path, found)
        assert code in (200, 201), answer
        _wait(kube, path, f"{GROUP}/{document['spec']['names']['plural']}")


def _wait(kube: ApiServer, path: str, collection: str) -> None:
    end = time.monotonic() + SERVED_SECONDS
    while True:
        conditions = kube.request("GET", path)[1].get("status", {}).get("conditions")
        state = {c["type"]: c["status"] for c in conditions or ()}
        served = kube.request("GET", collection)[0] == 200
        if served and state.get("Established") == "True" and state.get("NamesAccepted") == "True":
            return
        assert time.monotonic() < end, (path, conditions)
        time.sleep(0.05)


def dry_run(kube: ApiServer, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return what the server would answer to `kubectl create` of one of our resources."""
    namespace = document.get("metadata", {}).get("namespace", "default")
    plural = "acceleratorpools"
    where = GROUP
    if document["kind"] == "ScalingPolicy":
        plural, where = "scalingpolicies", f"{GROUP}/namespaces/{namespace}"
    params = {"dryRun": "All", "fieldValidation": "Strict"}
    return kube.request("POST", f"{where}/{plural}", document, params=params)
