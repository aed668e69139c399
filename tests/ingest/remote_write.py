"""Remote write 1.0 by hand: enough protobuf for samples and native histograms, snappy of literals only.

Messages: prometheus/prompb/remote.proto and types.proto. Only tests write to a Prometheus.
"""

import math
import struct
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Native:
    """A native histogram of schema s: bucket i holds counts in (2^((i-1)/2^s), 2^(i/2^s)]."""

    schema: int
    buckets: Mapping[int, int]
    total: float


def observed(values: Iterable[float], schema: int, times: int = 1) -> Native:
    """Return the histogram after each of the values was seen so many times."""
    seen = list(values)
    at = Counter(math.ceil(math.log2(v) * 2**schema) for v in seen)
    return Native(schema, {i: n * times for i, n in at.items()}, times * math.fsum(seen))


Point = tuple[Mapping[str, str], float, "float | Native"]  # labels with __name__, seconds, value


def push(url: str, points: Sequence[Point]) -> None:
    """Write points, oldest first (a head takes none that are older than what it has)."""
    body = b"".join(_field(1, _series(*p)) for p in points)
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{url}/api/v1/write",
        data=_snappy(body),
        headers={
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        return


def _series(labels: Mapping[str, str], at: float, value: float | Native) -> bytes:
    out = b"".join(
        _field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in sorted(labels.items())
    )
    stamp = round(at * 1000)
    if isinstance(value, Native):
        return out + _field(4, _histogram(value, stamp))
    return out + _field(2, _double(1, value) + _varint(2 << 3) + _varint(stamp))


def _histogram(h: Native, stamp: int) -> bytes:
    low, high = (min(h.buckets), max(h.buckets)) if h.buckets else (0, -1)
    counts = [h.buckets.get(i, 0) for i in range(low, high + 1)]
    deltas = [b - a for a, b in zip([0, *counts], counts, strict=False)]
    span = _varint(1 << 3) + _zigzag(low) + _varint(2 << 3) + _varint(len(counts))
    return b"".join(
        (
            _varint(1 << 3) + _varint(sum(counts)),
            _double(3, h.total),
            _varint(4 << 3) + _zigzag(h.schema),
            _double(5, 2.0**-128),  # zero threshold
            _varint(6 << 3) + _varint(0),
            _field(11, span) if counts else b"",
            _field(12, b"".join(_zigzag(d) for d in deltas)) if counts else b"",
            _varint(15 << 3) + _varint(stamp),
        )
    )


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes((*out, n))


def _zigzag(n: int) -> bytes:
    return _varint(2 * n if n >= 0 else -2 * n - 1)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _snappy(data: bytes) -> bytes:
    """Return the block format: the length, then one literal (tag 63: four bytes of its length - 1)."""
    return _varint(len(data)) + bytes([63 << 2]) + struct.pack("<I", len(data) - 1) + data
