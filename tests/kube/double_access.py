"""Who may do what: RBAC over the roles and bindings that the double stores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from double_kinds import ApiError, Kind, details
from double_store import Store

Object = dict[str, Any]
ADMINISTRATORS = "system:masters"
ROLES = ".rbac.authorization.k8s.io"
PUBLIC_PATHS = ("/api", "/version", "/healthz", "/readyz", "/livez", "/openapi")


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...]
    namespace: str = field(default="")  # of a ServiceAccount


def service_account(namespace: str, name: str) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    user = f"system:serviceaccount:{namespace}:{name}"
    return User(user, (*groups, "system:authenticated"), namespace)


@dataclass(frozen=True)
class Wish:
    """What a request wants to do."""

    verb: str
    group: str
    resource: str  # with its subresource: deployments/scale
    namespace: str
    name: str = ""


def is_allowed(store: Store, user: User, wish: Wish) -> bool:
    if ADMINISTRATORS in user.groups or wish.resource == "selfsubjectaccessreviews":
        return True
    return any(_rule_allows(rule, wish) for rule in _rules(store, user, wish.namespace))


def refuse(user: User, wish: Wish, kind: Kind) -> ApiError:
    """Return 403 in the real server's words."""
    title = f'{kind.resource} "{wish.name}"' if wish.name else kind.resource
    where = f'in the namespace "{wish.namespace}"' if wish.namespace else "at the cluster scope"
    message = (
        f'{title} is forbidden: User "{user.name}" cannot {wish.verb} resource "{wish.resource}"'
        f' in API group "{wish.group}" {where}'
    )
    return ApiError(403, "Forbidden", message, details(kind, wish.name))


def _rules(store: Store, user: User, namespace: str) -> Iterator[Object]:
    for binding in store.items(f"clusterrolebindings{ROLES}", ""):
        if _binds(binding, user):
            yield from _role_rules(store, binding["roleRef"], "")
    if namespace:
        for binding in store.items(f"rolebindings{ROLES}", namespace):
            if _binds(binding, user):
                yield from _role_rules(store, binding["roleRef"], namespace)


def _binds(binding: Object, user: User) -> bool:
    for subject in binding.get("subjects") or ():
        kind, name = subject["kind"], subject["name"]
        if kind == "ServiceAccount":
            name = f"system:serviceaccount:{subject.get('namespace', '')}:{name}"
        if name in (user.groups if kind == "Group" else (user.name,)):
            return True
    return False


def _role_rules(store: Store, reference: Object, namespace: str) -> list[Object]:
    is_cluster = reference["kind"] == "ClusterRole"
    storage = f"{'clusterroles' if is_cluster else 'roles'}{ROLES}"
    role = store.get(storage, ("" if is_cluster else namespace, reference["name"]))
    return (role or {}).get("rules") or []


def _rule_allows(rule: Object, wish: Wish) -> bool:
    def has(field_name: str, *values: str) -> bool:
        return bool({"*", *values} & set(rule.get(field_name) or ()))

    _, _, subresource = wish.resource.partition("/")
    any_parent = (f"*/{subresource}",) if subresource else ()
    names = rule.get("resourceNames")
    return (
        has("verbs", wish.verb)
        and has("apiGroups", wish.group)
        and has("resources", wish.resource, *any_parent)
        and (not names or wish.name in names)
    )
