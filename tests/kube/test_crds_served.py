"""The CRDs on an API server: what it accepts, refuses (with which words) and fills in.

CEL runs only in the real server; the double checks structure, bounds and defaults.
"""

import copy
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver import ApiServer
from crd_setup import CRDS, GROUP, dry_run, install
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autoscaler.policy.cel import RULES
from autoscaler.policy.checks import Resource, across_documents
from autoscaler.policy.crds import crd_documents
from autoscaler.policy.documents import read_documents
from autoscaler.policy.errors import Place
from autoscaler.policy.parse import parse_document
from autoscaler.policy.schema import RESOURCES

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "policy"))

from test_policy_errors import DELETE, ONE_FIELD, POLICY, POOL, POOL_FIELD, edited  # noqa: E402

Document = dict[str, Any]


@pytest.fixture(scope="module")
def served(kube: ApiServer) -> ApiServer:
    install(kube)
    namespaces = ["prod", "dev", "shop", "ml"]
    for name in namespaces:
        kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return kube


@pytest.fixture(scope="module")
def real(real_kube: ApiServer, served: ApiServer) -> ApiServer:
    assert served is real_kube
    return served


def policy(path: str = "spec.priority", value: Any = 1) -> Document:
    """Return the small policy with one field changed."""
    return edited(POLICY, path, value)


def variant(name: str, **fields: Any) -> Document:
    return {
        "name": name,
        "acceleratorClass": "h100-80gb",
        "maxReplicas": 8,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        **fields,
    }


def python_accepts(document: Document) -> bool:
    parsed = parse_document(Place("x", 1), document)
    return isinstance(parsed, Resource) and not list(across_documents([parsed]))


def schema_refuses(document: Document) -> bool:
    """Whether the models refuse it before any rule that spans fields is asked."""
    plain = json.loads(json.dumps(document))
    try:
        RESOURCES[plain["kind"]].model_validate(plain)
    except ValidationError:
        return True
    return False


def causes(answer: Document) -> list[tuple[str, str]]:
    return [(c["field"], c["message"]) for c in answer["details"]["causes"]]


def wrong_window(**fields: Any) -> Document:
    return policy("spec.schedule", [{"name": "w", "minReplicas": 2, **fields}])


# -- what is accepted ------------------------------------------------------------------------------


def test_the_definitions_are_accepted_and_small(served: ApiServer) -> None:
    for document in crd_documents():
        name = document["metadata"]["name"]
        code, stored = served.request("GET", f"{CRDS}/{name}")
        assert code == 200
        conditions = {c["type"]: c["status"] for c in stored["status"]["conditions"]}
        assert conditions["NamesAccepted"] == "True"
        # a schema that is not structural is stored, and this condition says so
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_short_names_belong_to_nobody_else(served: ApiServer) -> None:
    own = {"sp", "spol", "ap", "apool"}
    versions = ["/api/v1"]
    versions += [
        f"/apis/{group['preferredVersion']['groupVersion']}"
        for group in served.request("GET", "/apis")[1]["groups"]
        if group["name"] != "foreserve.dev"
    ]
    others = {
        name
        for version in versions
        for row in served.request("GET", version)[1].get("resources", [])
        for name in (*row.get("shortNames", ()), row["name"], row.get("singularName", ""))
    }
    assert not own & others
    rows = {r["name"]: r for r in served.request("GET", GROUP)[1]["resources"]}
    assert set(rows) == {
        "scalingpolicies", "scalingpolicies/status", "acceleratorpools", "acceleratorpools/status",
    }  # fmt: skip
    assert rows["scalingpolicies"]["shortNames"] == ["sp", "spol"]
    assert rows["acceleratorpools"]["shortNames"] == ["ap", "apool"]
    assert rows["scalingpolicies"]["categories"] == ["foreserve"]


