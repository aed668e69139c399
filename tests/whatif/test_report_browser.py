"""The report in a browser that is driven for real: offline, keys, a phone's width, print, the clipboard."""

import dataclasses
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SERVICE, made_comparison, measures
from driver import ENTER, TAB, Browser, browser, needs_driver

from autoscaler.policy import parse_policies
from autoscaler.whatif.recommend import recommended_text
from autoscaler.whatif.report import render
from autoscaler.whatif.results import Try, Variation, World
from autoscaler.whatif.uncertainty import by_hour

pytestmark = needs_driver
DEMO = Path(__file__).parents[2] / "autoscaler" / "whatif" / "bundle" / "demo-policies.yaml"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of two services, with everything on it; browsers only read it."""
    comparison = made_comparison()
    runs = []
    for n, run in enumerate(comparison.runs):
        m = run.measures
        other = measures(cost_usd=100.0 * (5 - n), requests=1000 + n, slo_attainment_ratio=0.995)
        tries = tuple(Try(f"{x:g}", m.cost_usd * x, 0.97 + 0.02 * x) for x in (0.9, 1.0, 1.1))
        worlds = tuple(World(7 + k, m, by_hour(run.series)) for k in range(2))
        services = {SERVICE: m, "prod/chat": other}
        runs.append(dataclasses.replace(run, services=services, tries=tries, worlds=worlds))
    whole = dataclasses.replace(
        comparison,
        runs=tuple(runs),
        attainments={SERVICE: 0.99, "prod/chat": 0.99},
        capacity_rps={SERVICE: 1.2},
        gaps=("prod/idle: nothing came.",),
        policies_text=recommended_text(DEMO, [SERVICE]),
        variations=(
            Variation("trafficFactor 2", {}, comparison.attainments, tuple(runs)),
            Variation("b200", {}, {}, (), gap="its price is not known"),
        ),
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(whole, written="29 November 2026"), encoding="utf-8")
    return path


PIXELS = """
const canvases = (node) => [...node.querySelectorAll("*")].flatMap((e) =>
  (e.tagName === "CANVAS" && e.width > 0 ? [e] : []).concat(e.shadowRoot ? canvases(e.shadowRoot) : []));
