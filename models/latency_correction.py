"""What the physics of a step leaves over, as a bounded, monotone factor on the times: how it is served.

A correction multiplies TTFT and TPOT of one (service, variant) by exp(g), where g depends on the share of
saturation, the mean prompt and the mean output. It is learned by boosted trees (models.latency_learned) and
kept as a table of g at KNOTS loads and MIX x MIX lengths: a tick looks a line up for each lane's mix and
interpolates along it, so trees are asked in training only. In every table

    |g| <= LIMIT,    g does not fall with the load or with the prompt's length,

so that times the physics' own rising latency more load stays slower, and capacity falls with longer
prompts. Outside of the loads and lengths that were seen g fades to 0 wherever that keeps the order:
what makes faster (g < 0) fades towards higher loads and longer prompts, what makes slower (g > 0) towards
lower loads and shorter prompts, both towards other outputs. The rest stays as at the edge: the safe side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.latency_tails import Tails
from models.step_time import Work

FloatArray = NDArray[np.float64]
Pair = tuple[str, str]
KNOTS = 17  # loads, evenly from idle to saturation
MIX = 3  # lengths each of prompts and outputs
LIMIT = float(np.log(1.4))  # of a factor, either way
FADE_LOG_LENGTH = float(np.log(2.0))  # lengths twice or half of those seen: nothing is left of it
FADE_LOAD = 0.25  # of saturation
LOADS: FloatArray = np.linspace(0.0, 1.0, KNOTS)
DECIMALS = 4
SHAPE = (2, MIX, MIX, KNOTS)


@dataclass(frozen=True, slots=True)
class Correction:
    """Logarithms of the factors at LOADS; shapes (..., KNOTS), leading axes broadcast against a load's."""

    ttft: FloatArray
    tpot: FloatArray

    def rows(self, rows: NDArray[np.int64]) -> Self:
        """Return the chosen lanes of (N, KNOTS)."""
        return type(self)(self.ttft[rows], self.tpot[rows])

    def expand(self) -> Self:
        """Return (..., 1, KNOTS), for loads of shape (..., K)."""
        return type(self)(self.ttft[..., None, :], self.tpot[..., None, :])

    def apply(self, t: Tails, work: Work, rate_rps: FloatArray) -> Tails:
        """Return the distributions `t` at `rate_rps` per replica with corrected times."""
        load = rate_rps * work.saturation_seconds
        first, token = np.exp(_along(self.ttft, load)), np.exp(_along(self.tpot, load))
        return replace(
            t,
            start_seconds=t.start_seconds * first,
            prompt_median_seconds=t.prompt_median_seconds * first,
            queue_seconds=t.queue_seconds * first,
            slot_seconds=t.slot_seconds * first,
            tpot_floor_seconds=t.tpot_floor_seconds * token,
            tpot_excess_seconds=t.tpot_excess_seconds * token,
            jump_median_seconds=t.jump_median_seconds * token,
        )


