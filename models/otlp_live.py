"""The newest whole interval of every service, cut out of recent rows: what one tick observes.

Exporters speak every 10 to 60 s and not at the same moment. The window of a service therefore ends at
the last moment that all its live replicas have told of, and is exactly one interval long; rows across
its borders count by the share inside, as spans do at the borders of bins. The numbers are then those of
models/otlp_numbers.py: what models learned from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.otlp_block import SIGNAL_CODES, Block, selected
from models.otlp_frames import Places
from models.otlp_names import ENGINE_SIGNALS
from models.otlp_numbers import Numbers, chosen, gateway_rate, load_numbers, serving_numbers
from models.otlp_quantiles import shares_within
from models.otlp_sums import GATEWAY_QUEUE, UNNAMED, Sums, sums

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_KINDS = _ENGINE, _OTHER, _MOMENTS = 0, 1, 2  # who is replica, gateway or client, and trace spans
_ENGINE_CODES = np.array([SIGNAL_CODES[name] for name in ENGINE_SIGNALS])


@dataclass(frozen=True, slots=True)
class Live:
    """One interval: S services and G groups (service and variant) of `Places`.

    age_seconds (S,): of the newest sample; NaN where there is none. arrival_rate_rps (S,). held (S,):
    requests that wait in the gateway; NaN where it does not say. live (G,): replicas that speak.
    numbers: shape (G, 1). within: share within the targets by ttft, tpot, (G, 3) each: least, most,
    estimated.
    """

    age_seconds: FloatArray
    arrival_rate_rps: FloatArray
    held: FloatArray
    live: IntArray
    numbers: Numbers
    within: dict[str, FloatArray]


def live_numbers(
    block: Block,
    places: Places,
    now_seconds: float,
    *,
    bin_seconds: int,
    interval_seconds: float,
    targets: Mapping[str, FloatArray],
) -> Live:
    """Return the newest interval of each service; `targets`: seconds by ttft, tpot, (G,) each.

    A replica that is silent for longer than an interval no longer holds its service's window back.
    """
    block = selected(block, places.group_of[block.sources] != UNNAMED)
    group, services = places.group_of, len(places.services)
    kind, end = _ends(block, len(group), now_seconds, bin_seconds)
    known = np.isfinite(end) & (group != UNNAMED)
    cell = np.where(known, places.service_of[group] if len(group) else 0, 0) * len(_KINDS) + kind
    newest = np.full(services * len(_KINDS), -np.inf)
    np.maximum.at(newest, cell[known], end[known])
    live = known & (end >= newest[cell] - interval_seconds)
    closing = newest.copy()
    holding = live & (kind != _MOMENTS)
    np.minimum.at(closing, cell[holding], end[holding])
    cut = _cut(block, closing[cell[block.sources]], interval_seconds, bin_seconds)
    shape = (len(places.keys), 1)
    summed = sums(cut, np.zeros(len(cut), dtype=np.int64), shape, group, bin_seconds)
    numbers = _of_spans(serving_numbers(summed, interval_seconds), interval_seconds)
    load = load_numbers(summed, numbers, places.service_of, services, interval_seconds)
    requests = np.where(load.known, load.values[..., 0], np.nan)[:, 0]
    _, held = gateway_rate(
        summed, GATEWAY_QUEUE, places.service_of, (services, 1), interval_seconds
    )
    age = now_seconds - newest.reshape(services, len(_KINDS)).max(axis=1)
    return Live(
        np.where(np.isfinite(age), age, np.nan),
        requests / interval_seconds,
        held[:, 0],
        np.bincount(group[live & (kind == _ENGINE)], minlength=shape[0]),
        numbers,
        {what: _within(summed, shape, what, of) for what, of in targets.items()},
    )


def _ends(
    block: Block, sources: int, now_seconds: float, bin_seconds: int
) -> tuple[IntArray, FloatArray]:
    """Return by source number its kind, and until when it told anything (-inf: nothing)."""
    begin = block.bins * float(bin_seconds)
    ends = begin + block.ends
    # spans tell of single moments: all that is known of a bin is known when it is over
    whole = min(np.floor(now_seconds / bin_seconds) * bin_seconds, now_seconds)
    moment = np.isnan(ends)
    tables = np.full((len(_KINDS), sources), -np.inf)
    engine = np.isin(block.signals, _ENGINE_CODES) & ~moment
    for kind, rows, limit in (
        (_ENGINE, engine, now_seconds),
        (_OTHER, ~engine & ~moment, now_seconds),
        (_MOMENTS, moment, whole),
    ):
        told = begin + bin_seconds if kind == _MOMENTS else ends
        np.maximum.at(tables[kind], block.sources[rows], np.minimum(told[rows], limit))
    kinds = np.argmax(np.isfinite(tables), axis=0)  # the first that there is
    return kinds, tables[kinds, np.arange(sources)]


def _cut(block: Block, closing: FloatArray, interval_seconds: float, bin_seconds: int) -> Block:
    """Return the rows' shares inside (closing - interval, closing]; closing (n,)."""
    begin = block.bins * float(bin_seconds)
    moment = np.isnan(block.starts)
    starts = np.where(moment, begin, begin + block.starts)
    ends = np.where(moment, begin + bin_seconds, begin + block.ends)
    first, last = np.maximum(starts, closing - interval_seconds), np.minimum(ends, closing)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(ends > starts, (last - first) / (ends - starts), 0.0)
    inside = share > 0
    share = np.clip(share, 0.0, 1.0)
    cut = replace(
        block,
        starts=np.where(moment, np.nan, first - begin).astype(np.float32),
        ends=np.where(moment, np.nan, last - begin).astype(np.float32),
        totals=(block.totals * share).astype(np.float32),
        counts=(block.counts * share).astype(np.float32),
        changes=(block.changes * share).astype(np.float32),
        amounts=(block.amounts * np.repeat(share, block.sizes)).astype(np.float32),
    )
    return selected(cut, inside)


def _of_spans(numbers: Numbers, interval_seconds: float) -> Numbers:
    """Let arrivals known only from spans be those that ended: the others are not told of yet."""
    columns = dict(numbers.columns)
    columns["arrival_rate_rps"] = np.where(
        np.isnan(columns["ready_replicas"]),
        columns["finished_requests"] / interval_seconds,
        columns["arrival_rate_rps"],
    )
    return Numbers(numbers.known, columns)


def _within(sums_: Sums, shape: tuple[int, int], what: str, targets: FloatArray) -> FloatArray:
    out = np.full((shape[0], 3), np.nan)
    for name, here in chosen(sums_, shape, what, f"span_{what}"):
        shares = shares_within(sums_.histograms[name], targets)
        out[here[:, 0]] = shares[here[:, 0]]
    return out
