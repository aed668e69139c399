"""Every mistake gets one sentence: file, document, field, value, what is allowed."""

import copy
from typing import Any

import pytest
import yaml

from autoscaler.policy import PolicyError, parse_policies

DELETE = object()
POLICY: dict[str, Any] = {
    "apiVersion": "foreserve.dev/v1alpha1",
    "kind": "ScalingPolicy",
    "metadata": {"name": "chat", "namespace": "prod"},
    "spec": {
        "model": "llama",
        "slo": {"objectives": [{"metric": "ttft", "targetSeconds": 1.0}]},
        "variants": [
            {
                "name": "h100",
                "acceleratorClass": "h100-80gb",
                "maxReplicas": 8,
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
            }
        ],
    },
}
POOL: dict[str, Any] = {
    "apiVersion": "foreserve.dev/v1alpha1",
    "kind": "AcceleratorPool",
    "metadata": {"name": "main"},
    "spec": {"classes": [{"name": "h100-80gb", "usdPerHour": 4.0}]},
}
CHAT = "policies.yaml: document 1 (ScalingPolicy prod/chat): "
MAIN = "policies.yaml: document 1 (AcceleratorPool main): "


def edited(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    out = copy.deepcopy(document)
    at: Any = out
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for part in parents:
        at = at[part] if isinstance(part, int) else at.setdefault(part, {})
    if value is DELETE:
        del at[last]
    else:
        at[last] = value
    return out


def message(*documents: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        parse_policies([("policies.yaml", yaml.safe_dump_all(documents, sort_keys=False))])
    text = str(caught.value)
    assert text.isprintable()  # exactly one line
    return text


def window(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "w", "minReplicas": 2, **fields}]


NUMBER_01 = "a number above 0 and below 1"
REPLICAS = "an integer from 0 to 100000"
NAME = "a name of up to 63 letters, digits, '-', '_' and '.'"
ONE_FIELD = [
    ("spec.slo.attainment", 1.5, f"1.5 is not allowed; allowed: {NUMBER_01}"),
    ("spec.maxSpotRatio", 1.5, "1.5 is not allowed; allowed: a number from 0 to 1"),
    ("spec.slo.attainment", 0, f"0 is not allowed; allowed: {NUMBER_01}"),
    ("spec.slo.attainment", "0.9", f'"0.9" is not allowed; allowed: {NUMBER_01}'),
    ("spec.slo.attainment", True, f"true is not allowed; allowed: {NUMBER_01}"),
    ("spec.slo.attainment", float("nan"), ".nan is not allowed; allowed: a finite number"),
    ("spec.slo.attainment", {"a": 1}, f"a mapping is not allowed; allowed: {NUMBER_01}"),
    (
        "spec.slo.windowHours",
        721,
        "721 is not allowed; allowed: a number above 0 and up to 720",
    ),
    (
        "spec.slo.objectives",
        [],
        "a list of 0 is not allowed; allowed: a list of 1 to 3 entries",
    ),
    (
        "spec.slo.objectives.0.metric",
        "itl",
        '"itl" is not allowed; allowed: one of ttft, tpot, e2e',
    ),
    (
        "spec.slo.objectives.0.targetSeconds",
        0,
        "0 is not allowed; allowed: a number above 0 and up to 86400",
    ),
    (
        "spec.slo.objectives.0.targetSeconds",
        float("inf"),
        ".inf is not allowed; allowed: a finite number",
    ),
    (
        "spec.slo.objectives.0",
        {"metric": "tpot", "targetSeconds": 80},
        (
            "spec.slo.objectives[0].targetSeconds",
            "80 is not allowed; allowed: up to 60 seconds a token (is it in milliseconds?)",
        ),
    ),
    ("spec.model", DELETE, "missing; required: a text in one line"),
    ("spec.model", None, "missing; required: a text in one line"),
    ("spec.model", "", '"" is not allowed; allowed: a text in one line'),
    ("spec.model", "a\nb", '"a\\nb" is not allowed; allowed: a text in one line'),
    ("spec.priority", -1, "-1 is not allowed; allowed: an integer from 0 to 1000"),
    ("spec.priority", 1.0, "1 is not allowed; allowed: an integer from 0 to 1000"),
    ("spec.telemetry", "x", '"x" is not allowed; allowed: a mapping'),
    (
        "spec.telemetry",
        {1: "x"},
        "1 is not allowed; allowed: a key that is text (put it in quotes)",
    ),
    ("spec.variants.0.name", "a b", f'"a b" is not allowed; allowed: {NAME}'),
    ("spec.variants.0.name", "n" * 64, f'"{"n" * 64}" is not allowed; allowed: {NAME}'),
    (
        "spec.variants.0.role",
        "prefill",
        '"prefill" is not allowed; allowed: one of Both, Prefill, Decode',
    ),
    (
        "spec.variants.0.role",
        "Prefill",
        '"Prefill" is not allowed; allowed: Prefill beside a variant of role Decode or Both',
    ),
    (
        "spec.variants.0.role",
        "Decode",
        '"Decode" is not allowed; allowed: Decode beside a variant of role Prefill or Both',
    ),
    (
        "spec.variants.0.acceleratorsPerReplica",
        0,
        "0 is not allowed; allowed: an integer from 1 to 4096",
    ),
    ("spec.variants.0.minReplicas", -1, f"-1 is not allowed; allowed: {REPLICAS}"),
    (
        "spec.variants.0.minReplicas",
        9,
        (
            "spec.variants[0].maxReplicas",
            "8 is not allowed; allowed: at least minReplicas, 9",
        ),
    ),
    (
        "spec.variants.0.maxReplicas",
        DELETE,
        "missing; required: an integer from 1 to 100000",
    ),
    (
        "spec.variants.0.targetRef.kind",
        "deployment",
        '"deployment" is not allowed; allowed: a kind such as Deployment',
    ),
    (
        "spec.variants.0.targetRef.apiVersion",
        "apps",
        '"apps" is not allowed; allowed: a group and version such as apps/v1',
    ),
    ("spec.budget.usdPerHour", 0, "0 is not allowed; allowed: a number above 0"),
    (
        "spec.behavior.mode",
        "Auto",
        '"Auto" is not allowed; allowed: one of Recommend, Scale, Keda',
    ),
    (
        "spec.behavior.scaleDown.stabilizationWindowSeconds",
        3601,
        "3601 is not allowed; allowed: a number from 0 to 3600",
    ),
    (
        "spec.behavior.scaleUp.policies",
        [{"type": "Pods", "value": 1, "periodSeconds": 0}],
        (
            "spec.behavior.scaleUp.policies[0].periodSeconds",
            "0 is not allowed; allowed: an integer from 1 to 1800",
        ),
    ),
    ("spec.behavior.freeze", "yes", '"yes" is not allowed; allowed: true or false'),
    (
        "spec.fallback.replicas",
        9,
        "9 is not allowed; allowed: at most 8, the sum of the variants' maxReplicas",
    ),
    (
        "spec.schedule",
        window(start="06:00", end="08:00", minReplicas=9),
        (
            "spec.schedule[0].minReplicas",
            "9 is not allowed; allowed: at most 8, the sum of the variants' maxReplicas",
        ),
    ),
    (
        "spec.schedule",
        [{"name": "w", "days": ["Mon"]}],
        ("spec.schedule[0]", "says nothing; required: minReplicas, loadMultiplier or both"),
    ),
    (
        "spec.schedule",
        window(),
        (
            "spec.schedule[0]",
            "has no time; required: either from and until, or days with start and end",
        ),
    ),
    (
        "spec.schedule",
        window(days=["Mon"], until="2026-11-27T06:00:00Z"),
        (
            "spec.schedule[0]",
            "has both kinds of window; required: either from and until, or days with start and end",
        ),
    ),
    (
        "spec.schedule",
        window(until="2026-11-27T06:00:00Z"),
        ("spec.schedule[0].from", "missing; required: from and until together"),
    ),
    (
        "spec.schedule",
        window(**{"from": "2026-11-27T06:00:00Z", "until": "2026-11-27T07:00:00+01:00"}),
        (
            "spec.schedule[0].until",
            '"2026-11-27T07:00:00+01:00" is not allowed; '
            "allowed: a time after from, 2026-11-27T06:00:00Z",
        ),
    ),
    (
        "spec.schedule",
        window(**{"from": "2026-02-30T06:00:00Z", "until": "2026-11-27T07:00:00Z"}),
        (
            "spec.schedule[0].from",
            '"2026-02-30T06:00:00Z" is not allowed; '
            "allowed: a time that exists, such as 2026-11-27T06:00:00Z",
        ),
    ),
    (
        "spec.schedule",
        window(**{"from": "2026-11-27T06:00:00", "until": "2026-11-27T07:00:00Z"}),
        (
            "spec.schedule[0].from",
            '"2026-11-27T06:00:00" is not allowed; '
            "allowed: a time with its zone such as 2026-11-27T06:00:00Z",
        ),
    ),
    (
        "spec.schedule",
        window(start="6:00", end="08:00"),
        (
            "spec.schedule[0].start",
            '"6:00" is not allowed; allowed: a time of day from "00:00" to "23:59"',
        ),
    ),
    (
        "spec.schedule",
        window(start="06:00"),
        ("spec.schedule[0].end", "missing; required: start and end together"),
    ),
    (
        "spec.schedule",
        window(start="06:00", end="06:00"),
        (
            "spec.schedule[0].end",
            '"06:00" is not allowed; '
            "allowed: another time than start (leave both out for whole days)",
        ),
    ),
    (
        "spec.schedule",
        window(days=["Mon", "Mon"]),
        (
            "spec.schedule[0].days[1]",
            '"Mon" is not allowed; allowed: each once; spec.schedule[0].days[0] has it too',
        ),
    ),
    (
        "spec.schedule",
        window(days=["Mon"], timeZone="Europe/Bonn"),
        (
            "spec.schedule[0].timeZone",
            '"Europe/Bonn" is not allowed; allowed: an IANA time zone such as Europe/Berlin',
        ),
    ),
    (
        "spec.schedule",
        window(days=["Mon"], timeZone="../etc/passwd"),
        (
            "spec.schedule[0].timeZone",
            '"../etc/passwd" is not allowed; allowed: an IANA time zone such as Europe/Berlin',
        ),
    ),
    (
        "metadata.name",
        "Chat",
        '"Chat" is not allowed; '
        "allowed: a name of up to 253 lower-case letters, digits, '-' and '.'",
    ),
    ("spec.slo.attainmnt", 0.9, "unknown field; did you mean attainment? allowed: objectives, "),
    ("metadata.namespce", "x", "unknown field; did you mean namespace? allowed: name, namespace"),
    ("spec.zzz", 1, "unknown field; allowed: model, telemetry, slo, priority, variants, "),
]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    ONE_FIELD,
    ids=[f"{i}-{path}" for i, (path, _, _) in enumerate(ONE_FIELD)],
)
def test_a_wrong_field_of_a_policy(path: str, value: Any, expected: str | tuple[str, str]) -> None:
    where, text = expected if isinstance(expected, tuple) else (path, expected)
    where = where.replace(".0", "[0]")
    got = message(edited(POLICY, path, value)).replace("prod/Chat", "prod/chat")
    assert got.startswith(f"{CHAT}{where}: {text}")
    assert got.endswith(text) or "unknown field" in got


