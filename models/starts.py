"""Starts of replicas from two sources that may have seen the same ones: each counts once. Pure.

`startups.parquet` is written anew by ingestion, `startups-watched.parquet` grows while the operator watches
pods (`foreserve run --starts`). Ingestion knows no pod's uid, so starts are told apart by their times.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

STARTS_FILE = "startups.parquet"
WATCHED_FILE = "startups-watched.parquet"
UID = "pod_uid"
SAME_SECONDS = 2.0  # the API's times are whole seconds, and sources round


def joined(ingested: pd.DataFrame, watched: pd.DataFrame) -> pd.DataFrame:
    """Return the starts of both (as models.frames.validate_startups returns them), each once.

    The same start has the same pod_uid or, where one of the two has none, the same service and variant and
    was created within 2 s. Replicas of one scale-up are created in the same second, so each watched start
    stands for one ingested start at most: the one that became ready at the closest time. The watched one
    is kept: it is over, while ingestion may have ended before it was ready.
    """
    if ingested.empty or watched.empty:
        return watched if ingested.empty else ingested
    twice = _seen_twice(_Starts.of(watched), _Starts.of(ingested))
    rest = ingested.drop(index=ingested.index[sorted(twice)])
    both = pd.concat([rest, watched], ignore_index=True) if len(rest) else watched
    return both.sort_values(["service", "variant", "created_ts"], ignore_index=True)


@dataclass(frozen=True, slots=True)
class _Starts:
    """Times in epoch seconds (NaN: none), uids ("": none), and the rows of each (service, variant)."""

    created: NDArray[np.float64]
    ready: NDArray[np.float64]
    uids: list[str]
    pairs: list[tuple[str, str]]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "_Starts":
        known = frame[UID] if UID in frame.columns else pd.Series("", index=frame.index)
        return cls(
            _epoch(frame.created_ts),
            _epoch(frame.ready_ts),
            [str(uid) if isinstance(uid, str) else "" for uid in known],
            list(zip(frame.service.astype(str), frame.variant.astype(str), strict=True)),
        )


def _seen_twice(watched: _Starts, ingested: _Starts) -> set[int]:
    """Return the rows of `ingested` that `watched` has, too."""
    row_of = {uid: n for n, uid in enumerate(ingested.uids) if uid}
    rows: dict[tuple[str, str], list[int]] = {}
    for n in np.argsort(ingested.created, kind="stable").tolist():
        rows.setdefault(ingested.pairs[n], []).append(n)
    times = {pair: ingested.created[of] for pair, of in rows.items()}
    twice = {row_of[uid] for uid in watched.uids if uid in row_of}
    for m, uid in enumerate(watched.uids):
        pair, created = watched.pairs[m], watched.created[m]
        if uid in row_of or pair not in rows:
            continue
        low = int(np.searchsorted(times[pair], created - SAME_SECONDS, "left"))
        high = int(np.searchsorted(times[pair], created + SAME_SECONDS, "right"))
        near = [
            n for n in rows[pair][low:high] if n not in twice and not (uid and ingested.uids[n])
        ]
        if near:
            apart = {n: _apart(watched.ready[m], ingested.ready[n]) for n in near}
            twice.add(min(near, key=lambda n: (apart[n], abs(created - ingested.created[n]))))
    return twice


def _apart(one: float, other: float) -> float:
    """Return the seconds between two times; none between two that never came."""
    if math.isnan(one) or math.isnan(other):
        return 0.0 if math.isnan(one) and math.isnan(other) else math.inf
    return abs(one - other)


def _epoch(column: pd.Series) -> NDArray[np.float64]:
    stamps = column.astype("datetime64[ns, UTC]")
    return np.where(stamps.isna(), np.nan, stamps.astype("int64") / 1e9)