@dataclass(frozen=True, slots=True)
class Table:
    """The correction of one pair.

    log_isl, log_osl: logarithms of the lengths (MIX,), rising. values: (2, MIX, MIX, KNOTS): of TTFT, then
    TPOT, by prompt, by output, by load; zeros where a metric has no correction.
    """

    log_isl: FloatArray
    log_osl: FloatArray
    values: FloatArray

    def check(self) -> None:
        """Raise ValueError where a table that was read keeps no promise of the module."""
        for name, knots in (("log_isl", self.log_isl), ("log_osl", self.log_osl)):
            if knots.shape != (MIX,) or not (np.diff(knots) > 0).all():
                raise ValueError(f"correction: {name} must be {MIX} rising numbers")
        if self.values.shape != SHAPE or not (np.abs(self.values) <= LIMIT + 1e-3).all():
            raise ValueError(f"correction: values must have shape {SHAPE}, within {LIMIT:.3f}")
        if (np.diff(self.values, axis=3) < 0).any() or (np.diff(self.values, axis=1) < 0).any():
            raise ValueError("correction: values must not fall with load or prompt length")

    def to_document(self) -> dict[str, Any]:
        """Return the table as JSON holds it."""
        return {
            "log_isl": self.log_isl.tolist(),
            "log_osl": self.log_osl.tolist(),
            "values": self.values.ravel().tolist(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_document` wrote; ValueError, KeyError or TypeError on anything else."""
        values = np.array(document["values"], dtype=np.float64).reshape(SHAPE)
        isl, osl = (np.array(document[k], dtype=np.float64) for k in ("log_isl", "log_osl"))
        table = cls(isl, osl, values)
        table.check()
        return table


class Tables:
    """The corrections of all pairs that have one, laid out for one look-up of many lanes."""

    def __init__(self, tables: Mapping[Pair, Table]) -> None:
        self.tables = {pair: tables[pair] for pair in sorted(tables)}
        self._at = {pair: n for n, pair in enumerate(self.tables)}
        of = list(self.tables.values())
        nothing = np.zeros(SHAPE)  # the last one, of pairs without: its knots do not matter
        any_mix = np.arange(MIX, dtype=np.float64)
        self._values = np.stack([*(t.values for t in of), nothing])
        self._log_isl = np.stack([*(t.log_isl for t in of), any_mix])
        self._log_osl = np.stack([*(t.log_osl for t in of), any_mix])

    def of(
        self, pairs: Sequence[Pair], isl_tokens: FloatArray, osl_tokens: FloatArray
    ) -> Correction | None:
        """Return the lines of N pairs at their mean lengths (N,); None where no pair has a correction."""
        if not self.tables:
            return None
        at = np.array([self._at.get(pair, len(self.tables)) for pair in pairs], dtype=np.int64)
        if (at == len(self.tables)).all():
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            isl = np.log(np.maximum(isl_tokens, 1.0))
            osl = np.log(np.maximum(osl_tokens, 1.0))
        isl, osl = (np.broadcast_to(x, at.shape) for x in (isl, osl))
        line = _at_mix(self._values, at, self._log_isl[at], self._log_osl[at], isl, osl)
        return Correction(line[:, 0], line[:, 1])


def ordered(values: FloatArray, seen_load: tuple[float, float]) -> FloatArray:
    """Return values (2, MIX, MIX, KNOTS) bounded, faded outside `seen_load`, and made to rise."""
    low, high = seen_load
    slower = np.clip(values, 0.0, LIMIT) * _fade((low - LOADS) / FADE_LOAD)
    faster = np.clip(values, -LIMIT, 0.0) * _fade((LOADS - high) / FADE_LOAD)
    both = np.round(slower + faster, DECIMALS)
    rising = np.maximum.accumulate(np.maximum.accumulate(both, axis=3), axis=1)
    return np.asarray(rising, dtype=np.float64)


def _fade(beyond: FloatArray) -> FloatArray:
    """Return 1 within what was seen (`beyond` <= 0), falling to 0 at 1."""
    return np.clip(1.0 - np.maximum(beyond, 0.0), 0.0, 1.0)


def _at_mix(
    values: FloatArray,
    at: NDArray[np.int64],
    log_isl: FloatArray,
    log_osl: FloatArray,
    isl: FloatArray,
    osl: FloatArray,
) -> FloatArray:
    """Return (N, 2, KNOTS) from tables `at` (N,) of values (T, 2, MIX, MIX, KNOTS), at logs of lengths (N,).

    Between four knots of each table; the rest of it is not touched.
    """
    prompt, along_prompt = _cell(log_isl, isl)
    output, along_output = _cell(log_osl, osl)
    shorter_output, longer_output = (
        (1.0 - along_prompt) * values[at, :, prompt, o]
        + along_prompt * values[at, :, prompt + 1, o]
        for o in (output, output + 1)
    )
    line = (1.0 - along_output) * shorter_output + along_output * longer_output
    shorter = _fade((log_isl[:, 0] - isl) / FADE_LOG_LENGTH)[:, None, None]
    longer = _fade((isl - log_isl[:, -1]) / FADE_LOG_LENGTH)[:, None, None]
    away = np.maximum(log_osl[:, 0] - osl, osl - log_osl[:, -1])
    other = _fade(away / FADE_LOG_LENGTH)[:, None, None]
    faded = (np.maximum(line, 0.0) * shorter + np.minimum(line, 0.0) * longer) * other
    return np.asarray(np.nan_to_num(faded), dtype=np.float64)  # a missing length: the physics alone


def _cell(knots: FloatArray, at: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Return between which knots (N, MIX) `at` (N,) lies, and how far, (N, 1, 1); constant beyond them."""
    each = np.arange(len(at))
    cell = np.clip((at[:, None] > knots).sum(axis=1) - 1, 0, MIX - 2)
    low, high = knots[each, cell], knots[each, cell + 1]
    share = np.clip((at - low) / (high - low), 0.0, 1.0)
    return cell, share[:, None, None]


def _along(line: FloatArray, load: FloatArray) -> FloatArray:
    """Interpolate lines (..., KNOTS) at loads (...), constant beyond idle and saturation."""
    x = np.minimum(np.fmax(load, 0.0), 1.0) * (KNOTS - 1)  # NaN counts as idle
    cell = np.minimum(x.astype(np.int64), KNOTS - 2)
    flat = np.ascontiguousarray(line).reshape(-1)
    at = cell + np.arange(0, flat.size, KNOTS).reshape(line.shape[:-1])
    low = flat.take(at)
    between: FloatArray = low + (x - cell) * (flat.take(at + 1) - low)
    return between
