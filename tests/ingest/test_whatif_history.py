"""`foreserve whatif --prometheus`: from a real server's last hours to a report, today's fleet in it."""

import json
from collections.abc import Iterator
from pathlib import Path

import samples
import servers
from foreserve_process import run

from autoscaler.edge.clock import wall_seconds

HOURS = 2.0
POLICIES = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: gpus}
spec:
  classes:
    - {name: h100, resourceName: nvidia.com/gpu, usdPerHour: 6.0}
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: chat, namespace: prod}
spec:
  model: chat-model
  slo:
    objectives: [{metric: ttft, targetSeconds: 2.0}]
    attainment: 0.95
  variants:
    - name: h100
      acceleratorClass: h100
      acceleratorsPerReplica: 4
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: chat}
      minReplicas: 1
      maxReplicas: 10
"""
SCENARIO = """
name: our last hours
policies: policies.yaml
profile: llama2-70b-h100-80gb-tp4
startup: {medianSeconds: 60}
judgedHours: 0.5
warmUpSeconds: 300
seeds: 1
autoscalers: [recorded, {name: static, setting: 4}]
"""


def three_pods(end: float) -> Iterator[samples.Sample]:
    """Three pods of chat, each finishing one request a second of 100 + 50 tokens."""
    start = end - HOURS * 3600
    for k in range(int(HOURS * 3600 / samples.SCRAPE)):
        at = start + k * samples.SCRAPE
        for n in range(3):
            mark = samples.labels("chat", f"chat-{n}")
            yield from samples.engine(mark, at, 1.0 * (at - start), running=2.0, waiting=0.0)


def test_the_last_hours_of_a_server_become_a_report(tmp_path: Path) -> None:
    end = float(int(wall_seconds()) // 60 * 60)
    file = samples.openmetrics(three_pods(end), tmp_path / "now.om")
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    with servers.prometheus(tmp_path / "server", file) as url:
        done = run(
            *("whatif", "scenario.yaml", "--prometheus", url, "--last", "110m"),
            *("--out", "r.html", "--json", "r.json", "--no-cache", "--workers", "1"),
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    today, static = (report["autoscalers"][name] for name in ("recorded", "static"))
    # three pods of four GPUs for half an hour, and three requests a second after the warm-up
    assert abs(today["gpu_hours"] - 6.0) < 0.3
    assert abs(static["gpu_hours"] - 8.0) < 0.5
    assert abs(today["requests"] - 3 * 1500) < 300
    assert report["could_not_be_computed"] == []
    assert "our last hours" in (tmp_path / "r.html").read_text()


def test_a_scenario_is_checked_before_a_server_is_asked(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "scenario.yaml").write_text(SCENARIO + "speed: 3\n")
    done = run(
        *("whatif", "scenario.yaml", "--prometheus", "http://127.0.0.1:1", "--out", "r.html"),
        *("--json", "r.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "speed: is not a field; allowed: name, telemetry" in done.stderr
    assert len(done.stderr.splitlines()) == 1
