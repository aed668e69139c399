"""Two questions to Prometheus that are about pods and nodes, not services; each one query, when needed."""

import logging
import math
from collections.abc import Mapping

from models.contract import Labels, duration, select
from models.contract_api import ApiError, QueryApi
from models.contract_series import RUNNING

log = logging.getLogger("foreserve")
LOAD_WINDOW_SECONDS = 60.0
XID_METRIC = "DCGM_FI_DEV_XID_ERRORS"  # a gauge: the last XID error of a device, 0 for none
NODE_LABELS = ("Hostname", "node", "kubernetes_node", "exported_node")  # dcgm-exporter, relabelings
# Errors of applications, not of devices: what NVIDIA's k8s-device-plugin leaves a device healthy for
# (internal/rm/health.go: 13 31 43 45 68 109).
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})


def load_query(labels: Labels) -> str:
    """Return the query of running requests by namespace and pod, engines' ranks added up."""
    by = ", ".join(x for x in (labels.namespace, labels.pod) if x)
    window = duration(LOAD_WINDOW_SECONDS)
    return " or ".join(
        f"sum by ({by}) (avg_over_time({select(series.name, labels)}[{window}]))"
        for series in RUNNING.series
    )


def pod_loads(api: QueryApi, labels: Labels, now_seconds: float) -> dict[tuple[str, str], float]:
    """Return (namespace, pod) -> running requests; empty where the server cannot tell."""
    try:
        rows = api.instant(load_query(labels), now_seconds)
    except ApiError as error:
        log.warning("load by pod cannot be read, no pod is marked as idle: %s", error)
        return {}
    namespace = labels.namespace or ""
    return {
        (row.labels.get(namespace, ""), row.labels.get(labels.pod, "")): float(row.values[-1])
        for row in rows
    }


def failed_devices(api: QueryApi, now_seconds: float) -> Mapping[str, int]:
    """Return node -> XID of a device that reported a hardware error, where DCGM is scraped."""
    by = ", ".join(NODE_LABELS)
    try:
        rows = api.instant(f"max by ({by}) ({XID_METRIC}) > 0", now_seconds)
    except ApiError as error:
        log.debug("XID errors cannot be read: %s", error)
        return {}
    found = {}
    for row in rows:
        node = next((row.labels[label] for label in NODE_LABELS if row.labels.get(label)), "")
        value = float(row.values[-1])
        if node and math.isfinite(value) and int(value) not in APPLICATION_XIDS:
            found[node] = int(value)
    return found