def documented() -> Iterator[Any]:
    """Yield every ScalingPolicy and AcceleratorPool of the docs, the examples and the manifests."""
    files = [*ROOT.glob("docs/**/*.md"), ROOT / "README.md", *ROOT.glob("manifests/**/*.yaml")]
    for file in sorted(files):
        text = file.read_text(encoding="utf-8")
        blocks = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        for i, block in enumerate(blocks if file.suffix == ".md" else [text]):
            if "foreserve.dev/v1" not in block:
                continue
            for number, data in read_documents(file.name, block):
                own = isinstance(data, dict) and data.get("kind") in (
                    "ScalingPolicy",
                    "AcceleratorPool",
                )
                if own and "spec" in data:
                    name = f"{file.relative_to(ROOT)}-{i}-{number}"
                    yield pytest.param(data, id=name)


@pytest.mark.parametrize("document", list(documented()))
def test_documented_examples_are_accepted(served: ApiServer, document: Document) -> None:
    namespace = document["metadata"].get("namespace", "default")
    served.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    code, answer = dry_run(served, document)
    assert code == 201, answer


def test_defaults_appear(served: ApiServer) -> None:
    code, stored = dry_run(served, POLICY)
    assert code == 201, stored
    spec = stored["spec"]
    assert spec["slo"]["attainment"] == 0.99
    assert spec["slo"]["windowHours"] == 24
    assert spec["priority"] == 0
    assert spec["behavior"] == {
        "mode": "Recommend",
        "scaleUp": {"stabilizationWindowSeconds": 0},
        "scaleDown": {"stabilizationWindowSeconds": 60},
        "scaleToZero": False,
        "freeze": False,
    }
    assert spec["fallback"] == {"afterSeconds": 600}
    (only,) = spec["variants"]
    assert (only["role"], only["minReplicas"], only["acceleratorsPerReplica"]) == ("Both", 1, 1)
    # what was not said and has no default stays unsaid
    assert {"budget", "schedule", "telemetry"}.isdisjoint(spec)
    code, stored = dry_run(served, POOL)
    assert code == 201, stored
    (only,) = stored["spec"]["classes"]
    assert (only["resourceName"], only["capacityType"]) == ("nvidia.com/gpu", "OnDemand")


def test_what_the_server_stores_means_the_same(served: ApiServer) -> None:
    full = next(p.values[0] for p in documented() if p.values[0]["kind"] == "ScalingPolicy")
    for document in (POLICY, full):
        stored = dry_run(served, document)[1]
        before, after = (parse_document(Place("x", 1), d) for d in (document, stored))
        assert isinstance(before, Resource)
        assert isinstance(after, Resource)
        assert before.body.spec == after.body.spec  # defaults are the models' own


def test_a_partly_given_mapping_keeps_the_other_defaults(served: ApiServer) -> None:
    document = policy("spec.behavior", {"scaleDown": {"policies": []}})
    behavior = dry_run(served, document)[1]["spec"]["behavior"]
    assert behavior["mode"] == "Recommend"
    assert behavior["scaleDown"] == {"policies": [], "stabilizationWindowSeconds": 60}


# -- what is refused: the rules ---------------------------------------------------------------------

