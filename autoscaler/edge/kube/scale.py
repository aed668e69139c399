"""The scale subresource: how many replicas, of anything that has one. Read always, written with care."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from autoscaler.core.types import TargetRef
from autoscaler.edge.kube.api import KubeApi, KubeError, KubeInvalid, KubeUnavailable

Target = tuple[str, TargetRef]  # namespace, workload
MAX_REPLICAS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ScaleView:
    """What the API server says about one workload's scale.

    `replicas` is what is asked for, `status_replicas` the pods (groups) that exist, `selector` their
    label selector as text ("" where the kind gives none); writing needs `resource_version` and `uid`.
    """

    replicas: int
    status_replicas: int
    selector: str
    resource_version: str
    uid: str


def read_scale(api: KubeApi, namespace: str, target: TargetRef) -> ScaleView:
    """Return the scale of one workload; KubeError, KubeNotFound if the kind has no scale."""
    path = api.path_of(target.api_version, target.kind, namespace, target.name, "scale")
    return _view(api.get(path), path)


def read_scales(
    api: KubeApi, targets: Iterable[Target], parallel: int, deadline_seconds: float
) -> dict[Target, ScaleView | KubeError]:
    """Return every target's scale or why there is none, in time; each target is asked once.

    One that fails keeps nobody else from being read; what is not read by then is KubeUnavailable.
    """
    end = time.monotonic() + deadline_seconds
    wanted = list(dict.fromkeys(targets))

    def read(target: Target) -> ScaleView | KubeError:
        left = end - time.monotonic()
        if left <= 0.0:
            return _too_late(target, deadline_seconds)
        try:
            return read_scale(api.within(min(left, api.timeout_seconds)), *target)
        except KubeError as error:
            return error

    pool = ThreadPoolExecutor(max_workers=max(parallel, 1), thread_name_prefix="scale")
    try:
        answers = {target: pool.submit(read, target) for target in wanted}
        wait(answers.values(), timeout=max(end - time.monotonic(), 0.0))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return {
        target: answer.result()
        if answer.done() and not answer.cancelled()
        else _too_late(target, deadline_seconds)
        for target, answer in answers.items()
    }


def write_scale(
    api: KubeApi, namespace: str, target: TargetRef, view: ScaleView, replicas: int
) -> ScaleView:
    """Ask for `replicas` if the workload is still as `view` saw it; KubeConflict if it is not.

    A workload deleted and created again meanwhile is a conflict, too: it has another uid.
    """
    if not 0 <= replicas <= MAX_REPLICAS:
        raise KubeInvalid(
            f"{target.kind} {namespace}/{target.name}: {replicas} replicas; "
            f"allowed: 0 to {MAX_REPLICAS}",
            reason="Invalid",
        )
    path = api.path_of(target.api_version, target.kind, namespace, target.name, "scale")
    body = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {
            "name": target.name,
            "namespace": namespace,
            "resourceVersion": view.resource_version,
            "uid": view.uid,
        },
        "spec": {"replicas": replicas},
    }
    return _view(api.replace(path, body), path)


def _view(scale: dict[str, Any], path: str) -> ScaleView:
    """Read a Scale object; a count of zero is left out of its JSON, as everywhere in the API."""
    meta, spec, status = (scale.get(key) or {} for key in ("metadata", "spec", "status"))
    replicas, existing = spec.get("replicas", 0), status.get("replicas", 0)
    selector, version, uid = (
        status.get("selector", ""),
        meta.get("resourceVersion"),
        meta.get("uid"),
    )
    counts = isinstance(replicas, int) and isinstance(existing, int)
    if scale.get("kind") != "Scale" or not counts or not version or not uid:
        raise KubeUnavailable(f"{path}: the answer is no Scale object", 0, "NoScale")
    return ScaleView(replicas, existing, str(selector), str(version), str(uid))


def _too_late(target: Target, deadline_seconds: float) -> KubeUnavailable:
    namespace, ref = target
    return KubeUnavailable(
        f"scale of {ref.kind} {namespace}/{ref.name}: not read within {deadline_seconds:g} s",
        0,
        "Timeout",
    )
