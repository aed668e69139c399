"""The Kubernetes API as raw JSON: the kubernetes client's connections, none of its model classes.

Its `rest_client` gives the pool with TLS and proxies set up, its configuration the credentials (and
the hook that reads a rotated token again). urllib3's own retries are off: it would repeat a PUT.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlencode

import orjson
import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
)
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from autoscaler.edge.kube.access import configured
from autoscaler.edge.kube.discovery import Discovery, Resource
from autoscaler.edge.kube.discovery import path_of as _path_of
from autoscaler.edge.kube.errors import (
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeGone,
    KubeInvalid,
    KubeNotFound,
    KubeUnauthorized,
    KubeUnavailable,
    described,
    no_answer,
    refusal,
    resource_in,
)

__all__ = [
    "KubeApi",
    "KubeConflict",
    "KubeError",
    "KubeForbidden",
    "KubeGone",
    "KubeInvalid",
    "KubeNotFound",
    "KubeUnauthorized",
    "KubeUnavailable",
    "Resource",
]

Json = dict[str, Any]
Items = list[Json]  # spelled out here: the class has a method `list`
OnError = Callable[[str, str, str], None]  # verb, resource, code

TIMEOUT_SECONDS = 5.0
CONNECT_SECONDS = 2.0
POOL_CONNECTIONS = 32  # kept open; more may be open for a moment
MAX_ANSWER_BYTES = 64 << 20
BLOCK_BYTES = 1 << 18
PAGE_ITEMS = 500  # as client-go's informers
MAX_RESTARTS = 3  # of a list whose continue token expired
MAX_ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.1  # then 0.2, 0.4
MAX_WAIT_SECONDS = 5.0  # the most of a Retry-After that is waited for
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class KubeApi:
    """The API server; safe to use from several threads at once. Every failure is a KubeError.

    `timeout_seconds` bounds a call with its retries: reads are repeated on connection errors, 429 and
    5xx, writes on 429 only, when the server did not begin. A body that trickles is cut at most one time
    limit later; headers that trickle are not.
    """

    def __init__(self, client: ApiClient, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.timeout_seconds = timeout_seconds
        self._client = client
        self._host = client.configuration.host.rstrip("/")
        self._pool: urllib3.PoolManager = client.rest_client.pool_manager
        self._pool.connection_pool_kw["maxsize"] = POOL_CONNECTIONS  # pools are made at first use
        self._discovery = Discovery()
        self._on_error: OnError = lambda *_: None

    def count_errors(self, count: OnError) -> None:
        """Call `count` with verb, resource and code of every request that fails, each try of it.

        The code is the HTTP status, or one word ("Timeout", "NoConnection") where there was none.
        """
        self._on_error = count

    @classmethod
    def from_environment(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """Return the API of the cluster this pod runs in, else of the kubeconfig; KubeInvalid."""
        return cls(ApiClient(configured(kubeconfig, context)))

    @property
    def configuration(self) -> Configuration:
        """Where the server is and who we are, for whoever opens connections of its own."""
        own: Configuration = self._client.configuration
        return own

    def within(self, timeout_seconds: float) -> Self:
        """Return the same API, connections and discovery included, with another time limit."""
        other = copy.copy(self)
        other.timeout_seconds = timeout_seconds
        return other

    def close(self) -> None:
        """Give the connections back."""
        self._pool.clear()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Json:
        """Return one object."""
        return self._call("GET", path, params)

    def list(self, path: str, params: Mapping[str, str | int] | None = None) -> Items:
        """Return all items of a collection, page by page (the time limit is for each page)."""
        for restart in range(MAX_RESTARTS + 1):
            try:
                return self._pages(path, dict(params or {}))
            except KubeGone:  # the pages span a compaction: they would not be of one moment
                if restart == MAX_RESTARTS:
                    raise
        raise AssertionError("unreachable")

    def create(self, path: str, body: Json) -> Json:
        """POST to a collection; KubeConflict if the object exists."""
        return self._call("POST", path, body=body)

    def replace(self, path: str, body: Json) -> Json:
        """PUT an object; KubeConflict if `metadata.resourceVersion` is not the latest."""
        return self._call("PUT", path, body=body)

    def patch(
        self,
        path: str,
        body: Json | Sequence[Json],
        kind: Literal["merge", "json", "strategic"] = "merge",
    ) -> Json:
        """PATCH an object. NaN becomes null, which in a merge patch removes the field."""
        return self._call("PATCH", path, body=body, content_type=PATCH_TYPES[kind])

    def delete(self, path: str) -> None:
        """DELETE an object; KubeNotFound if there is none."""
        self._call("DELETE", path)

    def path_of(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        name: str | None = None,
        subresource: str = "",
    ) -> str:
        """Return the path of an object, or of the collection without `name`.

        KubeNotFound if the kind is unknown or lacks the scale asked for, KubeInvalid for a bad name.
        """
        resource = self.resource_of(api_version, kind, scalable=subresource == "scale")
        return _path_of(api_version, resource, kind, namespace, name, subresource)

    def resource_of(self, api_version: str, kind: str, *, scalable: bool = False) -> Resource:
        """Return plural, scope and whether there is a scale; KubeNotFound."""
        return self._discovery.resource(self.get, api_version, kind, scalable=scalable)

    def _pages(self, path: str, params: dict[str, str | int]) -> Items:
        items: Items = []
        params.setdefault("limit", PAGE_ITEMS)
        while True:
            page = self._call("GET", path, params)
            items.extend(page.get("items") or ())
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            params["continue"] = token

    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        body: Json | Sequence[Json] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        end = time.monotonic() + self.timeout_seconds
        url = f"{self._host}{path}{'?' + urlencode(params) if params else ''}"
        data = None if body is None else orjson.dumps(body)
        headers = {"Accept": "application/json", "User-Agent": "foreserve"}
        if data is not None:
            headers["Content-Type"] = content_type

        def attempt() -> Json:
            try:
                answer = self._answer(method, path, url, headers | self._credentials(), data, end)
                return _decoded(method, path, answer)
            except KubeError as error:
                verb = "list" if params and "limit" in params else VERBS[method]
                self._on_error(verb, resource_in(path), str(error.status or error.reason))
                raise

        retrying = Retrying(
            retry=retry_if_exception(_worth_repeating_read if method == "GET" else _refused_early),
            wait=_wait_seconds,
            stop=stop_after_attempt(MAX_ATTEMPTS) | stop_before_delay(self.timeout_seconds),
            reraise=True,
        )
        return retrying(attempt)

    def _credentials(self) -> dict[str, str]:
        """Return the headers that say who asks; the client's hook reads a rotated token again."""
        try:
            settings = self._client.configuration.auth_settings().values()
        except (ConfigException, OSError) as error:
            raise KubeUnauthorized(f"no credentials: {error}", reason="Unauthorized") from error
        return {s["key"]: s["value"] for s in settings if s["in"] == "header" and s["value"]}

    def _answer(
        self,
        method: str,
        path: str,
        url: str,
        headers: Mapping[str, str],
        data: bytes | None,
        end: float,
    ) -> bytes:
        left = max(end - time.monotonic(), 0.001)
        timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, left), read=left)
        try:
            response = self._pool.request(
                method,
                url,
                body=data,
                headers=headers,
                timeout=timeout,
                retries=False,
                preload_content=False,
            )
            body = self._body(response, method, path, end)
        except (HTTPError, OSError) as error:
            raise self._transport_error(method, path, error) from error
        if not 200 <= response.status < 300:
            raise refusal(method, path, response.status, response.headers, body)
        return body

    def _body(
        self, response: urllib3.BaseHTTPResponse, method: str, path: str, end: float
    ) -> bytes:
        blocks: list[bytes] = []
        size = 0
        whole = False
        try:
            while block := response.read1(BLOCK_BYTES):
                blocks.append(block)
                size += len(block)
                if size > MAX_ANSWER_BYTES:
                    raise KubeInvalid(
                        f"{described(method, path)}: more than {MAX_ANSWER_BYTES >> 20} MiB",
                        reason="TooLarge",
                    )
                if time.monotonic() > end:
                    raise self._late(method, path)
            whole = True
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()  # what is left of the answer must not reach the next request
        return b"".join(blocks)

    def _late(self, method: str, path: str) -> KubeUnavailable:
        return no_answer(
            method, path, "Timeout", f"no whole answer within {self.timeout_seconds:g} s"
        )

    def _transport_error(self, method: str, path: str, error: Exception) -> KubeError:
        if isinstance(error, ConnectTimeoutError | NewConnectionError | ConnectionRefusedError):
            return KubeUnavailable(
                f"{described(method, path)}: cannot connect to {self._host}", 0, "NoConnection"
            )
        if isinstance(error, ReadTimeoutError):
            return self._late(method, path)
        if isinstance(error, SSLError):
            return KubeUnavailable(
                f"{described(method, path)}: TLS with {self._host} failed: {error}", 0, "TLS"
            )
        cause = error.args[-1] if error.args and isinstance(error.args[-1], Exception) else error
        return no_answer(method, path, "NoAnswer", f"the connection broke ({cause})")


def _decoded(method: str, path: str, body: bytes) -> Json:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise no_answer(
            method, path, "NoJson", f"the answer is not whole JSON ({error})"
        ) from error
    if not isinstance(answer, dict):
        raise no_answer(method, path, "NoJson", "the answer is not a JSON object")
    return answer


def _worth_repeating_read(error: BaseException) -> bool:
    return isinstance(error, KubeUnavailable)


def _refused_early(error: BaseException) -> bool:
    """429: the server turned the request away before doing anything."""
    return isinstance(error, KubeUnavailable) and error.status == 429


def _wait_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after_seconds if isinstance(error, KubeError) else 0.0
    return min(asked, MAX_WAIT_SECONDS) or FIRST_WAIT_SECONDS * 2.0 ** (state.attempt_number - 1)