KINDS = "required: either from and until, or days with start and end"
MOST = "the sum of the variants' maxReplicas"
REJECTED = [
    (
        ("Objective", 0),
        policy("spec.slo.objectives", [{"metric": "tpot", "targetSeconds": 80}]),
        "spec.slo.objectives[0].targetSeconds",
        "targetSeconds of tpot; allowed: up to 60 seconds a token (is it in milliseconds?)",
    ),
    (
        ("VariantSpec", 0),
        policy("spec.variants.0.minReplicas", 9),
        "spec.variants[0].maxReplicas",
        "maxReplicas 8 is not allowed; allowed: at least minReplicas, 9",
    ),
    (
        ("ScheduleWindowSpec", 0),
        policy("spec.schedule", [{"name": "w", "days": ["Mon"]}]),
        "spec.schedule[0]",
        "says nothing; required: minReplicas, loadMultiplier or both",
    ),
    (("ScheduleWindowSpec", 1), wrong_window(), "spec.schedule[0]", f"has no time; {KINDS}"),
    (
        ("ScheduleWindowSpec", 2),
        wrong_window(
            days=["Mon"], **{"from": "2026-11-27T06:00:00Z", "until": "2026-11-28T06:00:00Z"}
        ),
        "spec.schedule[0]",
        f"has both kinds of window; {KINDS}",
    ),
    (
        ("ScheduleWindowSpec", 3),
        wrong_window(until="2026-11-27T06:00:00Z"),
        "spec.schedule[0]",
        "from and until belong together; required: both or neither",
    ),
    (
        ("ScheduleWindowSpec", 4),
        # the texts sort the other way round: times are compared, not letters
        wrong_window(**{"from": "2026-11-27T06:00:00Z", "until": "2026-11-27T06:30:00+01:00"}),
        "spec.schedule[0].until",
        "until; allowed: a time after from",
    ),
    (
        ("ScheduleWindowSpec", 5),
        wrong_window(start="06:00"),
        "spec.schedule[0]",
        "start and end belong together; required: both or neither",
    ),
    (
        ("ScheduleWindowSpec", 6),
        wrong_window(start="06:00", end="06:00"),
        "spec.schedule[0].end",
        "end; allowed: another time than start (leave both out for whole days)",
    ),
    (
        ("ScheduleWindowSpec", 7),
        wrong_window(days=["Mon"], timeZone="Europe/Bonn"),
        "spec.schedule[0]",
        "timeZone; allowed: an IANA time zone such as Europe/Berlin",
    ),
    (
        ("ScalingPolicySpec", 0),
        policy("spec.variants.0.role", "Prefill"),
        "spec.variants",
        "role Prefill is not allowed alone; allowed: Prefill beside a variant of role Decode or Both",
    ),
    (
        ("ScalingPolicySpec", 1),
        policy("spec.variants.0.role", "Decode"),
        "spec.variants",
        "role Decode is not allowed alone; allowed: Decode beside a variant of role Prefill or Both",
    ),
    (
        ("ScalingPolicySpec", 2),
        policy(
            "spec.variants",
            [
                variant("a"),
                variant(
                    "b", targetRef={"apiVersion": "apps/v2", "kind": "Deployment", "name": "a"}
                ),
            ],
        ),
        "spec.variants",
        "targetRef of two variants is the same workload; allowed: one writer per workload",
    ),
    (
        ("ScalingPolicySpec", 3),
        wrong_window(days=["Mon"], minReplicas=9),
        "spec.schedule",
        f"minReplicas of window w is not allowed; allowed: at most 8, {MOST}",
    ),
    (
        ("ScalingPolicySpec", 4),
        policy("spec.fallback.replicas", 9),
        "spec.fallback.replicas",
        f"fallback.replicas 9 is not allowed; allowed: at most 8, {MOST}",
    ),
    (
        ("Quota", 0),
        edited(POOL, "spec.classes.0.quota", {"count": 1, "kueueClusterQueue": "q"}),
        "spec.classes[0].quota",
        "quota; required: exactly one of count, fromNodes, kueueClusterQueue",
    ),
    (
        ("AcceleratorClassSpec", 0),
        edited(POOL, "spec.classes.0.quota", {"fromNodes": True}),
        "spec.classes[0].nodeSelector",
        "nodeSelector; required: a mapping of node labels, where quota is fromNodes",
    ),
    (
        ("AcceleratorClassSpec", 1),
        edited(POOL, "spec.classes.0.interruptionsPerHour", 0.1),
        "spec.classes[0].interruptionsPerHour",
        "interruptionsPerHour; allowed: 0, or none, where capacityType is not Spot",
    ),
]