return [...document.querySelectorAll("figure")].map((figure) => {
  const colours = new Set();
  for (const c of canvases(figure)) {
    const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] > 60) colours.add((data[i] >> 4) * 256 + (data[i + 1] >> 4) * 16 + (data[i + 2] >> 4));
    }
  }
  return colours.size;
});
"""


def test_it_loads_offline_and_draws_every_chart_with_data(window: Browser, page: Path) -> None:
    window.resize(1100, 900)
    window.open(page)
    colours = window.run(PIXELS)
    for _ in range(50):  # plots are drawn one after the other
        if min(colours) > 8:
            break
        time.sleep(0.2)
        colours = window.run(PIXELS)
    # drawn: more than the axes' one grey and its shades
    assert len(colours) == 9
    assert min(colours) > 8, colours
    assert window.run("return performance.getEntriesByType('resource').length") == 0
    assert window.console_errors() == []
    points = window.run(
        "const columns = (d) => [...(d instanceof Map ? d.values() : Object.values(d))];"
        "return [...Bokeh.documents[0]._all_models.values()].filter(m => m.type === 'ColumnDataSource')"
        ".map(m => columns(m.data).length ? columns(m.data)[0].length : 0)"
    )
    assert len(points) > 20
    assert max(points) == 1440  # the minutes of the day
    assert 24 in points  # the hours


def column(window: Browser, table: str, number: int) -> list[str]:
    found: list[str] = window.run(
        "return [...document.getElementById(arguments[0]).tBodies[0].rows]"
        ".filter(r => !r.hidden).map(r => r.cells[arguments[1]].textContent)",
        table,
        number,
    )
    return found


def press_head(window: Browser, number: int) -> None:
    window.run("document.querySelectorAll('#services th button')[arguments[0]].focus()", number)
    window.press(ENTER)


def test_the_table_of_services_sorts_by_number_and_filters_by_text(
    window: Browser, page: Path
) -> None:
    window.open(page)
    assert {"$5,504", "$10,320", "$500"} <= set(column(window, "services", 3))
    press_head(window, 3)
    got = [float(c.replace("$", "").replace(",", "")) for c in column(window, "services", 3)]
    assert got == sorted(got)
    assert got[-1] == 10_320.0  # as numbers: as text, $10,320 would be the first
    press_head(window, 3)
    got = [float(c.replace("$", "").replace(",", "")) for c in column(window, "services", 3)]
    assert got == sorted(got, reverse=True)
    assert (
        window.run("return document.querySelectorAll('#services th')[3].getAttribute('aria-sort')")
        == "descending"
    )
    window.run("document.getElementById('services-filter').focus()")
    window.press("chat kna")
    assert column(window, "services", 1) == ["Knative KPA"]
    assert column(window, "services", 0) == ["prod/chat"]
    assert (
        window.run("return document.getElementById('services-count').textContent") == "1 of 10 rows"
    )


def test_the_copy_button_copies_policies_that_are_valid(window: Browser, page: Path) -> None:
    window.open(page)
    # what reaches the system's clipboard
    window.run(
        "window.got = null; navigator.clipboard.writeText = async (text) => { window.got = text; };"
        "document.querySelector('button[data-copies]').focus()"
    )
    window.press(ENTER)
    text = window.run("return window.got")
    policies = parse_policies([("clipboard", text)])
    assert list(policies.services) == [SERVICE]
    assert policies.services[SERVICE].behavior.mode == "Recommend"
    assert window.run("return document.getElementById('policies-said').textContent") == "Copied."


def test_without_a_clipboard_it_copies_the_old_way(window: Browser, page: Path) -> None:
    window.open(page)
    window.run(
        "navigator.clipboard.writeText = async () => { throw new Error('not allowed'); };"
        "window.got = null; document.addEventListener('copy', () => {"
        "  window.got = document.activeElement.value.slice(0, 10); });"
        "document.querySelector('button[data-copies]').focus()"
    )
    window.press(ENTER)
    assert window.run("return window.got") == "apiVersion"


def test_everything_that_can_be_pressed_is_reached_by_keys_and_seen(
    window: Browser, page: Path
) -> None:
    window.resize(1100, 900)
    window.open(page)
    reached = []
    for _ in range(60):
        window.press(TAB)
        at = window.run(
            "const e = document.activeElement; if (e === document.body) return null;"
            "if (e.closest('figure')) return ['plot', 'its own'];"
            "const style = getComputedStyle(e);"
            "return [e.id || e.textContent.trim().slice(0, 20) || e.ariaLabel, style.outlineStyle]"
        )
        if at is None:
            break
        reached.append(at)
    names = [name for name, _ in reached]
    assert names[0] == "Skip to the table"
    for wanted in ("Copy the policies", "policies", "services-filter", "Cost", "Show the hours"):
        assert wanted in names, (wanted, names)
    assert all(outline != "none" for _, outline in reached), reached


def test_on_a_phone_nothing_runs_out_of_the_page(
    window: Browser, page: Path, tmp_path: Path
) -> None:
    window.resize(400, 800)
    window.open(page)
    width = window.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1] == 400
    small = window.run(
        "return [...document.querySelectorAll('.policy button, input')]"
        ".filter(e => e.getBoundingClientRect().height < 30).length"
    )
    assert small == 0  # a finger hits them
    window.screenshot(tmp_path / "phone.png")
    assert (tmp_path / "phone.png").stat().st_size > 10_000


def test_in_the_dark_text_is_light_and_so_are_axes(window: Browser, page: Path) -> None:
    window.media(scheme="dark")
    window.open(page)
    try:
        ink = window.run("return getComputedStyle(document.body).color")
        assert min(int(n) for n in re.findall(r"\d+", ink)[:3]) > 200
        axes = window.run(
            "return Bokeh.documents.flatMap(d => d.roots()).map(r => r.below[0].major_label_text_color)"
        )
        assert {str(a).lower() for a in axes} == {"#a3abb5"}
    finally:
        window.media(scheme="light")


def test_it_prints_with_its_charts_and_without_its_buttons(window: Browser, page: Path) -> None:
    window.resize(1100, 900)
    window.open(page)
    pdf = window.print_pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 60_000  # charts are images in it
    window.media(kind="print")
    try:
        shown = window.run(
            "return [...document.querySelectorAll('.policy button, input')]"
            ".filter(e => e.offsetParent !== null).length"
        )
        assert shown == 0
        # the whole policy is on paper, not the part that a scroll box shows
        assert (
            window.run(
                "const p = document.getElementById('policies'); return p.scrollHeight - p.clientHeight"
            )
            <= 1
        )
    finally:
        window.media()


def test_a_screen_reader_is_told_what_each_chart_and_table_is(window: Browser, page: Path) -> None:
    window.open(page)
    silent = window.run(
        "return [...document.querySelectorAll('figure[role=img]')].filter(f => !f.ariaLabel).length"
        " + [...document.querySelectorAll('input')].filter(i => !i.labels.length).length"
        " + [...document.querySelectorAll('th')].filter(h => !h.scope).length"
    )
    assert silent == 0
    levels = window.run(
        "return [...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
