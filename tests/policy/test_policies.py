"""Good documents: defaults, conversion to the core's values, round trips, files."""

import math
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import (
    AcceleratorClass,
    Behavior,
    CapacityType,
    Fallback,
    Mode,
    Policy,
    Pool,
    Role,
    ScalingLimit,
    ScalingRules,
    ScheduleWindow,
    TargetRef,
    Variant,
)
from autoscaler.edge.policy_files import MAX_FILE_BYTES, load_policies
from autoscaler.policy import PolicyError, ScalingPolicy, parse_policies, parse_resources
from autoscaler.policy.schema import AcceleratorPool
from models.slo import SloTargets

SMALL = """
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: chat}
spec:
  model: llama
  slo: {objectives: [{metric: tpot, targetSeconds: 0.05}]}
  variants:
    - name: gpu
      acceleratorClass: l40s
      maxReplicas: 4
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: chat}
"""
LARGE = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: main, labels: {team: infra}}
spec:
  classes:
    - {name: h100, usdPerHour: 4, quota: {count: 32}, nodeSelector: {gpu: h100}}
    - {name: l40s, usdPerHour: 1.05, capacityType: Spot, quota: {fromNodes: true},
       nodeSelector: {gpu: l40s}, resourceName: nvidia.com/mig-1g.10gb}
    - {name: asc, usdPerHour: 2.0, quota: {kueueClusterQueue: q}, resourceName: huawei.com/Ascend910}
  budget: {usdPerHour: 500}
  namespaceQuotas: {prod: 24, dev: 0}
  excluded: [node-7]
  telemetry: {anything: [goes]}
status: {phase: whatever, 7: ignored}
---
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata:
  name: chat
  namespace: prod
  creationTimestamp: null
  uid: 6c0
  annotations: {a: b}
spec:
  model: meta-llama/Llama-3.1-70B-Instruct
  telemetry: {source: prometheus, selectors: {cluster: a}}
  slo:
    objectives:
      - {metric: ttft, targetSeconds: 1}
      - {metric: e2e, targetSeconds: 30.5}
    attainment: 0.95
    windowHours: 12
  priority: 2
  variants:
    - name: prefill
      role: Prefill
      acceleratorClass: h100
      acceleratorsPerReplica: 4
      minReplicas: 0
      maxReplicas: 6
      profileRef: llama-3.1-70b-h100-fp8-tp4
      targetRef: {apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, name: p}
    - name: decode
      role: Decode
      acceleratorClass: l40s
      minReplicas: 2
      maxReplicas: 2
      targetRef: {apiVersion: apps/v1, kind: StatefulSet, name: d}
  budget: {usdPerHour: 80}
  behavior:
    mode: Scale
    scaleUp: {stabilizationWindowSeconds: 15, policies: [{type: Pods, value: 4, periodSeconds: 60}]}
    scaleDown: {policies: [{type: Percent, value: 12.5, periodSeconds: 300}]}
    scaleToZero: true
    freeze: true
  schedule:
    - {name: office, timeZone: Europe/Berlin, days: [Fri, Mon], start: 07:30, end: 19:00, minReplicas: 3}
    - {name: night, start: 22:00, end: 06:00, loadMultiplier: 0.5}
    - {name: sunday, days: [Sun], minReplicas: 0}
    - {name: launch, from: 2026-11-27T06:00:00Z, until: 2026-11-27T10:00:00.5+01:00, loadMultiplier: 2}
  fallback: {afterSeconds: 900, replicas: 8}
