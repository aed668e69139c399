"""Reads the policies: a list, then a watch from it on, for as long as the process lives.

Whatever ends the stream (the server's time limit, 410, silence, a lost connection), the policies are
listed again: a list of a thousand is cheap, and what is then watched is known to be news.
"""

import contextlib
import copy
import logging
import threading
from collections.abc import Iterator
from typing import Any, cast

import orjson
import urllib3
from kubernetes.client import ApiClient, CustomObjectsApi
from kubernetes.client.exceptions import OpenApiException

from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.kube.api import KubeApi, KubeError

log = logging.getLogger("foreserve.watch")
GROUP, VERSION, PLURAL = "foreserve.dev", "v1alpha1", "scalingpolicies"
API_VERSION, KIND = f"{GROUP}/{VERSION}", "ScalingPolicy"
PAGE = 500
LASTING_SECONDS = 5.0  # a watch that ends sooner is no success
MAX_PAGES = 1000
STREAM_SECONDS = 300  # the server then ends a watch
SILENT_SECONDS = 75.0  # bookmarks come every minute
CONNECT_SECONDS = 2.0
AGAIN_SECONDS = (
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
)  # after failures in a row; an API server that is down comes back
BLOCK_BYTES = 1 << 16
ENDS = (KubeError, OpenApiException, urllib3.exceptions.HTTPError, OSError, ValueError)
NOTHING_NEW = frozenset({"BOOKMARK"})


class PolicySource:
    """Keeps `plans` as the API server has them, from a thread of its own until closed."""

    def __init__(self, api: KubeApi, plans: Plans) -> None:
        configuration = copy.copy(api.configuration)
        configuration.retries = False
        self._api = api
        self._plans = plans
        self._objects = CustomObjectsApi(ApiClient(configuration))
        self._stop = threading.Event()
        self._response: urllib3.BaseHTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, name="policies", daemon=True)
        self.problem = "the policies have not been read yet"  # "" while they are watched

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Stop reading."""
        self._stop.set()
        response = self._response
        if response is not None:
            with contextlib.suppress(ValueError, RuntimeError):  # it may just have ended
                response.shutdown()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            begun = self._plans.clock.monotonic()
            ended = self._follow()
            if self._stop.is_set():
                return
            lasted = self._plans.clock.monotonic() - begun >= LASTING_SECONDS
            failures = 0 if lasted else failures + 1
            if ended and not self.problem:
                log.warning("policies are not watched: %s", ended)
            self.problem = ended
            self._stop.wait(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)])

    def _follow(self) -> str:
        """List, then watch until that ends; return why it did, "" where it was due."""
        try:
            version = self._list()
            self.problem = ""
            self._watch(version)
        except ENDS as error:
            return str(error)
        except Exception as error:  # reading must go on, whatever a policy held
            log.exception("reading policies failed")
            return f"{type(error).__name__}: {error}"
        return ""

    def _list(self) -> str:
        """Take in all policies and return the list's version."""
        path = self._api.path_of(API_VERSION, KIND, None)
        policies: list[dict[str, Any]] = []
        params: dict[str, str | int] = {"limit": PAGE}
        for _ in range(MAX_PAGES):
            page = self._api.get(path, params)
            policies.extend(page.get("items") or ())
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                break
            params["continue"] = metadata["continue"]
        self._plans.replace(policies)
        return str(metadata.get("resourceVersion", ""))

    def _watch(self, version: str) -> None:
        """Take in what happens from `version` on, until the stream ends."""
        response = cast(
            urllib3.BaseHTTPResponse,
            self._objects.list_cluster_custom_object(
                GROUP,
                VERSION,
                PLURAL,
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=STREAM_SECONDS,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, SILENT_SECONDS),
            ),
        )
        self._response = response
        try:
            if response.status != 200:
                raise OSError(f"watching policies: status {response.status}")
            for line in _lines(response):
                if self._stop.is_set():
                    return
                self._take(orjson.loads(line))
        finally:
            self._response = None
            response.close()

    def _take(self, event: dict[str, Any]) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":  # 410 above all: listed again
            raise OSError(f"watching policies: {obj.get('message', 'an error')}")
        if kind in NOTHING_NEW:
            self._plans.heard()
        else:
            self._plans.apply(kind, obj)


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    while block := response.read1(BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        yield from (line for line in lines if line)
