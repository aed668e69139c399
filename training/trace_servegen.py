"""A client of ServeGen as it is published: windows without a header, lengths in a file beside them.

`chunk-N-trace.csv` has a row a window: start in seconds, requests/s, CV of the gaps between arrivals, name
and two parameters of their distribution; an empty name says that the client was not seen.
`chunk-N-dataset.json` has, by start of a longer window, the share of each length, as text:
{"0": {"input_tokens": "{39: 0.25, 40: 0.75}", "output_tokens": ...}}.

Source: alibaba/ServeGen at f891d11, README (Data Structure) and servegen/clientpool.py.
"""

import csv
import json
import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.trace_columns import MAX_TOKENS, Bad
from models.trace_shapes import TraceError, find_layout
from training.trace_reader import Chunk

CLIENT = re.compile(r"(chunk-\d+)-trace\.csv")
MAX_BYTES = 64 * 1024 * 1024  # of one file: the largest published ones are some MiB
FIELDS = ("input_tokens", "output_tokens")
COLUMNS = ("timestamp", "rate_rps", "mean_input_tokens", "mean_output_tokens")
ROW = "window start, requests/s, cv, pattern, two parameters"
SUM_TOLERANCE = 1e-3  # of a distribution's shares around 1

Means = tuple[float, float]  # input and output tokens a request


def is_client(path: Path) -> bool:
    """Whether a file is one of ServeGen's by its name."""
    return CLIENT.fullmatch(path.name) is not None


def read_client(path: Path) -> Chunk:
    """Return the windows in which the client was seen. Raises TraceError on files that are not such.

    Windows in which it was not are left out: if no client was, the window is unknown, not empty.
    """
    lengths = _lengths(path)
    starts = sorted(lengths)
    rows, lines, seconds, bad = [], [], [], []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        fields = next(csv.reader([line]), [])
        if len(fields) != 6:
            bad.append(Bad(number, "(line)", f"{len(fields)} fields", f"6 fields: {ROW}"))
            continue
        start = _number(fields[0])
        seconds.append(start)
        if fields[3].strip():
            # as ServeGen's own reader: the lengths last known at that time
            known = bisect_right(starts, start)
            means = lengths[starts[known - 1]] if known else (math.nan, math.nan)
            rows.append((fields[0], fields[1], *means))
            lines.append(number)
    return Chunk(
        find_layout(COLUMNS, str(path), shape="servegen"),
        pd.DataFrame(rows, columns=list(COLUMNS)),
        np.array(lines, dtype=np.int64),
        path.stat().st_size,
        len(bad),
        bad[0] if bad else None,
        _window(seconds, path),
    )


def _window(seconds: list[float], path: Path) -> float:
    apart = np.diff(np.unique([s for s in seconds if math.isfinite(s)]))
    if not len(apart):
        raise TraceError(f"{path}: fewer than two windows; allowed: rows of {ROW}")
    return float(apart.min())


def _lengths(path: Path) -> dict[float, Means]:
    """Return mean lengths by start of their window, where any are known."""
    found = CLIENT.fullmatch(path.name)
    beside = path.with_name(f"{found[1] if found else path.stem}-dataset.json")
    if not beside.is_file():
        raise TraceError(f"{beside}: no such file; a ServeGen client is read with its lengths")
    try:
        content = json.loads(_text(beside))
        windows = {float(start): dict(fields) for start, fields in content.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TraceError(f"{beside}: not ServeGen's lengths by window: {error}") from error
    out = {}
    for start, fields in windows.items():
        means = _means(fields, f"{beside}: window {start:g}")
        if means is not None:
            out[start] = means
    return out


def _means(fields: Mapping[str, Any], where: str) -> Means | None:
    """Return mean lengths of a window; None where it has none."""
    if not all(f in fields for f in FIELDS):
        raise TraceError(
            f"{where}: has {', '.join(map(str, fields)) or 'nothing'}; allowed: {' and '.join(FIELDS)} "
            "(the parts of multimodal requests are not told together)"
        )
    means = [_mean(fields[f], f"{where}, {f}") for f in FIELDS]
    return None if any(math.isnan(m) for m in means) else (means[0], means[1])


def _mean(text: object, where: str) -> float:
    """Return the mean of `{length: share, ...}`; NaN of an empty one."""
    inside = str(text).strip()
    if inside == "{}":
        return math.nan
    try:
        pairs = np.array([p.split(":") for p in inside.strip("{}").split(",")], dtype=np.float64)
    except ValueError as error:
        raise TraceError(f"{where}: {inside[:40]!r}; allowed: {{tokens: share, ...}}") from error
    if pairs.shape[1] == 2:
        tokens, share = pairs.T
        fits = ((tokens >= 0) & (tokens <= MAX_TOKENS) & (share >= 0)).all()
        if fits and abs(share.sum() - 1) <= SUM_TOLERANCE:
            return float((tokens * share).sum() / share.sum())
    raise TraceError(
        f"{where}: {inside[:40]!r}; allowed: tokens from 0 to {MAX_TOKENS:g}, shares that add up to 1"
    )


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise TraceError(f"{path}: more than {MAX_BYTES} bytes; allowed: one client a file")
    return path.read_text(encoding="utf-8", errors="replace")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
