"""The requests of a scenario: from a trace, or drawn around the load that a telemetry folder shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from autoscaler.sim.workload import Requests, draw_requests
from autoscaler.whatif.scenario import BUNDLED, RequestSpread, Scenario, ScenarioError
from models.frames import LoadSeries, to_series, validate_load
from models.trace_columns import Reading, canonical
from models.trace_shapes import TraceError, find_layout

BUNDLE = {"azure2024-code": "azure2024_code_10min.csv"}  # DATA_NOTICE.md: origin and licence
BURST_CV = 0.35  # of the rate within a long interval, about what minutes of LLM services show
LONG_SECONDS = 300.0  # shorter intervals show the bursts themselves: none are added
ANY_SERVICE = "-"  # the scenario says whose trace it is
LENGTHS = ("input_tokens", "output_tokens")
JITTER_SECONDS = 30.0  # of a request that is there more than once in a multiplied trace


@dataclass(frozen=True, slots=True)
class Arrivals:
    """All requests of the services, history included, and the time that they cover."""

    services: dict[str, Requests]
    start_seconds: float
    end_seconds: float


def read_arrivals(
    scenario: Scenario, services: Sequence[str], traffic_factor: float = 1.0
) -> Arrivals:
    """Return the arrivals of `services` (those of the policies), or raise ScenarioError.

    The same scenario gives the same requests: they are drawn with its seed. A service that telemetry
    does not hold is left out, unless it holds none of them. traffic_factor multiplies the load.
    """
    if scenario.telemetry is not None:
        load_file = scenario.telemetry / "load.parquet"
        return _from_telemetry(scenario, load_file, services, traffic_factor)
    service = _service_of_trace(scenario, services)
    frame = read_trace(str(scenario.trace))
    if "requests" not in frame:
        return _multiplied(_from_requests(scenario, frame, service), scenario.seed, traffic_factor)
    where = f"trace {scenario.trace}"
    load = frame.rename(columns={"timestamp": "ts"}).assign(service=service)
    return _draw(scenario, to_series(validate_load(load, where), where), traffic_factor)


def _multiplied(arrivals: Arrivals, seed: int, factor: float) -> Arrivals:
    """Repeat single requests so often, each copy at another time within JITTER_SECONDS of its own."""
    if factor == 1.0:
        return arrivals
    rng = np.random.default_rng([seed, 2_000_003])
    services = {}
    for name, r in arrivals.services.items():
        n = len(r.arrive_seconds)
        whole = np.full(n, int(factor)) + (rng.random(n) < factor - int(factor))
        pick = np.repeat(np.arange(n), whole)
        first = np.concatenate(([True], np.diff(pick) > 0)) if len(pick) else np.zeros(0, bool)
        at = r.arrive_seconds[pick] + ~first * rng.uniform(
            -JITTER_SECONDS, JITTER_SECONDS, len(pick)
        )
        at = np.clip(at, arrivals.start_seconds, np.nextafter(arrivals.end_seconds, 0.0))
        order = np.argsort(at, kind="stable")
        services[name] = Requests(
            at[order], r.input_tokens[pick][order], r.output_tokens[pick][order]
        )
    return Arrivals(services, arrivals.start_seconds, arrivals.end_seconds)


def read_trace(name: str) -> pd.DataFrame:
    """Read a trace: a row a request, or, with a column `requests`, a row an interval.

    Columns are those of any shape of request logs (models/trace_shapes.py) but ServeGen's windows.
    Returns timestamp (UTC, ascending), input_tokens, output_tokens and perhaps requests.
    """
    try:
        if name.startswith(BUNDLED):
            with _bundled(name.removeprefix(BUNDLED)) as stream:
                frame = pd.read_csv(stream)
        elif name.endswith(".parquet"):
            frame = pd.read_parquet(name)
        else:
            frame = pd.read_csv(name)
    except (OSError, ValueError) as error:
        raise ScenarioError(
            f"trace {name}: not readable as CSV or Parquet ({' '.join(str(error).split())})"
        ) from error
    return _checked(frame, f"trace {name}")


def _bundled(name: str) -> IO[bytes]:
    if name not in BUNDLE:
        raise ScenarioError(f"trace: no bundled trace '{name}'; allowed: {', '.join(BUNDLE)}")
    return (resources.files("autoscaler.whatif") / "bundle" / BUNDLE[name]).open("rb")


def _checked(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    try:
        layout = find_layout([str(c) for c in frame.columns], where)
        reading = Reading(zone=layout.zone, service=ANY_SERVICE)
        rows = canonical(frame, layout, reading, where)
    except TraceError as error:
        raise ScenarioError(str(error)) from error
    if layout.rows == "rate":
        raise ScenarioError(
            f"{where}: its rows are windows of clients; allowed: `telemetry`, a folder that "
            "`foreserve ingest trace` makes of it"
        )
    if rows.first_bad is not None:
        bad = rows.first_bad
        raise ScenarioError(
            f"{where}: column {bad.column}, row {bad.row}: {bad.value}; allowed: {bad.allowed}"
        )
    if frame.empty:
        raise ScenarioError(f"{where}: no rows; at least one is needed")
    out = pd.DataFrame(
        {
            "timestamp": pd.to_datetime(np.rint(rows.seconds * 1e6), unit="us", utc=True),
            "input_tokens": rows.input_tokens,
            "output_tokens": rows.output_tokens,
        }
    )
    out["timestamp"] = out.timestamp.astype("datetime64[ns, UTC]")
    if layout.rows == "totals":
        out["requests"] = rows.requests
    return out.sort_values("timestamp", kind="stable", ignore_index=True)


def _service_of_trace(scenario: Scenario, services: Sequence[str]) -> str:
    """Return whose trace it is: the service that the scenario names, or the only one there is."""
    if scenario.service is not None:
        if scenario.service not in services:
            raise ScenarioError(
                f"service: '{scenario.service}' has no policy; allowed: {', '.join(services)}"
            )
        return scenario.service
    if len(services) == 1:
        return services[0]
    raise ScenarioError(
        f"service: is required with a trace where there are {len(services)} policies; "
        f"allowed: {', '.join(services)}"
    )


def _from_requests(scenario: Scenario, frame: pd.DataFrame, service: str) -> Arrivals:
    if scenario.mean_requests_per_second is not None:
        raise ScenarioError(
            "meanRequestsPerSecond: a trace of single requests is replayed as it is; "
            "allowed: with a trace that has a row an interval"
        )
    for column in LENGTHS:
        bad = ~(pd.to_numeric(frame[column], errors="coerce") >= 1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ScenarioError(
                f"trace {scenario.trace}: column {column}, row {row}: {frame[column].iloc[row]:g}; "
                "allowed: a number >= 1"
            )
    at = frame.timestamp.astype("int64").to_numpy() / 1e9
    tokens = [frame[c].to_numpy(dtype=np.float64).astype(np.int64) for c in LENGTHS]
    start = float(np.floor(at[0] / 60.0) * 60.0)
    end = float(np.floor(at[-1] / 60.0) * 60.0)  # the last minute is not whole
    return Arrivals({service: Requests(at, *tokens).between(start, end)}, start, end)


def _from_telemetry(
    scenario: Scenario, path: Path, services: Sequence[str], traffic_factor: float
) -> Arrivals:
    try:
        frame = validate_load(pd.read_parquet(path), str(path))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    absent = [s for s in services if s not in set(frame.service)]
    if len(absent) == len(services):
        raise ScenarioError(
            f"{path}: no rows of service {', '.join(absent)}, which has a policy; "
            f"there are: {', '.join(sorted(set(frame.service)))}"
        )
    mine = to_series(frame[frame.service.isin(services)], str(path))
    return _draw(scenario, mine, traffic_factor)


def _draw(scenario: Scenario, series: LoadSeries, traffic_factor: float) -> Arrivals:
    requests = series.values[:, :, 0] / series.step_seconds
    if scenario.mean_requests_per_second is not None:
        total = float(np.nansum(np.nanmean(requests, axis=1)))
        if not total > 0:
            raise ScenarioError("meanRequestsPerSecond: the trace has no requests to scale")
        requests = requests * (scenario.mean_requests_per_second / total)
    requests = requests * traffic_factor
    drawn = {
        service: _draw_service(scenario, series, n, requests[n])
        for n, service in enumerate(series.services)
    }
    return Arrivals(drawn, series.start_seconds, series.end_seconds)


def _draw_service(
    scenario: Scenario, series: LoadSeries, n: int, rate_rps: "np.ndarray"
) -> Requests:
    if not np.nansum(rate_rps) > 0:  # nobody ever came: there are no lengths to draw from either
        return Requests(np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    spread: RequestSpread = scenario.spread
    burst_cv = spread.burst_cv
    if burst_cv is None:
        burst_cv = BURST_CV if series.step_seconds >= LONG_SECONDS else 0.0
    counts, tokens_in, tokens_out = series.values[n].T
    some = np.where(counts > 0, counts, np.nan)  # no requests: no mean length
    return draw_requests(
        rate_rps,
        tokens_in / some,
        tokens_out / some,
        start_seconds=series.start_seconds,
        step_seconds=series.step_seconds,
        rng=np.random.default_rng([scenario.seed, n]),
        burst_cv=burst_cv,
        burst_memory_seconds=spread.burst_memory_seconds,
        isl_sigma=spread.isl_sigma,
        osl_sigma=spread.osl_sigma,
    )
