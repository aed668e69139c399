"""Labels that only some engines have: what that means for the numbers, a sentence each."""

from collections.abc import Iterable, Mapping

from models.contract import DEFAULT_VARIANT, Labels
from models.contract_api import Row

Pod = tuple[str, str]  # (namespace or empty, pod)


def label_gaps(engines: Iterable[Row], labels: Labels) -> tuple[list[str], list[str]]:
    """Return sentences on engines that belong to no row, and on those that count but for something.

    engines: rows of `models_query`, one per (namespace, service, variant, pod, model).
    """
    rows = [row.labels for row in engines]
    lost = []
    for name in (labels.namespace, labels.service):
        without = {_pod(r, labels) for r in rows if name and not r.get(name)}
        if without:
            every = {_pod(r, labels) for r in rows}
            lost.append(
                f"{_some(without, every)} no label '{name}', belonging to no service (add it to the "
                "pods and to podTargetLabels)"
            )
    partly = []
    by_service: dict[str, list[Mapping[str, str]]] = {}
    for r in rows:
        key = labels.row(r)
        if key is not None:
            by_service.setdefault(key[0], []).append(r)
    for service, own in sorted(by_service.items()):
        every = {_pod(r, labels) for r in own}
        for name, effect in (
            (labels.variant, f"counted as its variant '{DEFAULT_VARIANT}'"),
            (labels.model_name, "counted in full, and the gateway's arrivals by the others' model"),
        ):
            without = {_pod(r, labels) for r in own if name and not r.get(name)}
            if without and without != every:
                partly.append(f"{service}: {_some(without, every)} no label '{name}', {effect}")
    return lost, partly


def _pod(row: Mapping[str, str], labels: Labels) -> Pod:
    return (row.get(labels.namespace, "") if labels.namespace else "", row.get(labels.pod, ""))


def _some(without: set[Pod], every: set[Pod]) -> str:
    namespace, pod = min(without)
    example = f"{namespace}/{pod}" if namespace else pod
    verb = "has" if len(without) == 1 else "have"
    return f"{len(without)} of {len(every)} pods (such as {example or 'one without a pod label'}) {verb}"