"""


def test_the_smallest_policy_gets_every_default() -> None:
    policies = parse_policies([("p.yaml", SMALL)])
    assert policies.pools == ()
    assert policies.services == {
        "default/chat": Policy(
            service="default/chat",
            model="llama",
            targets=SloTargets(tpot_seconds=0.05),
            attainment=0.99,
            window_hours=24.0,
            priority=0,
            variants=(
                Variant(
                    "gpu", "l40s", 1, 1, 4, TargetRef("apps/v1", "Deployment", "chat"), Role.BOTH
                ),
            ),
            behavior=Behavior(Mode.RECOMMEND, ScalingRules(0.0), ScalingRules(60.0)),
            fallback=Fallback(600.0, None),
            schedule=(),
            budget_usd_per_hour=math.inf,
        )
    }


def test_every_field_arrives() -> None:
    policies = parse_policies([("p.yaml", LARGE)])
    assert policies.pools == (
        Pool(
            name="main",
            classes=(
                AcceleratorClass("h100", 4.0, 32),
                AcceleratorClass(
                    "l40s", 1.05, None, CapacityType.SPOT, "nvidia.com/mig-1g.10gb", 0.2
                ),
                AcceleratorClass("asc", 2.0, None, resource_name="huawei.com/Ascend910"),
            ),
            budget_usd_per_hour=500.0,
            namespace_quotas={"prod": 24, "dev": 0},
        ),
    )
    policy = policies.services["prod/chat"]
    every_day = (0, 1, 2, 3, 4, 5, 6)
    assert policy == Policy(
        service="prod/chat",
        model="meta-llama/Llama-3.1-70B-Instruct",
        targets=SloTargets(ttft_seconds=1.0, e2e_seconds=30.5),
        attainment=0.95,
        window_hours=12.0,
        priority=2,
        variants=(
            Variant(
                "prefill", "h100", 4, 0, 6,
                TargetRef("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "p"),
                Role.PREFILL, "llama-3.1-70b-h100-fp8-tp4",
            ),
            Variant("decode", "l40s", 1, 2, 2, TargetRef("apps/v1", "StatefulSet", "d"), Role.DECODE),
        ),
        behavior=Behavior(
            mode=Mode.SCALE,
            scale_up=ScalingRules(15.0, (ScalingLimit(False, 4.0, 60.0),)),
            scale_down=ScalingRules(60.0, (ScalingLimit(True, 12.5, 300.0),)),
            scale_to_zero=True,
            freeze=True,
        ),
        fallback=Fallback(900.0, 8),
        schedule=(
            # 07:30 = 7 * 3600 + 30 * 60
            ScheduleWindow("office", "Europe/Berlin", 3, 1.0, (0, 4), 27_000, 68_400),
            ScheduleWindow("night", "UTC", None, 0.5, every_day, 79_200, 21_600),
            ScheduleWindow("sunday", "UTC", 0, 1.0, (6,), 0, 86_400),
            # 2026-11-27T06:00:00Z is 1795759200; 10:00:00.5+01:00 is three hours and half a second on
            ScheduleWindow(
                "launch", "UTC", None, 2.0,
                from_seconds=1_795_759_200.0, until_seconds=1_795_770_000.5,
            ),
        ),
        budget_usd_per_hour=80.0,
    )  # fmt: skip
    assert policy.namespace == "prod"


def test_numbers_of_the_core_are_floats_even_where_yaml_has_integers() -> None:
    policy = parse_policies([("p.yaml", LARGE)]).services["prod/chat"]
    numbers = (policy.targets.ttft_seconds, policy.window_hours, policy.budget_usd_per_hour)
    assert all(type(n) is float for n in numbers)


def test_what_only_the_kubernetes_edge_reads_stays_on_the_resource() -> None:
    pool, policy = (r.body for r in parse_resources([("p.yaml", LARGE)]))
    assert isinstance(pool, AcceleratorPool)
    assert isinstance(policy, ScalingPolicy)
    quotas = [c.quota for c in pool.spec.classes]
    assert [q.kueue_cluster_queue for q in quotas if q] == [None, None, "q"]
    assert [q.from_nodes for q in quotas if q] == [None, True, None]
    assert pool.spec.classes[0].node_selector == {"gpu": "h100"}
    assert pool.spec.excluded == ["node-7"]
    assert policy.spec.telemetry == {"source": "prometheus", "selectors": {"cluster": "a"}}


def test_a_resource_written_back_reads_the_same() -> None:
    resources = parse_resources([("p.yaml", LARGE), ("q.yaml", SMALL)])
    written = yaml.safe_dump_all(r.body.model_dump(by_alias=True) for r in resources)
    again = parse_resources([("again.yaml", written)])
    assert [r.body for r in again] == [r.body for r in resources]


def test_nothing_declared_is_nothing() -> None:
    assert parse_policies([]).services == {}
    assert parse_policies([("empty.yaml", "---\n")]).services == {}


def test_both_beside_prefill_is_enough() -> None:
    two = SMALL + (
        "    - {name: p, role: Prefill, acceleratorClass: l40s, maxReplicas: 1,\n"
        "       targetRef: {apiVersion: apps/v1, kind: Deployment, name: p}}\n"
    )
    roles = [v.role for v in parse_policies([("p", two)]).services["default/chat"].variants]
    assert roles == [Role.BOTH, Role.PREFILL]


@given(st.text(max_size=60), st.sampled_from(["attainment", "windowHours", "objectives", "x"]))
def test_any_text_for_a_field_is_a_value_or_one_line(text: str, field: str) -> None:
    document = yaml.safe_load(SMALL)
    document["spec"]["slo"][field] = "t" + text  # never a number, unlike "1e-1"
    with pytest.raises(PolicyError) as caught:
        parse_policies([("p.yaml", yaml.safe_dump(document))])
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(
        "p.yaml: document 1 (ScalingPolicy default/chat): spec.slo."
    )


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%#,? \n\t0\x85\u2028", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    said = ""
    try:
        parse_policies([("p.yaml", text)])
    except PolicyError as error:
        said = str(error)
    assert not said or said.isprintable()


def test_files_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SMALL)
    (tmp_path / "b.yaml").write_bytes(b"\xef\xbb\xbf" + LARGE.encode())  # a byte order mark
    policies = load_policies([tmp_path / "b.yaml", tmp_path / "a.yaml"])
    assert list(policies.services) == ["prod/chat", "default/chat"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"gone.yaml: No such file or directory; allowed: a rea"):
        load_policies([tmp_path / "gone.yaml"])
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(PolicyError, match=r"latin.yaml: byte 3 is not UTF-8; allowed: UTF-8"):
        load_policies([tmp_path / "latin.yaml"])
    with (tmp_path / "large.yaml").open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(PolicyError, match=r"large.yaml: too large; allowed: 16 MiB a file"):
        load_policies([tmp_path / "large.yaml"])


def test_a_thousand_policies_are_quick() -> None:
    text = "".join("---" + SMALL.replace("name: chat", f"name: chat-{i}") for i in range(1000))
    start = time.process_time()
    assert len(parse_policies([("p.yaml", text)]).services) == 1000
    assert time.process_time() - start < 2.0
