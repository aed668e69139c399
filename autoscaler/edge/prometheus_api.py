"""The one client of Prometheus-compatible APIs: through prometheus-api-client, bounded in time and size.

Prometheus, VictoriaMetrics, Thanos and Mimir. Every failure is an ApiError of one sentence; nothing is
retried here (a tick has a deadline, `training.ingest` retries by itself).
"""

import json
import logging
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util.retry import Retry

from models.contract_api import (
    ApiError,
    RefusedError,
    Row,
    TooMuchError,
    UnavailableError,
    error_of,
    rows_of,
    warnings_of,
)

log = logging.getLogger("foreserve")
CONNECT_SECONDS = 5.0
LOOPBACK = {"127.0.0.1", "localhost", "::1"}  # compression costs more than it saves there
BLOCK_BYTES = 1 << 18
MAX_ANSWER_BYTES = 512 * 1024 * 1024  # a day of 5,000 services at 60 s is about 220 MB
MAX_TOKEN_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a server. Secrets come from files, so that they stay out of process lists.

    `tenant` is sent as X-Scope-OrgID (Mimir, Cortex). `ca_file` verifies the server's certificate;
    without it the system's authorities do.
    """

    url: str
    user: str | None = None
    password_file: Path | None = None
    bearer_token_file: Path | None = None
    ca_file: Path | None = None
    tenant: str | None = None
    timeout_seconds: float = 60.0


class PrometheusApi:
    """A `models.contract_api.QueryApi` over HTTP. Safe to use from several threads at once."""

    def __init__(self, access: Access) -> None:
        self.url = checked_url(access.url)
        self.where = without_secrets(self.url)
        self._session = _Session(access.timeout_seconds, self.where)
        self._session.trust_env = False  # a netrc must not replace the credentials that were given
        if access.ca_file is not None:
            if not access.ca_file.is_file():
                raise RefusedError(
                    f"{access.ca_file}: no such file; allowed: a PEM file of authorities"
                )
            self._session.verify = str(access.ca_file)
        self._client = PrometheusConnect(
            url=self.url,
            headers=_headers(access),
            auth=_basic(access),
            session=self._session,
            retry=Retry(0, read=False),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def server_seconds(self) -> float:
        """Return the server's clock (HTTP Date, whole seconds) as of the latest answer; NaN unknown."""
        try:
            return parsedate_to_datetime(self._session.server_date).timestamp()
        except (TypeError, ValueError):
            return math.nan

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        """Return one sample a series at a time; ApiError."""
        return self._ask(
            lambda: self._client.custom_query(query, params={"time": f"{at_seconds:.3f}"})
        )

    def range(
        self, query: str, start_seconds: float, end_seconds: float, step_seconds: float
    ) -> list[Row]:
        """Return samples at start, start + step, ..., end; ApiError."""
        start = datetime.fromtimestamp(start_seconds, UTC)
        end = datetime.fromtimestamp(end_seconds, UTC)
        return self._ask(
            lambda: self._client.custom_query_range(query, start, end, f"{step_seconds:g}")
        )

    def _ask(self, call: Any) -> list[Row]:  # noqa: ANN401 - untyped library
        try:
            result = call()
        except ApiError:
            raise
        except PrometheusApiClientException as error:
            raise RefusedError(f"{self.where}: {error}") from error
        except (requests.JSONDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"{self.where}: the answer is not complete JSON ({error}); "
                "cut off on the way, or not a Prometheus API"
            ) from error
        except (KeyError, TypeError) as error:
            raise RefusedError(
                f"{self.where}: JSON without data.result; is it a Prometheus API?"
            ) from error
        except (requests.RequestException, HTTPError) as error:
            raise _transport_error(error, self.where) from error
        return rows_of(result, self.where)


class _Session(requests.Session):
    """A session whose answers have a deadline for the whole body and a greatest size."""

    def __init__(self, timeout_seconds: float, where: str) -> None:
        super().__init__()
        self.timeout_seconds = timeout_seconds
        self.where = where
        self.server_date = ""  # of the latest answer
        self.told: set[str] = set()  # warnings of the server, each reported once

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401
        end = time.monotonic() + self.timeout_seconds
        kwargs["timeout"] = (min(CONNECT_SECONDS, self.timeout_seconds), self.timeout_seconds)
        kwargs["stream"] = True
        kwargs["allow_redirects"] = False
        with super().request(*args, **kwargs) as response:
            self.server_date = response.headers.get("Date", "")
            body = self._body(response, end)
        response._content = body  # what reading without `stream` does
        if response.status_code != 200:
            raise error_of(response.status_code, body.decode("utf-8", "replace"), self.where)
        for warning in warnings_of(body):  # the library drops them
            if warning not in self.told:
                self.told.add(warning)
                log.warning("%s: an answer with a warning: %s", self.where, warning)
        return response

    def _body(self, response: requests.Response, end: float) -> bytes:
        blocks = []
        size = 0
        while block := response.raw.read1(BLOCK_BYTES, decode_content=True):  # what is there by now
            blocks.append(block)
            size += len(block)
            if size > MAX_ANSWER_BYTES:
                raise TooMuchError(
                    f"{self.where}: more than {MAX_ANSWER_BYTES >> 20} MiB in one answer"
                )
            if time.monotonic() > end:
                raise UnavailableError(
                    f"{self.where}: no whole answer in {self.timeout_seconds:g} s"
                )
        return b"".join(blocks)


def checked_url(url: str) -> str:
    """Return the address without a trailing slash, or raise RefusedError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in {"http", "https"} or not host:
        raise RefusedError(f"{url!r} is no address; allowed: http://host:9090 or https://host/path")
    return url.rstrip("/")


def without_secrets(url: str) -> str:
    """Return the address for messages: no user, no password, no query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _headers(access: Access) -> dict[str, str]:
    near = (urlsplit(access.url).hostname or "") in LOOPBACK
    headers = {"Accept-Encoding": "identity" if near else "gzip"}
    if access.tenant is not None:
        headers["X-Scope-OrgID"] = access.tenant
    if access.bearer_token_file is not None:
        headers["Authorization"] = f"Bearer {_secret(access.bearer_token_file)}"
    return headers


def _basic(access: Access) -> tuple[str, str] | None:
    if access.user is None:
        return None
    if access.password_file is None:
        raise RefusedError("a user without a password; give --password-file too")
    return access.user, _secret(access.password_file)


def _secret(path: Path) -> str:
    try:
        text = path.read_bytes()[:MAX_TOKEN_BYTES].decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path}: not readable as UTF-8 text ({error})") from error
    if not text or any(ord(c) < 33 for c in text):
        raise RefusedError(
            f"{path}: empty or more than one line; allowed: one line with the secret"
        )
    return text


def _transport_error(error: Exception, where: str) -> ApiError:
    if isinstance(error, requests.exceptions.SSLError):
        return RefusedError(
            f"{where}: TLS failed ({_short(error)}); give the authority with --ca-file"
        )
    if isinstance(error, requests.Timeout | ReadTimeoutError):
        return UnavailableError(f"{where}: no answer in time; is it overloaded? raise --timeout")
    if isinstance(error, ProtocolError | requests.exceptions.ChunkedEncodingError):
        return UnavailableError(f"{where}: the answer was cut off ({_short(error)})")
    if isinstance(error, requests.ConnectionError):
        return UnavailableError(f"{where}: cannot connect ({_short(error)}); is the address right?")
    return RefusedError(f"{where}: {_short(error)}")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.rsplit(": ", 1)[-1].strip("')\"(")[:160] or type(error).__name__
