"""Every query of dashboards and alerts against a real Prometheus that holds the operator's own metrics."""

import json
import math
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import NOW
from manifest_files import MANIFESTS, documents, kubectl
from operator_day import BUSY_END, END, Day
from servers import needs, prometheus

FOLDER = MANIFESTS / "monitoring" / "dashboards"
DASHBOARDS = sorted(FOLDER.glob("*.json"))
VALUES = {"$service": "prod/code", "$__rate_interval": "4m", "$__range": "6h"}
Json = dict[str, Any]


def dashboard(path: Path) -> Json:
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found


def panels(path: Path) -> list[Json]:
    return [p for p in dashboard(path)["panels"] if p["type"] != "row"]


QUERIES = [
    pytest.param(panel, target, id=f"{path.stem}: {panel['title']} {target['refId']}")
    for path in DASHBOARDS
    for panel in panels(path)
    for target in panel["targets"]
]


def rules() -> list[Json]:
    (found,) = documents(MANIFESTS / "monitoring" / "alerts.yaml")
    return [rule for group in found["spec"]["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needs("prometheus", "promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    page = folder / "day.txt"
    page.write_text("\n".join([*Day().run(), "# EOF", ""]))
    with prometheus(folder, page) as url:
        yield url


def asked(server: str, path: str, **parameters: str) -> Any:
    url = f"{server}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - loopback
        return json.load(answer)["data"]


def finite(series: list[Json]) -> list[Json]:
    """The series that have a number: NaN draws nothing."""
    return [
        s
        for s in series
        if any(math.isfinite(float(v)) for _, v in s.get("values", [s.get("value")]))
    ]


def filled(expression: str) -> str:
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


@pytest.mark.parametrize(("panel", "target"), QUERIES)
def test_a_panel_has_data(server: str, panel: Json, target: Json) -> None:
    query = filled(target["expr"])
    if target.get("instant"):
        series = asked(server, "query", query=query, time=str(BUSY_END))["result"]
    else:
        span = {"start": str(NOW + 3600), "end": str(BUSY_END), "step": "60"}
        series = asked(server, "query_range", query=query, **span)["result"]
    shown = finite(series)
    assert shown, query
    if panel["type"] != "table":
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(label in s["metric"] for s in shown), f"{label} of {query}"


def test_the_variable_lists_the_services(server: str) -> None:
    (found,) = [
        v
        for path in DASHBOARDS
        for v in dashboard(path)["templating"]["list"]
        if v["name"] == "service"
    ]
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", found["query"]["query"])
    assert match is not None
    span = {"start": str(NOW), "end": str(END)}
    series = asked(server, "series", **{"match[]": match[1]}, **span)
    assert {s[match[2]] for s in series} >= {"prod/chat", "prod/code", "lab/mute"}


@pytest.mark.parametrize("rule", rules(), ids=lambda r: r.get("alert") or r["record"])
def test_a_rule_has_data_on_a_day_with_its_trouble(server: str, rule: Json) -> None:
    query = rule["expr"]
    for other in rules():
        if "record" in other:  # a rule is evaluated as time goes by, and this day is long past
            query = query.replace(other["record"], f"({other['expr']})")
    span = {"start": str(NOW + 3600), "end": str(END), "step": "60"}
    assert asked(server, "query_range", query=query, **span)["result"], query


@pytest.mark.parametrize(
    ("alert", "services"),
    [
        ("ForeserveConstrainedByQuota", {"prod/code"}),
        ("ForeserveBudgetReached", {"lab/batch"}),
        ("ForeserveConstrained", {"lab/small"}),
        ("ForeserveModelDistrusted", {"lab/batch"}),
        ("ForeserveTelemetryStale", {"lab/mute"}),
        ("ForeserveForecastTooLow", {"lab/small"}),
        ("ForeserveErrorBudgetSpent", {"prod/code"}),
    ],
)
def test_an_alert_is_about_the_service_that_has_the_trouble(
    server: str, alert: str, services: set[str]
) -> None:
    (rule,) = [r for r in rules() if r.get("alert") == alert]
    found = asked(server, "query", query=rule["expr"], time=str(BUSY_END))["result"]
    assert {s["metric"]["service"] for s in found} == services


def test_the_folder_is_applied_whole() -> None:
    (content,) = documents(FOLDER / "kustomization.yaml")
    named = [f for each in content["configMapGenerator"] for f in each["files"]]
    assert sorted(named) == [p.name for p in DASHBOARDS]
    assert content["generatorOptions"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.skipif(kubectl() is None, reason="no kubectl that builds kustomizations")
def test_kustomize_makes_a_config_map_of_each() -> None:
    command = [str(kubectl()), "kustomize", str(FOLDER)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    maps = list(yaml.safe_load_all(built))
    assert sorted(f for m in maps for f in m["data"]) == [p.name for p in DASHBOARDS]
    assert all(m["metadata"]["labels"]["grafana_dashboard"] == "1" for m in maps)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_a_dashboard_is_one_that_grafana_takes(path: Path) -> None:
    board = dashboard(path)
    assert board["uid"] == path.stem
    assert len(board["uid"]) <= 40  # Grafana's limit
    assert board.get("id") is None  # an id is of the Grafana that it was exported from
    ids = [p["id"] for p in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith((".", ")."))


def test_the_dashboards_leave_room_in_a_config_map() -> None:
    for path in DASHBOARDS:
        assert path.stat().st_size < 256 * 1024  # with server-side apply 1 MiB is the limit
    assert yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["namespace"]
