"""Where the operator's telemetry comes from: a Prometheus-compatible server or an OTLP store."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.server import roles_of
from autoscaler.core.types import Policies
from autoscaler.edge.history import read_history
from autoscaler.edge.otlp_reader import OtlpReader, OtlpReaderSettings, read_load_history
from autoscaler.edge.pod_signals import failed_devices, pod_loads
from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from autoscaler.operate.turn import Telemetry
from models.contract import Labels
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE
from models.recorded import Recorded
from training.ingest.plan import Request, aligned
from training.ingest.prometheus import ingest_prometheus

# policies, now, step and how many of them -> what was recorded
ReadHistory = Callable[[Policies, float, float, int], Recorded | None]
HISTORY_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Source:
    """Telemetry now and in the past, its clock, and what only it knows of pods and nodes."""

    telemetry: Telemetry
    history: ReadHistory
    server_seconds: Callable[[], float] | None
    pod_loads: Callable[[float], Mapping[tuple[str, str], float]]
    failed_devices: Callable[[float], Mapping[str, int]] | None
    gateway: tuple[PrometheusApi, Labels] | None = None  # whose queue can be looked at
    window_seconds: float = 60.0  # of the samples behind a rate


def prometheus_source(
    access: Access, labels: Labels, interval_seconds: float, scrape_seconds: float
) -> Source:
    """Return the source that asks a server; the reader's threads live as long as the process."""
    api = PrometheusApi(access)
    settings = ReaderSettings(interval_seconds, scrape_seconds)
    return Source(
        telemetry=PrometheusReader(api, labels, settings),
        history=partial(_from_prometheus, access, labels),
        server_seconds=api.server_seconds,
        pod_loads=partial(pod_loads, api, labels),
        failed_devices=partial(failed_devices, api),
        gateway=(api, labels),
        window_seconds=settings.window_seconds,
    )


def otlp_source(store: Path, rules: Path | None) -> Source:
    """Return the source that reads a store; FrameError for rules that cannot be used."""
    identity = identity_of(SERVICE_TEMPLATE, VARIANT_TEMPLATE, rules)

    def history(policies: Policies, now: float, step: float, steps: int) -> Recorded | None:
        return read_load_history(
            store, identity, policies, step_seconds=step, keep_steps=steps, now_seconds=now
        )

    reader = OtlpReader(store, identity, OtlpReaderSettings())
    return Source(reader, history, None, lambda _: {}, None)


def _from_prometheus(
    access: Access, labels: Labels, policies: Policies, now: float, step: float, steps: int
) -> Recorded | None:
    """Read past load as `ingest prometheus` does, into a folder that is gone afterwards."""
    start, end = aligned(now - steps * step, now, step)
    with tempfile.TemporaryDirectory() as folder, PrometheusApi(access) as api:
        request = Request(api.where, start, end, step, labels, roles=roles_of(policies))
        ingest_prometheus(
            api, request, Path(folder), resume=False, parallel=2, progress=lambda *_: None
        )
        return read_history(Path(folder) / "load.parquet", set(policies.services), step, steps)