POOL_FIELD = [
    ("spec.classes.0.usdPerHour", DELETE, "missing; required: a number above 0"),
    ("spec.classes.0.usdPerHour", -4, "-4 is not allowed; allowed: a number above 0"),
    (
        "spec.classes.0.capacityType",
        "spot",
        '"spot" is not allowed; allowed: one of OnDemand, Spot, Reserved',
    ),
    (
        "spec.classes.0.interruptionsPerHour",
        0.1,
        "0.1 is not allowed; allowed: 0, or none, where capacityType is OnDemand",
    ),
    (
        "spec.classes.0.interruptionsPerHour",
        -1,
        "-1 is not allowed; allowed: a number from 0 to 60",
    ),
    (
        "spec.classes.0.quota",
        {},
        "has no entry; required: exactly one of count, fromNodes, kueueClusterQueue",
    ),
    (
        "spec.classes.0.quota",
        {"count": 0, "fromNodes": True},
        "has count and fromNodes; required: exactly one of count, fromNodes, kueueClusterQueue",
    ),
    ("spec.classes.0.quota.count", -1, "-1 is not allowed; allowed: an integer of at least 0"),
    ("spec.classes.0.quota.fromNodes", False, "false is not allowed; allowed: true"),
    ("spec.namespaceQuotas.prod", 1.5, "1.5 is not allowed; allowed: an integer of at least 0"),
    ("spec.classes.0.nodeSelector.gpu", 1, "1 is not allowed; allowed: a text"),
]