def test_every_rule_has_a_rejected_example() -> None:
    rules = {(name, i) for name, of_class in RULES.items() for i in range(len(of_class))}
    assert [key for key, *_ in REJECTED] == sorted(rules, key=[k for k, *_ in REJECTED].index)


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [case[1:] for case in REJECTED],
    ids=[f"{name}-{i}" for (name, i), *_ in REJECTED],
)
def test_a_rule_refuses_and_says_what_is_allowed(
    real: ApiServer, document: Document, field: str, message: str
) -> None:
    code, answer = dry_run(real, document)
    assert code == 422, answer
    told = [(f, m) for f, m in causes(answer) if message in m]
    assert [f for f, _ in told] == [field], causes(answer)
    assert all(message in m for _, m in causes(answer))  # and nothing else is wrong with it
    assert not python_accepts(document)


def test_names_appear_once(served: ApiServer) -> None:
    objective = {"metric": "ttft", "targetSeconds": 1.0}
    window = {"name": "w", "minReplicas": 1, "days": ["Mon"]}
    twice = [
        ("spec.variants[1]", policy("spec.variants", [variant("a"), variant("a")])),
        ("spec.slo.objectives[1]", policy("spec.slo.objectives", [objective] * 2)),
        ("spec.schedule[1]", policy("spec.schedule", [window, window])),
        ("spec.schedule[0].days[1]", policy("spec.schedule", [{**window, "days": ["Mon"] * 2}])),
        ("spec.classes[1]", edited(POOL, "spec.classes", POOL["spec"]["classes"] * 2)),
    ]
    for field, document in twice:
        code, answer = dry_run(served, document)
        assert code == 422, (field, answer)
        assert field in [f for f, m in causes(answer) if "Duplicate" in m]


# -- Python and the server agree --------------------------------------------------------------------

BAD = [
    (path, value)
    for path, value, _ in (*ONE_FIELD, *POOL_FIELD)
    if not (isinstance(value, float) and not math.isfinite(value))  # not in JSON at all
    and not (isinstance(value, dict) and 1 in value)  # a key that is no text: not either
]


@pytest.mark.parametrize(
    ("path", "value"), BAD, ids=[f"{i}-{path}" for i, (path, _) in enumerate(BAD)]
)
def test_what_python_refuses_the_server_refuses(served: ApiServer, path: str, value: Any) -> None:
    in_pool = (path, value) in [(p, v) for p, v, _ in POOL_FIELD]
    document = edited(POOL if in_pool else POLICY, path, value)
    assert not python_accepts(document)
    in_schema = path.startswith("spec.") and schema_refuses(document)
    if served.kind != "real" and not in_schema:
        pytest.skip("the double knows neither CEL nor the fields of metadata")
    code, answer = dry_run(served, document)
    # JSON has one kind of number: 1.0 is the integer 1 to the API server
    whole = isinstance(value, float) and value.is_integer()
    assert code in ((201,) if whole else (400, 422)), answer


BAD_TIMES = [
    "2026-11-27t06:00:00Z",
    "2026-11-27T06:00:00z",
    "2026-11-27T06:00:00",
    "2026-11-27T06:00:60Z",
    "2026-11-27T24:00:00Z",
    "2026-02-29T06:00:00Z",
    "0000-11-27T06:00:00Z",
    "2026-11-27T06:00:00+25:00",
]


@pytest.mark.parametrize("time", BAD_TIMES)
def test_times_are_read_alike(real: ApiServer, time: str) -> None:
    document = wrong_window(**{"from": time, "until": "2027-11-28T06:00:00Z"})
    assert not python_accepts(document)
    code, answer = dry_run(real, document)
    assert code == 422
    assert "spec.schedule[0].from" in [field for field, _ in causes(answer)]


