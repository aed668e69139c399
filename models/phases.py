"""The phases of a request, and which variants serve them: one, or prefill and decode apart.

Where a service splits the phases, every request is counted in each of them: what is offered is what one
phase counts, not the sum.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BOTH, PREFILL, DECODE = "Both", "Prefill", "Decode"
FloatArray = NDArray[np.float64]


def phases_of(roles: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the index sets of the roles that serve each phase of a request together."""
    return _phases_of(tuple(roles))


@functools.lru_cache(maxsize=1024)  # of a handful of combinations, asked for many times a tick
def _phases_of(roles: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    if all(r == BOTH for r in roles):
        return (tuple(range(len(roles))),)
    return tuple(
        tuple(i for i, r in enumerate(roles) if r in (phase, BOTH)) for phase in (PREFILL, DECODE)
    )


def offered(rates: FloatArray, roles: Sequence[str]) -> FloatArray:
    """Return the rate offered to a service, shape (T,), of its variants' rates, shape (V, T).

    The most that a phase counts (one may lag, or be scraped in part); NaN where no phase has a value.
    """
    phases = [_sum(rates[list(phase)]) for phase in phases_of(roles) if phase]
    most: FloatArray = np.fmax.reduce(phases)
    return most


def _sum(values: FloatArray) -> FloatArray:
    """Return the sum over variants, NaN where none has a value."""
    total: FloatArray = np.where(np.isnan(values).all(axis=0), np.nan, np.nansum(values, axis=0))
    return total