@pytest.mark.parametrize(("path", "value", "text"), POOL_FIELD, ids=[p for p, _, _ in POOL_FIELD])
def test_a_wrong_field_of_a_pool(path: str, value: Any, text: str) -> None:
    assert message(edited(POOL, path, value)) == f"{MAIN}{path.replace('.0', '[0]')}: {text}"


def test_a_quota_from_nodes_needs_to_know_which() -> None:
    assert message(edited(POOL, "spec.classes.0.quota", {"fromNodes": True})) == (
        f"{MAIN}spec.classes[0].nodeSelector: missing; "
        "required: a mapping of node labels, where quota is fromNodes"
    )


def test_names_that_must_differ_inside_a_policy() -> None:
    variants = [POLICY["spec"]["variants"][0]] * 2
    other = copy.deepcopy(variants[1])
    other["targetRef"]["name"] = "chat-2"
    assert message(edited(POLICY, "spec.variants", [variants[0], other])) == (
        f'{CHAT}spec.variants[1].name: "h100" is not allowed; '
        "allowed: each once; spec.variants[0] has it too"
    )
    twice = [{"metric": "ttft", "targetSeconds": s} for s in (1.0, 2.0)]
    assert message(edited(POLICY, "spec.slo.objectives", twice)) == (
        f'{CHAT}spec.slo.objectives[1].metric: "ttft" is not allowed; '
        "allowed: each once; spec.slo.objectives[0] has it too"
    )