GOOD = [
    policy("spec.slo.objectives.0.targetSeconds", 1),
    policy("spec.telemetry", {"source": "prometheus", "selectors": {"cluster": "a"}}),
    policy("spec.variants", [variant("p", role="Prefill"), variant("d", role="Decode")]),
    policy("spec.variants", [variant("a"), variant("b"), variant("c", minReplicas=0)]),
    policy("spec.variants.0.targetRef.apiVersion", "v1"),
    policy("spec.behavior", {"scaleToZero": True}),
    policy("spec.schedule", [{"name": "w", "days": ["Sun", "Mon"], "minReplicas": 8}]),
    wrong_window(start="22:00", end="06:00", timeZone="America/New_York"),
    wrong_window(start="00:00", end="24:00"),
    wrong_window(**{"from": "2026-11-27T06:00:00.5+01:00", "until": "2026-11-27T06:00:00Z"}),
    edited(POOL, "spec.classes.0.quota", {"fromNodes": True})
    | {"spec": {"classes": [{
        "name": "a", "usdPerHour": 0.5, "quota": {"fromNodes": True}, "nodeSelector": {"gpu": "a"},
    }]}},
    edited(POOL, "spec.classes.0.quota", {"kueueClusterQueue": "team.a"}),
    edited(POOL, "spec.classes.0.quota", {"count": 0}),
    edited(POOL, "spec.classes.0.resourceName", "nvidia.com/mig-1g.10gb"),
    edited(POOL, "spec.namespaceQuotas", {"prod": 24, "dev": 0}),
    edited(POOL, "spec.excluded", ["node-7", "node-8"]),
    edited(POOL, "spec.telemetry", {"anything": ["goes"]}),
]  # fmt: skip


@pytest.mark.parametrize("document", GOOD, ids=range(len(GOOD)))
def test_what_python_accepts_the_server_accepts(served: ApiServer, document: Document) -> None:
    assert python_accepts(document)
    code, answer = dry_run(served, document)
    assert code == 201, answer


def test_the_largest_documents_are_within_the_budget_of_the_rules(served: ApiServer) -> None:
    long = "n" * 60
    group = "g" * 240 + ".example.com/v1beta1"
    variants = [
        variant(
            f"{long}{i}",
            targetRef={"apiVersion": group, "kind": "K" * 63, "name": "t" * 250 + str(i)},
            minReplicas=8,
        )
        for i in range(16)
    ]
    windows = [
        {"name": f"{long}{i}", "minReplicas": 128, "timeZone": "America/Argentina/ComodRivadavia",
         "days": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], "start": "22:00", "end": "06:00"}
        for i in range(64)
    ]  # fmt: skip
    document = policy("spec.variants", variants)
    document["spec"] |= {"schedule": windows, "fallback": {"replicas": 128}}
    assert python_accepts(document)
    code, answer = dry_run(served, document)
    assert code == 201, answer
    classes = [
        {"name": f"{long}{i}", "usdPerHour": 1, "quota": {"fromNodes": True},
         "nodeSelector": {f"label-{j}": "x" * 63 for j in range(20)}}
        for i in range(256)
    ]  # fmt: skip
    pool = edited(POOL, "spec.classes", classes)
    pool["spec"]["excluded"] = [f"node-{i}.{'d' * 200}" for i in range(2000)]
    code, answer = dry_run(served, pool)
    assert code == 201, answer


NULLS = ["spec.slo.attainment", "spec.budget", "spec.schedule", "spec.variants.0.profileRef"]


@pytest.mark.parametrize("path", NULLS)
def test_null_is_absent(served: ApiServer, path: str) -> None:
    document = policy(path, None)
    assert python_accepts(document)
    code, stored = dry_run(served, document)
    assert code == 201, stored
    parsed = (parse_document(Place("x", 1), d) for d in (document, stored))
    one, other = (p.body.spec for p in parsed if isinstance(p, Resource))
    assert one == other


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 100_001), st.floats(-1, 100, width=16),
    st.sampled_from(
        ["", "a", "Both", "Decode", "ttft", "tpot", "06:00", "24:00", "24:01", "UTC", "Scale",
         "2026-11-27T06:00:00Z", "2026-02-30T06:00:00Z", "apps/v1", "Deployment", "a b", "ä",
         "Local", "+02:00", "x" * 64]
    ),
    st.sampled_from([[], {}, ["Mon"], ["Mon", "Mon"], {"a": "b"}, [{}]]),
)  # fmt: skip


