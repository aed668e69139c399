"""What can go wrong between us and the API server: one exception tree, one sentence each."""

from collections.abc import Mapping
from urllib.parse import unquote

import orjson

MAX_MESSAGE_CHARS = 400


class KubeError(Exception):
    """The API server refused, failed or did not answer; str() is one sentence.

    `status` is the HTTP status, 0 without an answer; `reason` one word ("Conflict", "Timeout");
    `retry_after_seconds` what the server asked for, 0 if nothing.
    """

    def __init__(
        self, sentence: str, status: int = 0, reason: str = "", retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class KubeInvalid(KubeError):  # noqa: N818 - named after the API's reasons
    """The request itself is wrong (400, 422, other 4xx) or cannot be put (0): do not repeat it."""


class KubeUnauthorized(KubeError):  # noqa: N818
    """The credentials are not accepted (401)."""


class KubeForbidden(KubeError):  # noqa: N818
    """RBAC, admission or quota says no (403)."""


class KubeNotFound(KubeError):  # noqa: N818
    """The object, its kind or its scale subresource does not exist (404; 0: not in discovery)."""


class KubeConflict(KubeError):  # noqa: N818
    """Somebody else wrote first, or the object exists already (409)."""


class KubeGone(KubeError):  # noqa: N818
    """The resourceVersion or continue token is too old (410)."""


class KubeUnavailable(KubeError):  # noqa: N818
    """No answer, no whole answer (0), too many requests (429) or a failing server (5xx).

    After a write without a whole answer nobody knows whether it was done.
    """


CLASSES: Mapping[int, type[KubeError]] = {
    401: KubeUnauthorized,
    403: KubeForbidden,
    404: KubeNotFound,
    409: KubeConflict,
    410: KubeGone,
    429: KubeUnavailable,
}


def refusal(
    method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
) -> KubeError:
    """Return the error for an answer that is no 2xx, worded by the server's Status object."""
    answer = _status_of(body)
    reason = _text(answer.get("reason")) or str(status)
    message = _text(answer.get("message")) or _text(body.decode("utf-8", "replace"))
    kind = CLASSES.get(status, KubeInvalid if 400 <= status < 500 else KubeUnavailable)
    named = f"{status} {reason}" if reason != str(status) else reason
    sentence = f"{described(method, path)}: {named}: {message or 'no message'}"
    return kind(sentence, status, reason, _retry_after(headers, answer))


def no_answer(method: str, path: str, reason: str, message: str) -> KubeUnavailable:
    """Return the error for a request without a whole answer."""
    doubt = "" if method == "GET" else "; whether it was done is unknown"
    return KubeUnavailable(f"{described(method, path)}: {message}{doubt}", 0, reason)


def described(method: str, path: str) -> str:
    """Return 'PUT deployments/chat scale in prod' for the path of that scale subresource."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if not rest:
        return f"{method} {path}"
    place = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        place, rest = f" in {rest[1]}", rest[2:]
    return f"{method} {'/'.join(rest[:2])}{''.join(f' {sub}' for sub in rest[2:])}{place}"


def resource_in(path: str) -> str:
    """Return 'deployments/scale' for the path of a scale; 'discovery' for what is of no resource."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join((*rest[:1], *rest[2:3])) or "discovery"


def _status_of(body: bytes) -> Mapping[str, object]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _retry_after(headers: Mapping[str, str], answer: Mapping[str, object]) -> float:
    details = answer.get("details")
    told = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    try:
        return max(float(headers.get("Retry-After") or told or 0.0), 0.0)
    except (TypeError, ValueError):  # an HTTP date: wait as for an answer that names no time
        return 0.0


def _text(value: object) -> str:
    return " ".join(value.split())[:MAX_MESSAGE_CHARS] if isinstance(value, str) else ""
