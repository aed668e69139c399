"""What the double serves: the table of built-in kinds, and the refusals in the real wording."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

# apiVersion, plural, kind, short names, traits:
#   cluster: not namespaced; status, scale: subresources; generation: counted;
#   strict: an update must carry a resourceVersion; create: only POST, nothing is kept
BUILT_IN = """
v1 namespaces Namespace ns cluster,status,finalize
v1 nodes Node no cluster,status
v1 pods Pod po status,generation
v1 configmaps ConfigMap cm -
v1 secrets Secret - -
v1 services Service svc status
v1 serviceaccounts ServiceAccount sa strict,token
v1 events Event ev -
v1 resourcequotas ResourceQuota quota status
events.k8s.io/v1 events Event ev -
apps/v1 deployments Deployment deploy status,scale,generation
apps/v1 statefulsets StatefulSet sts status,scale,generation
apps/v1 replicasets ReplicaSet rs status,scale,generation
batch/v1 cronjobs CronJob cj status,generation
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler hpa status
coordination.k8s.io/v1 leases Lease - strict
policy/v1 poddisruptionbudgets PodDisruptionBudget pdb status,generation,strict
networking.k8s.io/v1 networkpolicies NetworkPolicy netpol generation
scheduling.k8s.io/v1 priorityclasses PriorityClass pc cluster,generation
resource.k8s.io/v1 resourceslices ResourceSlice - cluster,generation
resource.k8s.io/v1 deviceclasses DeviceClass - cluster,generation
rbac.authorization.k8s.io/v1 roles Role - -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding - -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole - cluster
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding - cluster
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition crd cluster,status,strict,generation
authorization.k8s.io/v1 selfsubjectaccessreviews SelfSubjectAccessReview - cluster,create
"""  # noqa: E501
SCALE_PATHS = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".spec.selector",  # an object here; a string in custom resources
}


@dataclass(frozen=True)
class Kind:
    """One resource of one version."""

    group: str
    version: str
    plural: str
    kind: str
    traits: frozenset[str]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    singular: str = ""
    scale: Mapping[str, str] | None = None
    schema: Object | None = None  # of custom resources only

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def namespaced(self) -> bool:
        return "cluster" not in self.traits

    @property
    def is_custom(self) -> bool:
        return self.schema is not None

    @property
    def storage(self) -> str:
        """Versions of a kind share their objects, and so do both kinds of Event."""
        return "events" if self.kind == "Event" else f"{self.plural}.{self.group}"

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def rows(self) -> list[Object]:
        """Return the discovery entries: the resource and its subresources."""
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        row = {
            "name": self.plural,
            "singularName": self.singular or self.kind.lower(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": ["create"] if "create" in self.traits else verbs,
        }
        if self.short_names:
            row["shortNames"] = list(self.short_names)
        if self.categories:
            row["categories"] = list(self.categories)
        base = {"singularName": "", "namespaced": self.namespaced}
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        own: dict[str, Object] = {"status": {"kind": self.kind}, "scale": scale}
        return [row] + [
            {
                **base,
                "name": f"{self.plural}/{sub}",
                **own[sub],
                "verbs": ["get", "patch", "update"],
            }
            for sub in ("status", "scale")
            if sub in self.traits
        ]


def built_in() -> dict[tuple[str, str, str], Kind]:
    """Return the built-in kinds by (group, version, plural)."""
    kinds = {}
    for line in BUILT_IN.strip().splitlines():
        api_version, plural, name, short, traits = line.split()
        group, _, version = api_version.rpartition("/")
        kind = Kind(
            group,
            version,
            plural,
            name,
            frozenset(traits.split(",")),
            () if short == "-" else (short,),
            ("all",) if group == "apps" else (),
            scale=SCALE_PATHS if "scale" in traits else None,
        )
        kinds[group, version, plural] = kind
    return kinds


def custom(crd: Object) -> list[Kind]:
    """Return the served versions that a CustomResourceDefinition declares."""
    spec = crd["spec"]
    names = spec["names"]
    kinds = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        traits = {"generation", "strict", *subresources}
        if spec["scope"] == "Cluster":
            traits.add("cluster")
        kind = Kind(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            frozenset(traits),
            tuple(names.get("shortNames", ())),
            tuple(names.get("categories", ())),
            names.get("singular", ""),
            subresources.get("scale"),
            version["schema"]["openAPIV3Schema"],
        )
        kinds.append(kind)
    return kinds


class ApiError(Exception):
    """A refusal, sent as a Status."""

    def __init__(
        self, code: int, reason: str, message: str, details: Object | None = None, **more: str
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details, self.headers = details, more

    def body(self) -> Object:
        status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": self.message, "reason": self.reason, "code": self.code}
        return status if self.details is None else {**status, "details": self.details}


def details(kind: Kind, name: str) -> Object:
    about = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in about.items() if value}


def not_found(kind: Kind, name: str) -> ApiError:
    message = f'{kind.resource} "{name}" not found'
    return ApiError(404, "NotFound", message, details(kind, name))


def already_exists(kind: Kind, name: str) -> ApiError:
    message = f'{kind.resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> ApiError:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(kind, name))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


@dataclass(frozen=True)
class Cause:
    """One field that is wrong."""

    reason: str  # FieldValueRequired, FieldValueInvalid ...
    field: str
    message: str


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", field, "Required value" + (f": {why}" if why else ""))


def invalid_value(field: str, value: object, why: str) -> Cause:
    shown = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Cause("FieldValueInvalid", field, f"Invalid value: {shown}: {why}")


def invalid(kind: Kind, name: str, causes: list[Cause]) -> ApiError:
    """Return 422 with one cause for each wrong field."""
    texts = [f"{c.field}: {c.message}" for c in causes]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    title = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    about: Object = {**details(kind, name), "kind": kind.kind}
    about["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return ApiError(422, "Invalid", f'{title} "{name}" is invalid: {text}', about)