def _paths(value: Any, path: str = "") -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        at = f"{path}.{key}" if path else str(key)
        if at.startswith("spec"):
            yield at
        if isinstance(inner, dict | list):
            yield from _paths(inner, at)


BASE = policy(
    "spec.schedule",
    [
        {"name": "w", "timeZone": "UTC", "days": ["Mon"], "start": "06:00", "end": "08:00",
         "minReplicas": 2, "loadMultiplier": 1.5},
        {"name": "o", "from": "2026-11-27T06:00:00Z", "until": "2026-11-28T06:00:00Z",
         "minReplicas": 1},
    ],
)  # fmt: skip
BASE["spec"] |= {
    "variants": [variant("p", role="Prefill", minReplicas=0), variant("d", role="Decode")],
    "fallback": {"afterSeconds": 60, "replicas": 3},
    "budget": {"usdPerHour": 3.5},
    "behavior": {"mode": "Scale", "scaleUp": {"policies": [
        {"type": "Pods", "value": 2, "periodSeconds": 60}]}},
}  # fmt: skip
FIELDS = sorted(_paths(BASE))


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(st.sampled_from(FIELDS), SCALARS | st.just(DELETE)), min_size=1, max_size=2)
)
def test_variations_are_judged_alike(real: ApiServer, changes: list[tuple[str, Any]]) -> None:
    document = copy.deepcopy(BASE)
    for path, value in changes:
        try:
            document = edited(document, path, value)
        except (KeyError, IndexError, TypeError, AttributeError):
            return  # the other change took its place away
    if any(isinstance(v, float) and v.is_integer() for _, v in changes):
        return  # 1.0 is the integer 1 in JSON, and refused for an integer by Python
    code, answer = dry_run(real, document)
    assert (code == 201) == python_accepts(document), (changes, answer.get("message"))


TIMES = st.sampled_from(["00:00", "06:00", "22:00", "24:00"])
MOMENTS = st.sampled_from(
    ["2026-11-27T06:00:00Z", "2026-11-27T06:30:00+01:00", "2026-11-28T06:00:00.25Z"]
)
LIKELY = {
    "minReplicas": st.integers(0, 20),
    "maxReplicas": st.integers(1, 10),
    "replicas": st.integers(0, 20),
    "role": st.sampled_from(["Both", "Prefill", "Decode"]),
    "start": TIMES,
    "end": TIMES,
    "from": MOMENTS,
    "until": MOMENTS,
    "days": st.lists(st.sampled_from(["Mon", "Sat", "Sun"]), min_size=1, max_size=3),
    "timeZone": st.sampled_from(["UTC", "Asia/Kolkata", "Mars/Phobos"]),
    "metric": st.sampled_from(["ttft", "tpot", "e2e"]),
    "targetSeconds": st.sampled_from([0.05, 60, 60.5]),
    "loadMultiplier": st.sampled_from([0.5, 2]),
}
OPTIONAL = ("minReplicas", "replicas", "start", "end", "from", "until", "days", "loadMultiplier")
LIKELY_FIELDS = [path for path in FIELDS if path.rsplit(".", 1)[-1] in LIKELY]


@st.composite
def likely_changes(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Return one to four changes, each plausible on its own: what is wrong spans fields."""
    paths = draw(st.lists(st.sampled_from(LIKELY_FIELDS), min_size=1, max_size=4, unique=True))
    changes = []
    for path in paths:
        name = path.rsplit(".", 1)[-1]
        values = LIKELY[name] | st.just(DELETE) if name in OPTIONAL else LIKELY[name]
        changes.append((path, draw(values)))
    return changes


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(likely_changes())
def test_rules_across_fields_are_judged_alike(
    real: ApiServer, changes: list[tuple[str, Any]]
) -> None:
    document = copy.deepcopy(BASE)
    for path, value in changes:
        document = edited(document, path, value)
    code, answer = dry_run(real, document)
    assert (code == 201) == python_accepts(document), (changes, answer.get("message"))
