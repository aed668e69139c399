"""Open-loop load on a completions endpoint, with the truth as the clients saw it.

Arrivals are Poisson: each request is sent at its own time, whether or not earlier ones have been
answered. Prompts are token ids, so the lengths are exact.
"""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

REQUEST_SECONDS = 60.0  # a request that takes longer has failed
FIRST_TOKEN_ID, LAST_TOKEN_ID = 3, 258  # the bytes of make_tiny_model.py
SHARED_PREFIX_TOKENS = 64  # of every other prompt
PROMPT_TOKENS = (120.0, 0.6, 16, 700)  # lognormal: median, sigma; least, most
OUTPUT_TOKENS = (32.0, 0.5, 6, 128)


@dataclass(frozen=True, slots=True)
class Call:
    """One request to send: seconds after the start, prompt as token ids, tokens to answer."""

    after_seconds: float
    prompt: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One answered request: epoch seconds of arrival, first and last token; token counts."""

    arrival: float
    first_token: float
    last_token: float
    input_tokens: int
    output_tokens: int

    @property
    def ttft_seconds(self) -> float:
        return self.first_token - self.arrival

    @property
    def tpot_seconds(self) -> float:
        return (self.last_token - self.first_token) / (self.output_tokens - 1)


@dataclass(slots=True)
class Log:
    """What came of the load. Threads append; read it when they have ended."""

    seen: list[Seen] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def schedule(rates_rps: Sequence[float], phase_seconds: float, seed: int) -> list[Call]:
    """Return calls with Poisson arrivals: a phase at each rate, one after the other."""
    rng = np.random.default_rng(seed)
    shared = _ids(rng, SHARED_PREFIX_TOKENS)
    calls: list[Call] = []
    edges = np.arange(len(rates_rps) + 1) * phase_seconds
    for rate, (start, end) in zip(rates_rps, pairwise(edges), strict=True):
        at = start + rng.exponential(1.0 / rate)
        while at < end:
            prompt = _ids(rng, _length(rng, *PROMPT_TOKENS))
            if len(calls) % 2:
                prompt = shared + prompt
            calls.append(Call(float(at), prompt, _length(rng, *OUTPUT_TOKENS)))
            at += rng.exponential(1.0 / rate)
    return calls


def send_all(port: int, model: str, calls: Sequence[Call], start: float, log: Log) -> None:
    """Send each call at epoch second `start` + its time; return when the last has been sent off.

    Answers come in on threads of their own (`wait_for_answers`).
    """
    for call in calls:
        time.sleep(max(0.0, start + call.after_seconds - time.time_ns() / 1e9))
        threading.Thread(
            target=_send, args=(port, model, call, log), name="client", daemon=True
        ).start()


def wait_for_answers(seconds: float) -> bool:
    """Wait for the clients under way; return whether all have ended in time."""
    end = time.monotonic() + seconds
    clients = [t for t in threading.enumerate() if t.name == "client"]
    for client in clients:
        client.join(max(0.0, end - time.monotonic()))
    return not any(c.is_alive() for c in clients)


def _send(port: int, model: str, call: Call, log: Log) -> None:
    try:
        log.seen.append(send(port, model, call))
    except (OSError, http.client.HTTPException, ValueError) as error:
        log.failed.append(f"{type(error).__name__}: {error}")


def send(port: int, model: str, call: Call) -> Seen:
    """Ask for one streamed completion. Raises OSError, HTTPException, ValueError."""
    body = {
        "model": model,
        "prompt": list(call.prompt),
        "max_tokens": call.output_tokens,
        "ignore_eos": True,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
    arrival = time.time_ns() / 1e9
    times: list[float] = []  # of tokens: a line each
    try:
        connection.request(
            "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"{response.status}: {response.read(300)!r}")
        times.extend(time.time_ns() / 1e9 for line in response if line.startswith(b"data: {"))
    finally:
        connection.close()
    if not times:
        raise ValueError("an answer without a token")
    return Seen(arrival, times[0], times[-1], len(call.prompt), call.output_tokens)


def _length(rng: np.random.Generator, median: float, sigma: float, least: int, most: int) -> int:
    return int(np.clip(rng.lognormal(np.log(median), sigma), least, most))


def _ids(rng: np.random.Generator, count: int) -> tuple[int, ...]:
    ids: NDArray[np.int64] = rng.integers(FIRST_TOKEN_ID, LAST_TOKEN_ID + 1, count)
    return tuple(ids.tolist())
