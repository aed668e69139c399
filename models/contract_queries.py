"""The queries that history and the live reader share: one per column, for all services together."""

from collections.abc import Mapping

from models import contract_series as of
from models.contract import (
    Labels,
    Quantity,
    bucket_rates,
    duration,
    most_samples,
    native_quantile,
    quantile,
    ratio,
    select,
    serving_pods,
    share_within,
    total,
)

SCRAPE_WINDOW_SECONDS = 600.0
LEVELS = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def level_queries(labels: Labels, window_seconds: float) -> dict[str, str]:
    """Return PromQL by column name for all but latency: rates per second, means, counts.

    Every answer has a row per (namespace, service, variant).
    """
    w = window_seconds
    sums = ("_sum", "_count")
    return {
        "completion_rate_rps": total("rate", of.COMPLETIONS, labels, w),
        "rejection_rate_rps": total("rate", of.REJECTIONS, labels, w),
        "running_change": total("delta", of.RUNNING, labels, w),
        "waiting_change": total("delta", of.WAITING, labels, w),
        "running": total("avg_over_time", of.RUNNING, labels, w),
        "waiting": total("avg_over_time", of.WAITING, labels, w),
        "isl_tokens": ratio(of.INPUT_TOKENS, of.INPUT_TOKENS, labels, w, suffixes=sums),
        "osl_tokens": ratio(of.OUTPUT_TOKENS, of.OUTPUT_TOKENS, labels, w, suffixes=sums),
        "kv_cache_usage_ratio": total("avg_over_time", of.KV_USAGE, labels, w, aggregate="avg"),
        "prefix_cache_hit_ratio": ratio(of.PREFIX_HITS, of.PREFIX_QUERIES, labels, w),
        "samples": most_samples(of.RUNNING, labels, w),
        "ready_replicas": serving_pods(of.RUNNING, labels, w),
    }


