"""Requests to simulate: from a trace as they are, or drawn around a rate that was measured per step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from autoscaler.sim.engine import SimulationError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_INPUT_TOKENS = 65_536  # a lognormal tail has no end, a model's context has
MAX_OUTPUT_TOKENS = 8_192
CELLS_PER_MEMORY = 8  # resolution of the burst process


@dataclass(frozen=True, slots=True)
class Requests:
    """N requests in order of arrival. Shapes (N,): seconds, prompt tokens, generated tokens.

    prefix_group, where given: requests with the same number (0 and up; -1 is none) begin alike, with
    the first `prefix_tokens` tokens of each: a system prompt, or the turns so far of a conversation.
    A request for no output token is one that a replica refuses. Raises SimulationError if the
    requests are not sorted, not finite, without a prompt, or share more than their prompts.
    """

    arrive_seconds: FloatArray
    input_tokens: IntArray
    output_tokens: IntArray
    prefix_group: IntArray | None = None
    prefix_tokens: IntArray | None = None

    def __post_init__(self) -> None:
        n = len(self.arrive_seconds)
        if len(self.input_tokens) != n or len(self.output_tokens) != n:
            raise SimulationError(
                f"requests: {n} arrivals, {len(self.input_tokens)} input and "
                f"{len(self.output_tokens)} output lengths; one of each per request is allowed"
            )
        if not np.isfinite(self.arrive_seconds).all() or (np.diff(self.arrive_seconds) < 0).any():
            raise SimulationError("requests: arrive_seconds must be finite and in ascending order")
        for name, tokens, least in (
            ("input", self.input_tokens, 1),
            ("output", self.output_tokens, 0),
        ):
            if n and tokens.min() < least:
                raise SimulationError(
                    f"requests: {name}_tokens, request {int(tokens.argmin())}: {tokens.min()}; "
                    f"at least {least} is allowed"
                )
        if (self.prefix_group is None) != (self.prefix_tokens is None):
            raise SimulationError("requests: prefix_group and prefix_tokens belong together")
        if self.prefix_group is None or self.prefix_tokens is None:
            return
        groups, prefixes = self.prefix_group, self.prefix_tokens
        if len(groups) != n or len(prefixes) != n or (groups < -1).any():
            raise SimulationError(
                "requests: one prefix_group (-1 or more) and one prefix_tokens per request are allowed"
            )
        wrong = (prefixes < 0) | (prefixes > self.input_tokens)
        if wrong.any():
            raise SimulationError(
                f"requests: prefix_tokens, request {int(wrong.argmax())}: "
                f"{prefixes[wrong.argmax()]}; allowed: 0 to its input_tokens"
            )

    @property
    def groups(self) -> IntArray:
        """The group of each request, shape (N,); -1 is none."""
        if self.prefix_group is None:
            return np.full(len(self.arrive_seconds), -1, dtype=np.int64)
        return self.prefix_group

    @property
    def prefixes(self) -> IntArray:
        """The tokens that each request shares with its group, shape (N,)."""
        if self.prefix_tokens is None:
            return np.zeros(len(self.arrive_seconds), dtype=np.int64)
        return self.prefix_tokens

    def between(self, since_seconds: float, until_seconds: float) -> "Requests":
        """Return the requests that arrive in [since, until), times unchanged."""
        low, high = np.searchsorted(self.arrive_seconds, [since_seconds, until_seconds])
        if low == 0 and high == len(self.arrive_seconds):
            return self  # millions of them are not checked again
        part = slice(int(low), int(high))
        return Requests(
            self.arrive_seconds[part],
            self.input_tokens[part],
            self.output_tokens[part],
            None if self.prefix_group is None else self.prefix_group[part],
            None if self.prefix_tokens is None else self.prefix_tokens[part],
        )


def draw_requests(  # noqa: PLR0913 - each is a fact of the load
    rate_rps: FloatArray,
    isl: FloatArray,
    osl: FloatArray,
    *,
    start_seconds: float,
    step_seconds: float,
    rng: np.random.Generator,
    burst_cv: float = 0.3,
    burst_memory_seconds: float = 60.0,
    isl_sigma: float = 0.9,
    osl_sigma: float = 0.9,
) -> Requests:
    """Draw a doubly stochastic Poisson process around a rate, with lognormal lengths.

    rate_rps, isl, osl: shape (T,), means over step t = [start + t step, + step); the rate runs straight
    from one step's centre to the next. It is multiplied by exp(x - variance / 2), x a stationary
    first-order autoregression with a correlation of 1/e after burst_memory_seconds, such that the
    factor has mean 1 and coefficient of variation burst_cv. Lengths have the step's mean and the given
    log-standard deviations, at least one token, at most MAX_*_TOKENS. NaN is a gap in what was
    measured, not an absence of demand: it is bridged from its neighbours.

    Raises SimulationError where nothing is known at all, and on negative values.
    """
    rate = _bridged("rate_rps", rate_rps)
    mean_isl, mean_osl = _bridged("isl", isl), _bridged("osl", osl)
    if not len(rate) == len(mean_isl) == len(mean_osl):
        raise SimulationError(
            f"draw_requests: rate_rps, isl and osl have {len(rate)}, {len(mean_isl)} and "
            f"{len(mean_osl)} steps; the same number is allowed"
        )
    span = len(rate) * step_seconds
    cell = min(step_seconds, burst_memory_seconds / CELLS_PER_MEMORY)
    edges = np.linspace(0.0, span, max(1, round(span / cell)) + 1)
    centres = (np.arange(len(rate)) + 0.5) * step_seconds
    intensity = np.interp((edges[1:] + edges[:-1]) / 2, centres, rate)
    intensity *= _bursts(len(intensity), edges[1] / burst_memory_seconds, burst_cv, rng)
    # time change: arrivals are uniform in the integrated intensity, then mapped back to the clock
    expected = np.concatenate(([0.0], np.cumsum(intensity * np.diff(edges))))
    marks = np.sort(rng.random(rng.poisson(expected[-1]))) * expected[-1]
    arrive = np.interp(marks, expected, edges)
    step = np.minimum((arrive / step_seconds).astype(np.int64), len(rate) - 1)
    return Requests(
        start_seconds + arrive,
        _lengths(mean_isl[step], isl_sigma, MAX_INPUT_TOKENS, rng),
        _lengths(mean_osl[step], osl_sigma, MAX_OUTPUT_TOKENS, rng),
    )


def _bridged(name: str, values: FloatArray) -> FloatArray:
    values = np.asarray(values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        raise SimulationError(f"draw_requests: {name} has no finite value; at least one is needed")
    if values[known].min() < 0:
        raise SimulationError(
            f"draw_requests: {name} goes down to {values[known].min()}; allowed: >= 0"
        )
    return np.interp(np.arange(len(values)), known, values[known])


def _bursts(cells: int, cell_over_memory: float, cv: float, rng: np.random.Generator) -> FloatArray:
    """Return the factor of each cell: lognormal, mean 1, correlated over the memory."""
    sigma = float(np.sqrt(np.log1p(cv * cv)))
    keep = float(np.exp(-cell_over_memory))
    shocks = rng.standard_normal(cells)
    shocks[1:] *= np.sqrt(1.0 - keep * keep)  # the first one starts in the stationary state
    x = np.asarray(lfilter([1.0], [1.0, -keep], shocks), dtype=np.float64)
    return np.exp(sigma * x - sigma * sigma / 2)


def _lengths(mean: FloatArray, sigma: float, most: int, rng: np.random.Generator) -> IntArray:
    drawn = mean * np.exp(sigma * rng.standard_normal(len(mean)) - sigma * sigma / 2)
    return np.clip(np.rint(drawn), 1, most).astype(np.int64)
