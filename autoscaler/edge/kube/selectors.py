"""Label selectors as the API writes them in `scale.status.selector`.

Grammar: k=v, k==v, k!=v, k in (a,b), k notin (a,b), k, !k, k>1, k<1, joined by commas, all must hold. As in
the API, != and notin hold for an object without the label, too.
Source: Kubernetes documentation, Labels and Selectors; apimachinery's labels package for > and <.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from autoscaler.edge.kube.quantities import KubeObjectError

NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
TERM = re.compile(
    rf"\s*(?:(?P<absent>!)\s*)?(?P<key>{NAME})\s*(?:"
    rf"(?P<set>(?<=\s)in|(?<=\s)notin)\s*\((?P<values>[^()]*)\)|"
    rf"(?P<op>==|=|!=|>|<)\s*(?P<value>{VALUE}))?\s*(?P<end>,|$)"
)
LEADERS = re.compile(r"\s*leaderworkerset\.sigs\.k8s\.io/worker-index\s*==?\s*0\s*")
ONE_VALUE = re.compile(VALUE)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term: `op` is in, notin, exists, absent, > or <."""

    key: str
    op: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels meets it."""
        value = labels.get(self.key)
        if self.op in ("notin", "absent"):
            return value is None or (self.op == "notin" and value not in self.values)
        if value is None:
            return False
        if self.op in (">", "<"):
            (bound,) = self.values
            if not re.fullmatch(r"-?[0-9]+", value):
                return False
            return int(value) > int(bound) if self.op == ">" else int(value) < int(bound)
        return self.op == "exists" or value in self.values


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Return whether `selector` selects an object with these labels.

    Raises KubeObjectError if it cannot be read, and for an empty one: it would select every pod of a
    namespace, which no workload means.
    """
    return all(r.holds(labels) for r in parse_selector(selector))


def group_selector(selector: str) -> str:
    """Return the selector of all pods of a target's replicas, where `selector` may count leaders only.

    The scale of a LeaderWorkerSet selects the leader of each group, whose workers hold accelerators, too.
    Raises KubeObjectError as `selects` does.
    """
    parse_selector(selector)
    terms = [t for t in re.split(r",(?![^(]*\))", selector) if not LEADERS.fullmatch(t)]
    return ",".join(terms) or selector


@lru_cache(maxsize=4096)
def parse_selector(selector: str) -> tuple[Requirement, ...]:
    """Return the terms of a selector; raises KubeObjectError naming what cannot be read."""
    terms, at = [], 0
    while True:
        found = TERM.match(selector, at)
        if found is None:
            raise KubeObjectError(
                f"selector {selector!r}: {selector[at:]!r} cannot be read; allowed: terms such as "
                "app=chat, tier in (a,b), !canary, joined by commas"
            )
        terms.append(_requirement(selector, found))
        at = found.end()
        if not found["end"]:
            return tuple(terms)


def _requirement(selector: str, found: re.Match[str]) -> Requirement:
    key, op = found["key"], found["op"]
    if found["absent"] and (op or found["set"]):
        raise KubeObjectError(f"selector {selector!r}: '!' stands before a key alone")
    if found["absent"]:
        return Requirement(key, "absent")
    if found["set"]:
        values = frozenset(v.strip() for v in found["values"].split(","))
        if not all(ONE_VALUE.fullmatch(v) for v in values):
            raise KubeObjectError(
                f"selector {selector!r}: ({found['values']}) is not a list of label values"
            )
        return Requirement(key, found["set"], values)
    if op is None:
        return Requirement(key, "exists")
    if op in (">", "<") and not re.fullmatch(r"[0-9]+", found["value"]):
        raise KubeObjectError(f"selector {selector!r}: a whole number is allowed after {op}")
    name = {"=": "in", "==": "in", "!=": "notin"}.get(op, op)
    return Requirement(key, name, frozenset([found["value"]]))
