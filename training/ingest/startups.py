"""Starts of replicas from kube-state-metrics: created, ready, given up; which service each pod is of."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from models.contract import Labels
from models.contract_api import Row

GONE_SECONDS = 600.0  # not seen for this long before the end of the range: it no longer exists

Pod = tuple[str, str]  # (namespace, pod)
Owner = tuple[str, str, str]  # (namespace, kind, name)


def startups_frame(
    facts: dict[str, list[Row]], pods: Iterable[Row], labels: Labels, end_seconds: float
) -> tuple[pd.DataFrame, int]:
    """Return starts (PROTOCOL.md section 1), and how many pods of the workloads have no service.

    facts: rows of `startup_queries` over all days; pods: rows of `pods_query`. A pod that was never
    ready is censored: ready_ts null, ended_ts when it was deleted or last seen.
    """
    owner_of = _owners(facts["owner"])
    known = _services(pods, labels)
    by_owner = {owner_of[p]: s for p, s in known.items() if p in owner_of}
    created = _each(facts["created"], min)
    ready = _each(facts["ready"], min)
    deleted = _each(facts["deleted"], max)
    seen = _each(facts["seen"], max)
    rows = []
    for key, start in created.items():
        pod = (key[0], key[1])
        service = known.get(pod) or by_owner.get(owner_of.get(pod, ("", "", "")))
        if service is None:
            continue
        first = ready.get(key, np.nan)
        ended = deleted.get(key, np.nan)
        last = seen.get(key, np.nan)
        if np.isnan(ended) and last <= end_seconds - GONE_SECONDS:
            ended = last
        is_ready = first >= start
        rows.append(
            (
                *service,
                start,
                first if is_ready else np.nan,
                np.nan if is_ready else max(ended, start),
            )
        )
    columns = ["service", "variant", "created_ts", "ready_ts", "ended_ts"]
    frame = pd.DataFrame(rows, columns=columns)
    for column in columns[2:]:
        frame[column] = pd.to_datetime(frame[column].astype(np.float64), unit="s", utc=True)
    return frame, len(known.keys() - {(k[0], k[1]) for k in created})


def starting_counts(
    frame: pd.DataFrame,
    service: tuple[str, str],
    start_seconds: float,
    step_seconds: float,
    steps: int,
) -> np.ndarray:
    """Return the mean number of starting replicas in each interval, shape (steps,)."""
    own = frame[(frame.service == service[0]) & (frame.variant == service[1])]
    out = np.zeros(steps)
    begin = _epoch(own.created_ts)
    end = np.fmin(_epoch(own.ready_ts), _epoch(own.ended_ts))
    horizon = start_seconds + steps * step_seconds
    for a, b in zip(begin, np.where(np.isnan(end), horizon, end), strict=True):
        low, high = (a - start_seconds) / step_seconds, (b - start_seconds) / step_seconds
        first = max(0, int(np.floor(low)))
        last = max(first, min(steps, int(np.ceil(high))))
        at = np.arange(first, last)
        out[first:last] += np.minimum(at + 1, high) - np.maximum(at, low)
    return out


def _epoch(times: "pd.Series[pd.Timestamp]") -> np.ndarray:
    seconds = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return np.asarray(seconds, dtype=np.float64)


def _each(
    rows: Sequence[Row], pick: Callable[[float, float], float]
) -> dict[tuple[str, str, str], float]:
    out: dict[tuple[str, str, str], float] = {}
    for row in rows:
        key = (
            row.labels.get("namespace", ""),
            row.labels.get("pod", ""),
            row.labels.get("uid", ""),
        )
        value = float(row.values[-1])
        if np.isfinite(value):
            out[key] = pick(out[key], value) if key in out else value
    return out


def _owners(rows: Sequence[Row]) -> dict[Pod, Owner]:
    out: dict[Pod, Owner] = {}
    for row in rows:
        label = row.labels
        kind, name = label.get("owner_kind", ""), label.get("owner_name", "")
        if (
            kind == "ReplicaSet"
        ):  # a rollout makes a new one: the Deployment's name is before the hash
            name = name.rpartition("-")[0] or name
        if name:
            out[label.get("namespace", ""), label.get("pod", "")] = (
                label.get("namespace", ""),
                kind,
                name,
            )
    return out


def _services(rows: Iterable[Row], labels: Labels) -> dict[Pod, tuple[str, str]]:
    out: dict[Pod, tuple[str, str]] = {}
    for row in rows:
        service = labels.row(row.labels)
        namespace = row.labels.get(labels.namespace, "") if labels.namespace else ""
        if service is not None:
            out[namespace, row.labels.get(labels.pod, "")] = service
    return out
