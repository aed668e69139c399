"""A page of ours in a real browser: what it drew, what went wrong, and whom it asked for anything."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # small in containers
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # what is asked for is written down, not fetched
    "--virtual-time-budget=20000",
    "--dump-dom",
)
# put first into the page: collects errors and requests, and leaves them in the page when all is done
PROBE = """<script>
const seen = {errors: [], refused: [], asked: [], canvases: 0, documents: 0};
addEventListener("error", (e) => seen.errors.push(String(e.message || e.target.tagName)), true);
addEventListener("unhandledrejection", (e) => seen.errors.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => seen.refused.push(e.blockedURI));
const canvases = (node) => [...node.querySelectorAll("*")].reduce((n, e) => n +
  (e.tagName === "CANVAS" && e.width > 0) + (e.shadowRoot ? canvases(e.shadowRoot) : 0), 0);
setTimeout(() => {
  seen.asked = performance.getEntriesByType("resource").map((e) => e.name);
  seen.documents = typeof Bokeh === "undefined" ? 0 : Bokeh.documents.length;
  seen.canvases = canvases(document);
  document.documentElement.setAttribute("data-seen", JSON.stringify(seen));
}, 10000);
</script>"""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="not on PATH: chromium (Debian: apt install chromium)"
)


def seen_in_browser(page: str, folder: Path) -> dict[str, Any]:
    """Open a page of ours in Chromium and return what the probe saw."""
    assert page.count("<head>") == 1
    folder.mkdir()
    path = folder / "report.html"
    path.write_text(page.replace("<head>", f"<head>{PROBE}"), encoding="utf-8")
    profile = folder / "profile"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen
