"""What must survive a restart, as gzipped JSON in ConfigMaps: strict, bounded, never two writes mixed.

    NAME          head: format, slot, number of parts, digest of the whole; part 0
    NAME-SLOT-1   part 1, NAME-SLOT-2 part 2, ... only where one ConfigMap is not enough

The parts of a new checkpoint go into the slot (a or b) that the head does not point at, then the head
is replaced with its resourceVersion: that one request is the commit. What the head points at is
complete; the digest proves it to a reader whom two writers overtook. Names are few and fixed, so that
RBAC can name them.
"""

import gzip
import hashlib
import zlib
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from autoscaler.core.outcome import State
from autoscaler.edge.codec import decoder, encoder
from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeNotFound

FORMAT = "foreserve.dev/checkpoint/1"
PART_BYTES = 700 * 1024  # a ConfigMap holds 1 MiB, etcd takes requests of 1.5 MiB
MAX_PARTS = 16
MAX_PLAIN_BYTES = 256 << 20  # of the JSON: a bomb ends there
READ_ATTEMPTS = 3  # a checkpoint may be written while it is read
GZIP_LEVEL = 6
OTHER_SLOT = {"a": "b", "b": "a"}
LABELS = {"app.kubernetes.io/managed-by": "foreserve", "app.kubernetes.io/component": "checkpoint"}

Json = dict[str, Any]
# service, variant, then epoch seconds: created, scheduled, initialized, ready (NaN: not seen)
StartupRow = tuple[str, str, float, float, float, float]


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; one sentence."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The operator's memory. `authority` is free text per service, whatever the writer needs.

    `calibration`: of each service's forecasts by the models `generation`: a row of quantiles' shifts a lead.
    """

    state: State
    authority: Mapping[str, str]
    startups: tuple[StartupRow, ...]
    written_seconds: float
    generation: str = ""
    calibration: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)


def dump(checkpoint: Checkpoint) -> bytes:
    """Return the checkpoint as gzipped JSON, the same bytes for the same content; CheckpointError."""
    try:
        content = encoder(Checkpoint)(checkpoint)
        text = orjson.dumps({"format": FORMAT, "checkpoint": content})
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"checkpoint: not what it should be: {error}") from error
    return gzip.compress(text, GZIP_LEVEL, mtime=0)


def parse(data: bytes) -> Checkpoint:
    """Return what `dump` was given; CheckpointError."""
    try:
        document = orjson.loads(_unzipped(data))
    except orjson.JSONDecodeError as error:
        raise CheckpointError(f"checkpoint: no JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint: of another format; allowed: {FORMAT}")
    try:
        checkpoint: Checkpoint = decoder(Checkpoint)(document.get("checkpoint"))
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"checkpoint: not what it should be: {error}") from error
    return checkpoint


def save(api: KubeApi, namespace: str, name: str, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; CheckpointError if it is too large, KubeError.

    KubeConflict: somebody else wrote one meanwhile, and theirs stays.
    """
    data = dump(checkpoint)
    parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
    if len(parts) > MAX_PARTS:
        raise CheckpointError(
            f"checkpoint: {len(data) >> 10} KiB compressed; "
            f"allowed: {MAX_PARTS * PART_BYTES >> 10} KiB"
        )
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    head = _find(api, f"{path}/{name}")
    old = _text(head, "slot") if head is not None else ""
    slot = OTHER_SLOT.get(old, "a")
    for i, part in enumerate(parts[1:], start=1):
        _put(api, path, _config_map(f"{name}-{slot}-{i}", {}, part))
    facts = {
        "format": FORMAT,
        "slot": slot,
        "parts": str(len(parts)),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    body = _config_map(name, facts, parts[0])
    if head is None:
        api.create(path, body)
    else:
        body["metadata"]["resourceVersion"] = head["metadata"]["resourceVersion"]
        api.replace(f"{path}/{name}", body)
    if old in OTHER_SLOT:
        _clear(api, path, f"{name}-{old}")


def load(api: KubeApi, namespace: str, name: str) -> Checkpoint | None:
    """Return the last checkpoint, None if there never was one; CheckpointError, KubeError."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for attempt in range(1, READ_ATTEMPTS + 1):
        head = _find(api, f"{path}/{name}")
        if head is None:
            return None
        data = _gathered(api, path, name, head)
        if data is not None:
            return parse(data)
        if attempt == READ_ATTEMPTS:
            break
    raise CheckpointError(
        f"ConfigMap {namespace}/{name}: its parts are missing or of another write; "
        "delete it to begin anew"
    )


def _gathered(api: KubeApi, path: str, name: str, head: Json) -> bytes | None:
    """Return the whole that the head describes, None if the parts are not (or no longer) its own."""
    slot, count = _text(head, "slot"), _text(head, "parts")
    numbers = {str(n) for n in range(1, MAX_PARTS + 1)}
    if _text(head, "format") != FORMAT or slot not in OTHER_SLOT or count not in numbers:
        raise CheckpointError(f"ConfigMap {name}: is no checkpoint; allowed: format {FORMAT}")
    parts = [_part(head)]
    for i in range(1, int(count)):
        found = _find(api, f"{path}/{name}-{slot}-{i}")
        if found is None:
            return None
        parts.append(_part(found))
    data = b"".join(parts)
    return data if hashlib.sha256(data).hexdigest() == _text(head, "sha256") else None


def _clear(api: KubeApi, path: str, prefix: str) -> None:
    """Delete the parts of the slot that nobody points at any more, also what a crash left there."""
    for i in range(1, MAX_PARTS):
        try:
            api.delete(f"{path}/{prefix}-{i}")
        except KubeNotFound:
            return


def _put(api: KubeApi, path: str, body: Json) -> None:
    """Create the part, or replace the one that an interrupted write left in this slot."""
    try:
        api.create(path, body)
    except KubeConflict:
        api.replace(f"{path}/{body['metadata']['name']}", body)


def _find(api: KubeApi, path: str) -> Json | None:
    try:
        return api.get(path)
    except KubeNotFound:
        return None


def _config_map(name: str, facts: Mapping[str, str], part: bytes) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": LABELS},
        "data": dict(facts),
        "binaryData": {"part": b64encode(part).decode("ascii")},
    }


def _text(config_map: Json, key: str) -> str:
    data = config_map.get("data")
    return str(data.get(key, "")) if isinstance(data, dict) else ""


def _part(config_map: Json) -> bytes:
    data = config_map.get("binaryData")
    text = data.get("part") if isinstance(data, dict) else None
    try:
        return b64decode(text or "", validate=True)
    except (Base64Error, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint: a part is no base64 ({error})") from error


def _unzipped(data: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # gzip
    try:
        text = stream.decompress(data, MAX_PLAIN_BYTES)
    except zlib.error as error:
        raise CheckpointError(f"checkpoint: not gzip ({error})") from error
    if stream.unconsumed_tail:
        raise CheckpointError(f"checkpoint: more than {MAX_PLAIN_BYTES >> 20} MiB of JSON")
    if not stream.eof:
        raise CheckpointError("checkpoint: its end is missing")
    return text