def test_the_first_of_several_and_how_many_more() -> None:
    two = edited(edited(POLICY, "spec.priority", -1), "spec.slo.attainment", 2)
    wrong_pool = edited(POOL, "spec.classes.0.usdPerHour", 0)
    assert message(two, wrong_pool) == (
        f"{CHAT}spec.slo.attainment: 2 is not allowed; allowed: {NUMBER_01} (and 2 more)"
    )


def test_a_service_declared_twice_names_both_places() -> None:
    second = edited(POLICY, "spec.variants.0.targetRef.name", "chat-2")
    one = yaml.safe_dump(POLICY)
    with pytest.raises(PolicyError) as caught:
        parse_policies([("a.yaml", one), ("b.yaml", "---\n" + yaml.safe_dump(second))])
    assert str(caught.value) == (
        'b.yaml: document 1 (ScalingPolicy prod/chat): metadata.name: "prod/chat" is not allowed; '
        "allowed: a namespace/name used once; "
        "taken by a.yaml: document 1 (ScalingPolicy prod/chat): metadata.name"
    )


def test_a_workload_has_one_writer() -> None:
    rival = edited(POLICY, "metadata.name", "rival")
    # another version of the same API group is the same workload
    rival = edited(rival, "spec.variants.0.targetRef.apiVersion", "apps/v1beta2")
    assert message(POLICY, rival) == (
        "policies.yaml: document 2 (ScalingPolicy prod/rival): spec.variants[0].targetRef: "
        '"Deployment prod/chat" is not allowed; allowed: one writer per workload; '
        f"taken by {CHAT}spec.variants[0].targetRef"
    )
    elsewhere = edited(rival, "metadata.namespace", "dev")
    text = yaml.safe_dump_all([POLICY, elsewhere])
    assert set(parse_policies([("p", text)]).services) == {"prod/chat", "dev/rival"}


