"""A browser that is driven for real: keys, sizes, print, screenshots, over W3C WebDriver and urllib."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM

DRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of W3C WebDriver
TAB, ENTER, SPACE = "\ue004", "\ue007", " "
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
needs_driver = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="not on PATH: chromium and chromedriver (Debian: apt install chromium chromium-driver)",
)


class Browser:
    """One window."""

    def __init__(self, address: str, session: str) -> None:
        self._at = f"{address}/session/{session}"

    def open(self, page: Path) -> None:
        """Show a file, and wait until its plots are drawn."""
        _post(f"{self._at}/url", {"url": page.as_uri()})
        for _ in range(100):
            if self.run("return typeof Bokeh !== 'undefined' && Bokeh.documents.length > 0"):
                return
            time.sleep(0.1)
        raise AssertionError("no plot was drawn in 10 s")

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page and return its value."""
        body = {"script": script, "args": list(arguments)}
        return _post(f"{self._at}/execute/sync", body)

    def resize(self, width: int, height: int) -> None:
        """Make the page's viewport this large, whatever the window's frame takes."""
        _post(f"{self._at}/window/rect", {"width": width, "height": height})
        _post(
            f"{self._at}/goog/cdp/execute",
            {
                "cmd": "Emulation.setDeviceMetricsOverride",
                "params": {
                    "width": width,
                    "height": height,
                    "deviceScaleFactor": 1,
                    "mobile": False,
                },
            },
        )

    def media(self, kind: str = "", scheme: str = "") -> None:
        """Emulate a medium (print) or a colour scheme (dark, light)."""
        features = [{"name": "prefers-color-scheme", "value": scheme}] if scheme else []
        command = {
            "cmd": "Emulation.setEmulatedMedia",
            "params": {"media": kind, "features": features},
        }
        _post(f"{self._at}/goog/cdp/execute", command)

    def press(self, keys: str) -> None:
        """Press and release keys, one after the other, wherever the focus is."""
        actions = [
            a
            for k in keys
            for a in ({"type": "keyDown", "value": k}, {"type": "keyUp", "value": k})
        ]
        _post(
            f"{self._at}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]}
        )

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(_get(f"{self._at}/screenshot")))

    def print_pdf(self) -> bytes:
        """Return the page as the browser prints it."""
        return base64.b64decode(_post(f"{self._at}/print", {}))

    def console_errors(self) -> list[str]:
        """Return what the console was told since the last time, errors alone."""
        said = _post(f"{self._at}/se/log", {"type": "browser"})
        return [entry["message"] for entry in said if entry["level"] == "SEVERE"]


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Yield a fresh Chromium; it and its driver are ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [str(DRIVER), f"--port={port}", "--allowed-ips=127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _ready(address)
        flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}"]
        options = {"binary": CHROMIUM, "args": flags}
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = _post(f"{address}/session", {"capabilities": {"alwaysMatch": capabilities}})
        try:
            yield Browser(address, made["sessionId"])
        finally:
            _ask(f"{address}/session/{made['sessionId']}", None, "DELETE")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _ready(address: str) -> None:
    for _ in range(100):
        try:
            if _get(f"{address}/status")["ready"]:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("chromedriver did not start in 10 s")


def _get(url: str) -> Any:
    return _ask(url, None, "GET")


def _post(url: str, body: object) -> Any:
    return _ask(url, json.dumps(body).encode(), "POST")


def _ask(url: str, body: bytes | None, method: str) -> Any:
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, head, method=method)  # noqa: S310  (our own driver)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()[:500]}") from error
