"""Accelerators of a DRA device class: devices in ResourceSlices less those that others hold.

Reads resource.k8s.io v1, v1beta2 and v1beta1 alike. A DeviceClass selects devices by CEL; understood are
comparisons of the driver and of attributes with constants, joined by &&. Anything else is reported, not
guessed. Source: Kubernetes documentation, Dynamic Resource Allocation (KEP-4381).
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.edge.kube.facts import ClusterFacts, Counted, UnknownInventory
from autoscaler.edge.kube.nodes import BLOCKING_EFFECTS, NodeRecord, matches
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.quantities import JsonObject
from autoscaler.policy.schema import AcceleratorClassSpec

BY_SCHEDULER = (
    "deviceclass.resource.kubernetes.io/"  # a device class asked for as extended resource
)
DRIVER = re.compile(r"""device\.driver\s*==\s*(["'])(?P<driver>[^"']+)\1""")
ATTRIBUTE = re.compile(
    r"""device\.attributes\[(["'])(?P<domain>[^"']+)\1\]\.(?P<name>\w+)\s*==\s*"""
    r"""(?:(["'])(?P<text>[^"']*)\4|(?P<flag>true|false)|(?P<number>-?[0-9]+))"""
)
Device = tuple[str, str, str]  # driver, pool, name


@dataclass(frozen=True, slots=True)
class Choice:
    """Which devices a class takes: a driver's, with these attributes (domain, name) -> value."""

    driver: str
    attributes: Mapping[tuple[str, str], str | bool | int]

    def takes(self, device: JsonObject) -> bool:
        """Return whether a device of the driver has all attributes."""
        own = _basic(device).get("attributes") or {}
        for (domain, name), value in self.attributes.items():
            found = own.get(f"{domain}/{name}")
            if found is None and domain == self.driver:
                found = own.get(name)  # a name alone is in the driver's domain
            if found is None or value not in found.values():
                return False
        return True


@dataclass(frozen=True, slots=True)
class Holders:
    """Devices by who holds them; ours: without those of pods that are being deleted."""

    others: frozenset[Device]
    ours: frozenset[Device]


def device_class_of(resource_name: str) -> str | None:
    """Return the device class that a resource name means; None for an extended resource of nodes."""
    if resource_name.startswith(BY_SCHEDULER):
        return resource_name.removeprefix(BY_SCHEDULER)
    return None if "/" in resource_name else resource_name


def in_slices(
    c: AcceleratorClassSpec,
    reasons: Mapping[str, str],
    facts: ClusterFacts,
    ours: Callable[[PodRecord], bool],
) -> Counted:
    """Return the devices of a class with `fromNodes`; `reasons`: node -> why it is excluded, or "".

    Raises UnknownInventory. A device on an excluded node, or with a taint, counts while a pod of ours holds
    it (see `inventory`).
    """
    name = device_class_of(c.resource_name) or ""
    if facts.device_classes is None or facts.resource_slices is None:
        raise UnknownInventory(
            "device classes and ResourceSlices are not known, or may not be read"
        )
    if facts.resource_claims is None or facts.pods is None or not facts.nodes:
        raise UnknownInventory(
            "nodes, pods and ResourceClaims are not known yet, or may not be read"
        )
    if name not in facts.device_classes:
        raise UnknownInventory(f"DeviceClass {name} does not exist")
    choice = choice_of(name, facts.device_classes[name])
    held = holders(facts.resource_claims, facts.pods, ours)
    nodes = {n.name: n for n in facts.nodes}
    slices = list(_latest(facts.resource_slices, choice.driver))
    _refuse_vanished(slices, choice.driver, held.ours)
    seen: set[Device] = set()
    total = 0
    for piece in slices:
        node = _node_of(piece, nodes, c.node_selector)
        if isinstance(node, NodeRecord) and not matches(c.node_selector, node.labels):
            continue
        blocked = reasons.get(node.name, "") if isinstance(node, NodeRecord) else ""
        for device in piece["spec"].get("devices") or ():
            key = _key(piece, device)
            if key in seen or not choice.takes(device):
                continue
            seen.add(key)
            _refuse_partitions(device, choice.driver)
            free = not blocked and not _tainted(device)
            total += key not in held.others if free else key in held.ours
    problem = "" if seen else f"no ResourceSlice holds a device of DeviceClass {name} there"
    return Counted(total, frozenset(seen), problem)


def choice_of(name: str, device_class: JsonObject) -> Choice:
    """Return which devices a DeviceClass takes; raises UnknownInventory for CEL that is not understood."""
    drivers: set[str] = set()
    attributes: dict[tuple[str, str], str | bool | int] = {}
    for selector in device_class["spec"].get("selectors") or ():
        for term in (selector.get("cel") or {}).get("expression", "").split("&&"):
            if found := DRIVER.fullmatch(term.strip()):
                drivers.add(found["driver"])
            elif found := ATTRIBUTE.fullmatch(term.strip()):
                attributes[found["domain"], found["name"]] = _constant(found)
            else:
                raise UnknownInventory(
                    f"DeviceClass {name} selects by {term.strip()!r}, which is not understood; "
                    'understood: device.driver == "x" and attributes == constants, joined by &&'
                )
    if len(drivers) != 1:
        raise UnknownInventory(f"DeviceClass {name} names {len(drivers)} drivers; one is needed")
    return Choice(drivers.pop(), attributes)


def holders(
    claims: Sequence[JsonObject], pods: Collection[PodRecord], ours: Callable[[PodRecord], bool]
) -> Holders:
    """Return who holds which device, from allocated ResourceClaims."""
    by_uid = {pod.uid: pod for pod in pods}
    others: set[Device] = set()
    mine: set[Device] = set()
    for claim in claims:
        status = claim.get("status") or {}
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        devices = {
            (r["driver"], r["pool"], r["device"]) for r in results if not r.get("adminAccess")
        }
        if not devices:
            continue
        users = [by_uid.get(uid) for uid in _users(claim)]
        if not users or not all(pod is not None and ours(pod) for pod in users):
            others |= devices
        elif any(pod is not None and not pod.deleting and not pod.ended for pod in users):
            mine |= devices
    return Holders(frozenset(others), frozenset(mine - others))


def _users(claim: JsonObject) -> list[str]:
    """Return the uids of the pods that use a claim; before that, of the pod that it was made for."""
    reserved = (claim.get("status") or {}).get("reservedFor") or ()
    owners = claim["metadata"].get("ownerReferences") or ()
    return [r["uid"] for r in reserved] or [o["uid"] for o in owners if o.get("kind") == "Pod"]


def _latest(slices: Sequence[JsonObject], driver: str) -> Iterator[JsonObject]:
    """Yield a driver's slices of the newest generation of each pool; raises UnknownInventory.

    A pool that is being republished is not whole, and what it lacks is not known to be gone.
    """
    pools: dict[str, list[JsonObject]] = {}
    for piece in slices:
        if piece["spec"].get("driver") == driver:
            pools.setdefault(piece["spec"]["pool"]["name"], []).append(piece)
    for pool, pieces in sorted(pools.items()):
        newest = max(p["spec"]["pool"]["generation"] for p in pieces)
        current = [p for p in pieces if p["spec"]["pool"]["generation"] == newest]
        count = current[0]["spec"]["pool"]["resourceSliceCount"]
        if len(current) < count:
            raise UnknownInventory(
                f"pool {pool} of driver {driver} is being published: {len(current)} of {count} "
                "ResourceSlices are there"
            )
        yield from current


def _node_of(
    piece: JsonObject, nodes: Mapping[str, NodeRecord], selector: Mapping[str, str]
) -> NodeRecord | None:
    """Return the node of a slice, None for devices that many nodes reach; raises UnknownInventory."""
    name = piece["spec"].get("nodeName")
    if name:
        if name not in nodes:
            raise UnknownInventory(f"node {name} of a ResourceSlice is not known yet")
        return nodes[name]
    if selector:
        raise UnknownInventory(
            f"ResourceSlice {piece['metadata']['name']} is not of one node: the class's nodeSelector "
            "cannot be held against its devices"
        )
    return None


def _key(piece: JsonObject, device: JsonObject) -> Device:
    return piece["spec"]["driver"], piece["spec"]["pool"]["name"], device["name"]


def _refuse_vanished(slices: Sequence[JsonObject], driver: str, held: Collection[Device]) -> None:
    """Raise UnknownInventory if our pods hold devices that no slice has: the driver restarts."""
    there = {_key(piece, d) for piece in slices for d in piece["spec"].get("devices") or ()}
    gone = sorted(d for d in held if d[0] == driver and d not in there)
    if gone:
        raise UnknownInventory(
            f"device {gone[0][2]} of pool {gone[0][1]} is in use but in no ResourceSlice of driver {driver} "
            "(is the driver restarting?)"
        )


def _refuse_partitions(device: JsonObject, driver: str) -> None:
    if _basic(device).get("consumesCounters"):
        raise UnknownInventory(
            f"device {device['name']} of driver {driver} shares counters with others (partitions): "
            "how many fit cannot be counted"
        )


def _tainted(device: JsonObject) -> bool:
    return any(t.get("effect") in BLOCKING_EFFECTS for t in _basic(device).get("taints") or ())


def _basic(device: JsonObject) -> JsonObject:
    """Return the device's properties: v1beta1 has them under `basic`."""
    basic: JsonObject = device.get("basic") or device
    return basic


def _constant(found: re.Match[str]) -> str | bool | int:
    if found["flag"]:
        return found["flag"] == "true"
    return int(found["number"]) if found["number"] else str(found["text"])