def test_an_unknown_accelerator_class_is_told_the_nearest() -> None:
    policy = edited(POLICY, "spec.variants.0.acceleratorClass", "h100-80GB-x")
    assert message(policy, POOL) == (
        f'{CHAT}spec.variants[0].acceleratorClass: unknown class "h100-80GB-x"; '
        "did you mean h100-80gb? allowed: h100-80gb"
    )
    parse_policies([("no pool: nothing to compare with", yaml.safe_dump(policy))])


def test_classes_and_pools_are_named_once() -> None:
    other = edited(POOL, "metadata.name", "spare")
    assert message(POOL, other) == (
        'policies.yaml: document 2 (AcceleratorPool spare): spec.classes[0].name: "h100-80gb" '
        "is not allowed; allowed: a class name used once in all pools; "
        f"taken by {MAIN}spec.classes[0].name"
    )
    renamed = edited(POOL, "spec.classes.0.name", "a100")
    assert message(POOL, renamed) == (
        'policies.yaml: document 2 (AcceleratorPool main): metadata.name: "main" is not allowed; '
        f"allowed: a pool name used once; taken by {MAIN}metadata.name"
    )
    twice = edited(POOL, "spec.classes", POOL["spec"]["classes"] * 2)
    assert "spec.classes[1].name" in message(twice)


KINDS = "ScalingPolicy, AcceleratorPool"
ENVELOPES = [
    ({"kind": "Deployment"}, f'kind: "Deployment" is not allowed; allowed: {KINDS}'),
    (
        {"kind": "ScalingPolcy"},
        f'kind: "ScalingPolcy" is not allowed; did you mean ScalingPolicy? allowed: {KINDS}',
    ),
    ({"kind": 3}, f"kind: 3 is not allowed; allowed: {KINDS}"),
    ({"spec": {}}, f"kind: missing; required: one of {KINDS}"),
    ({"kind": "ScalingPolicy"}, "apiVersion: missing; required: foreserve.dev/v1alpha1"),
    (
        {"kind": "ScalingPolicy", "apiVersion": "foreserve.dev/v1"},
        'apiVersion: "foreserve.dev/v1" is not allowed; allowed: foreserve.dev/v1alpha1',
    ),
    ([1], "a list of 1 is not allowed; allowed: a mapping"),
    ("text", '"text" is not allowed; allowed: a mapping'),
]


@pytest.mark.parametrize(("document", "text"), ENVELOPES, ids=[t[:40] for _, t in ENVELOPES])
def test_a_document_of_another_kind(document: Any, text: str) -> None:
    assert message(POOL, document) == f"policies.yaml: document 2: {text}"


@pytest.mark.parametrize("part", ["metadata", "spec"])
def test_a_document_without_a_part(part: str) -> None:
    text = message(edited(POLICY, part, DELETE))
    name = "" if part == "metadata" else " prod/chat"
    start = f"policies.yaml: document 1 (ScalingPolicy{name}): {part}: missing; required: a mapping"
    assert text.startswith(start)


def test_long_values_are_cut() -> None:
    text = message(edited(POLICY, "spec.behavior.mode", "x" * 1000))
    assert len(text) < 250
    assert "xxx... is not allowed; allowed: one of Recommend, Scale, Keda" in text
    assert len(message(edited(POLICY, "spec." + "x" * 10_000, 1))) < 500
