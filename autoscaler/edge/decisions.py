"""Decisions as JSON: PROTOCOL.md section 3, with the further numbers behind each of them."""

import json
import math
from dataclasses import fields
from operator import attrgetter
from typing import Any

import orjson

from autoscaler.core.outcome import Decisions, ServiceDecision

BY_VARIANT = ("variants", "replica_concurrency")
WITHIN = (
    "guarded_replicas",
)  # for the accounts alone: logs written before it replay to the same bytes
NAMES = tuple(f.name for f in fields(ServiceDecision) if f.name not in (*BY_VARIANT, *WITHIN))
VALUES = attrgetter(*NAMES)
PROVEN = ("separable", "optimal")  # no plan is cheaper, but for milp.GAP_RATIO
RATIO_DECIMALS = 9  # of what is computed; enough to replay, short enough to read


def decisions_to_dict(decisions: Decisions) -> dict[str, Any]:
    """Return the protocol's object; NaN becomes null."""
    return {
        "now_seconds": decisions.now_seconds,
        "services": {name: _service(d) for name, d in decisions.services.items()},
        "plan_status": decisions.plan_status,
        **_gap(decisions),
    }


def _gap(decisions: Decisions) -> dict[str, Any]:
    """Return the gap of a plan that is not proven; a proven one has none to tell, and older logs replay."""
    if decisions.plan_status in PROVEN:
        return {}
    return {"plan_gap_ratio": _plain(decisions.plan_gap_ratio)}


def answer_line(content: dict[str, Any]) -> bytes:
    """Return one line of JSON for whoever asked: of a thousand services in a sixth of dump_line's time."""
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def dump_line(content: dict[str, Any]) -> str:
    """Return one line of ASCII JSON: the same bytes on every machine, whatever its locale."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n"


def _service(decision: ServiceDecision) -> dict[str, Any]:
    held = decision.replica_concurrency
    out: dict[str, Any] = {
        "variants": {name: {"replicas": n} for name, n in decision.variants.items()}
    }
    for name, requests in held.items():
        if name in decision.variants:
            out["variants"][name]["replica_concurrency"] = _plain(requests)
    values = [
        x if not isinstance(x, float) else round(x, RATIO_DECIMALS) if math.isfinite(x) else None
        for x in VALUES(decision)
    ]
    out.update(zip(NAMES, values, strict=True))
    return out


def _plain(value: float) -> float | None:
    return round(value, RATIO_DECIMALS) if math.isfinite(value) else None
