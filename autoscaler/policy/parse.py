"""Policy documents -> validated resources -> the core's values."""

import math
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError

from autoscaler.core.types import Policies
from autoscaler.policy.checks import Resource, across_documents, of_document
from autoscaler.policy.convert import to_policy, to_pool
from autoscaler.policy.documents import read_documents
from autoscaler.policy.errors import Place, Problem, first_of, nearest, one_line, refused, shown
from autoscaler.policy.schema import (
    API_VERSION,
    RESOURCES,
    STANDARD_METADATA,
    AcceleratorPool,
    ScalingPolicy,
)
from autoscaler.policy.wording import problems_of


def parse_policies(documents: Iterable[tuple[str, str]]) -> Policies:
    """Return what the users declared in `documents`, pairs of (file name, text).

    A text may hold several YAML documents; empty ones are skipped. Order is kept. Raises PolicyError,
    one line, naming the first thing that is wrong and how many more there are.
    """
    return to_policies(parse_resources(documents))


def parse_resources(documents: Iterable[tuple[str, str]]) -> list[Resource]:
    """Return the validated documents themselves; raises PolicyError as `parse_policies` does."""
    resources: list[Resource] = []
    problems: list[Problem] = []
    for file, text in documents:
        for number, data in read_documents(file, text):
            parsed = parse_document(Place(file, number), data)
            if isinstance(parsed, Resource):
                resources.append(parsed)
            else:
                problems += parsed
    problems += across_documents(resources) if not problems else []
    if problems:
        raise first_of(problems)
    return resources


def to_policies(resources: Sequence[Resource]) -> Policies:
    """Return the core's values of resources that passed `parse_resources`."""
    policies = (to_policy(r.body) for r in resources if isinstance(r.body, ScalingPolicy))
    return Policies(
        services={p.service: p for p in policies},
        pools=tuple(to_pool(r.body) for r in resources if isinstance(r.body, AcceleratorPool)),
    )


def parse_document(place: Place, data: object) -> Resource | list[Problem]:
    """Return the validated document `data` (plain data, as YAML or JSON gives it), or what is wrong."""
    if not isinstance(data, dict):
        return [Problem(place, "", f"{shown(data)} is not allowed; allowed: a mapping")]
    if problem := _wrong_kind(place, data):
        return [problem]
    place = Place(place.file, place.document, _label(data))
    found: list[Problem] = []
    cleaned = _cleaned(place, "", _own_fields(data, data["kind"]), found)
    if found:
        return found
    model = RESOURCES[data["kind"]]
    try:
        resource = Resource(place, model.model_validate(cleaned))
    except ValidationError as error:
        return problems_of(error, model, place)
    return list(of_document(resource)) or resource


def _wrong_kind(place: Place, data: Mapping[str, object]) -> Problem | None:
    kinds = ", ".join(RESOURCES)
    kind = data.get("kind")
    if kind is None:
        return Problem(place, "kind", f"missing; required: one of {kinds}")
    if not isinstance(kind, str) or kind not in RESOURCES:
        hint = nearest(kind, RESOURCES) if isinstance(kind, str) else ""
        return Problem(place, "kind", f"{shown(kind)} is not allowed; {hint}allowed: {kinds}")
    version = data.get("apiVersion")
    if version is None:
        return Problem(place, "apiVersion", f"missing; required: {API_VERSION}")
    return None if version == API_VERSION else refused(place, "apiVersion", version, API_VERSION)


def _label(data: Mapping[str, object]) -> str:
    """Return kind and name as far as the document has them."""
    kind, metadata = data["kind"], data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str):
        return str(kind)
    namespace = metadata.get("namespace") or "default"
    full = name if kind == "AcceleratorPool" else f"{namespace}/{name}"
    return one_line(f"{kind} {full[:160]}")


def _own_fields(data: Mapping[str, object], kind: str) -> dict[str, object]:
    """Return the document without `status` and without metadata that only the API server reads."""
    own = {key: value for key, value in data.items() if key != "status"}
    metadata = own.get("metadata")
    if isinstance(metadata, dict):
        ignored = STANDARD_METADATA - ({"namespace"} if kind == "ScalingPolicy" else set())
        own["metadata"] = {k: v for k, v in metadata.items() if k not in ignored}
    return own


def _cleaned(place: Place, path: str, value: object, found: list[Problem]) -> object:
    """Return `value` without nulls (null means absent, as for the API server); keys must be text."""
    if isinstance(value, list):
        return [_cleaned(place, f"{path}[{i}]", v, found) for i, v in enumerate(value)]
    if not isinstance(value, dict):
        if isinstance(value, float) and not math.isfinite(value):
            found.append(refused(place, path, value, "a finite number"))
        return value
    out: dict[str, object] = {}
    for key, entry in value.items():
        at = f"{path}.{key}" if path else str(key)
        if not isinstance(key, str):
            found.append(refused(place, path, key, "a key that is text (put it in quotes)"))
        elif entry is not None:
            out[key] = _cleaned(place, at, entry, found)
    return out