def serving_queries(
    labels: Labels,
    window_seconds: float,
    *,
    native: bool = False,
    buckets: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the queries of history: levels and quantiles, in the units of PROTOCOL.md section 1.

    `native`: quantiles come from native histograms instead of classic buckets. `buckets`: a matcher
    for the bounds that matter of `ttft` and `tpot`.
    """
    queries = level_queries(labels, window_seconds)
    for quantity in (of.TTFT, of.TPOT):
        matcher = (buckets or {}).get(quantity.name, "")
        for suffix, level in LEVELS:
            queries[f"{quantity.name}_{suffix}_seconds"] = (
                native_quantile(level, quantity, labels, window_seconds)
                if native
                else quantile(level, quantity, labels, window_seconds, matcher)
            )
    return queries


def growth_query(quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    """Return how much each bucket grew over all services: a row per `le` and alias."""
    window = duration(window_seconds)
    return " or ".join(
        f"label_replace(sum by (le) (increase({select(s.name + '_bucket', labels)}[{window}])), "
        f'"alias", "{place}", "", "")'
        for place, s in enumerate(quantity.series)
    )


def live_queries(labels: Labels, window_seconds: float) -> dict[str, str]:
    """Return the queries of one tick: the same levels; buckets once instead of a query a quantile.

    Aliases have buckets of their own and `or` would mix them: a query each, `ttft_buckets:0` first.
    """
    return {
        **level_queries(labels, window_seconds),
        **{
            f"{q.name}_buckets:{place}": bucket_rates(s, labels, window_seconds)
            for q in (of.TTFT, of.TPOT)
            for place, s in enumerate(q.series)
        },
        "age_seconds": age_query(labels),
        "gateway": gateway_query(labels, window_seconds),
        "gateway_queue": gateway_queue_query(labels, window_seconds),
        "draining": draining_query(labels, window_seconds),
        **replica_queries(),
    }


def age_query(labels: Labels) -> str:
    """Return how old the newest sample of each service is, at most five minutes."""
    by = ", ".join(labels.group)
    names = [f"max by ({by}) (timestamp({select(s.name, labels)}))" for s in of.RUNNING.series]
    return f"time() - ({' or '.join(names)})"


def replica_queries() -> dict[str, str]:
    """Return replica counts of Deployments and StatefulSets from kube-state-metrics."""
    names = {
        "desired": ("kube_deployment_spec_replicas", "kube_statefulset_replicas"),
        "ready": (
            "kube_deployment_status_replicas_ready",
            "kube_statefulset_status_replicas_ready",
        ),
        "present": ("kube_deployment_status_replicas", "kube_statefulset_status_replicas"),
    }
    return {
        f"replicas_{what}": f"max by (namespace, deployment) ({a}) or max by (namespace, statefulset) ({b})"
        for what, (a, b) in names.items()
    }


def share_queries(
    ttft_targets: tuple[float, ...],
    tpot_targets: tuple[float, ...],
    labels: Labels,
    window_seconds: float,
) -> dict[str, str]:
    """Return the share within each target, by `ttft_within:2` and the like."""
    pairs = [("ttft", of.TTFT, t) for t in ttft_targets] + [
        ("tpot", of.TPOT, t) for t in tpot_targets
    ]
    return {
        f"{what}_within:{target:g}": share_within(target, quantity, labels, window_seconds)
        for what, quantity, target in pairs
    }


def gateway_query(labels: Labels, window_seconds: float) -> str:
    """Return arrivals per second by the gateway's namespace and model."""
    return _at_gateway("rate", of.GATEWAY_REQUESTS, labels, window_seconds)


def gateway_queue_query(labels: Labels, window_seconds: float) -> str:
    """Return the requests that the gateway held, on average, by its namespace and model."""
    return _at_gateway("avg_over_time", of.GATEWAY_QUEUE, labels, window_seconds)


def _at_gateway(function: str, quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    by = ", ".join(x for x in (labels.gateway_namespace, labels.gateway_model_name) if x)
    parts = []
    for s in quantity.series:
        keep = ", ".join((by, "pod", "instance", *s.identity))
        value = f"{function}({select(s.name, labels)}[{duration(window_seconds)}])"
        parts.append(f"sum by ({by}) (max by ({keep}) ({value}))")
    return " or ".join(parts)


def models_query(labels: Labels, window_seconds: float) -> str:
    """Return which service serves which model: a row per (namespace, service, variant, model)."""
    by = ", ".join((*labels.group, labels.model_name))
    parts = [
        f"count by ({by}) (count_over_time({select(s.name, labels)}[{duration(window_seconds)}]))"
        for s in of.RUNNING.series
    ]
    return " or ".join(parts)


def pods_query(labels: Labels, window_seconds: float) -> str:
    """Return which pod belongs to which (namespace, service, variant) inside the window."""
    by = ", ".join((*labels.group, labels.pod))
    parts = [
        f"count by ({by}) (count_over_time({select(s.name, labels)}[{duration(window_seconds)}]))"
        for s in of.RUNNING.series
    ]
    return " or ".join(parts)


def draining_query(labels: Labels, window_seconds: float) -> str:
    """Return the pods of each row that are being deleted: no row where none is, or none is known.

    kube-state-metrics has kube_pod_deletion_timestamp from the request to delete until the pod is gone.
    """
    deleted = "kube_pod_deletion_timestamp"
    for own, theirs in ((labels.pod, "pod"), (labels.namespace, "namespace")):
        if own not in (None, theirs):
            deleted = f'label_replace({deleted}, "{own}", "$1", "{theirs}", "(.+)")'
    on = ", ".join(x for x in (labels.namespace, labels.pod) if x)
    pods = pods_query(labels, window_seconds)
    return f"count by ({', '.join(labels.group)}) (({pods}) and on ({on}) {deleted})"


def startup_queries(window_seconds: float) -> dict[str, str]:
    """Return instants of each pod from kube-state-metrics: a row per (namespace, pod, uid).

    The first ready time counts: a pod that flaps does not start anew. `seen` is the last scrape.
    """
    w = duration(window_seconds)
    by = "namespace, pod, uid"
    return {
        "created": f"min by ({by}) (min_over_time(kube_pod_created[{w}]))",
        "ready": f"min by ({by}) (min_over_time(kube_pod_status_ready_time[{w}]))",
        "deleted": f"max by ({by}) (max_over_time(kube_pod_deletion_timestamp[{w}]))",
        "seen": f"max by ({by}) (max_over_time(timestamp(kube_pod_created)[{w}:60s]))",
        "owner": f"max by ({by}, owner_kind, owner_name) (max_over_time(kube_pod_owner[{w}]))",
    }


def scrape_query(labels: Labels, window_seconds: float = SCRAPE_WINDOW_SECONDS) -> str:
    """Return scrapes in the window of the most frequently scraped engine, if any."""
    names = " or ".join(
        f"max(count_over_time({select(s.name, labels)}[{duration(window_seconds)}]))"
        for s in of.RUNNING.series
    )
    return f"max({names})"


def bounds_query(quantity: Quantity, labels: Labels, window_seconds: float) -> str:
    """Return the bucket bounds in use: a row per `le`."""
    window = duration(window_seconds)
    names = [
        f"count by (le) (last_over_time({select(f'{s.name}_bucket', labels)}[{window}]))"
        for s in quantity.series
    ]
    return " or ".join(names)
