"""Joins the operator's parts and runs them until SIGTERM."""

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from autoscaler.cli.sources import Source
from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import ServingModels, load_models, nothing_learned
from autoscaler.edge.clock import Clock, SteadyTime
from autoscaler.edge.decision_folder import DecisionFolder
from autoscaler.edge.garbage import collect_seldom
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.cluster import Cluster
from autoscaler.edge.kube.lease import Lease
from autoscaler.edge.kube.starts import Start
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.edge.starts_file import StartsFile
from autoscaler.edge.status_http import StatusServer
from autoscaler.edge.tracing import TickTraces, traces_to
from autoscaler.handlers import Watches
from autoscaler.loop import Controller
from autoscaler.operate.coverage import settled_seconds
from autoscaler.operate.facts import FactFinder, reducers
from autoscaler.operate.marks import WarmPlaces, mark_idle_pods
from autoscaler.operate.memory import Memory
from autoscaler.operate.process import Backfill, History, Models, Process
from autoscaler.operate.record import Recorder
from autoscaler.operate.report import Reporter
from autoscaler.operate.starts import StartLearner
from autoscaler.operate.turn import Parts
from models.artifact import CURRENT, ArtifactError
from models.recorded import Recorded

if TYPE_CHECKING:  # the extra keda need not be installed
    from autoscaler.edge.keda.serve import ScalerBeside
    from autoscaler.edge.keda.server import Listening

log = logging.getLogger("foreserve")
LEASE = "foreserve"
STALE_INTERVALS = 4.0  # of silence before telemetry counts as stale in a status


@dataclass(frozen=True, slots=True)
class Place:
    """Where the operator runs and who it is."""

    kubeconfig: Path | None
    context: str | None
    namespace: str
    identity: str
    models: Path
    interval_seconds: float
    address: tuple[str, int]
    otlp_endpoint: str | None
    starts: Path | None = None
    decision_log: Path | None = None
    decision_log_mib: int = 1024
    listening: "Listening | None" = None  # for KEDA


@dataclass(frozen=True, slots=True)
class _World:
    api: KubeApi
    cluster: Cluster
    watches: Watches
    lease: Lease
    metrics: OperatorMetrics
    traces: TickTraces
    clock: Clock
    recorder: Recorder | None


def serve(place: Place, source: Source, *, with_history: bool) -> None:
    """Run until SIGTERM or SIGINT; KubeError where there is no way to the API server."""
    version = metadata.version("foreserve")
    api = KubeApi.from_environment(place.kubeconfig, place.context)
    cluster = Cluster(reducers())
    metrics = OperatorMetrics(version)
    api.count_errors(metrics.count_api_error)
    world = _World(
        api=api,
        cluster=cluster,
        watches=Watches(cluster, api),
        lease=Lease(api, place.namespace, LEASE, place.identity),
        metrics=metrics,
        traces=traces_to(place.otlp_endpoint, version=version),
        clock=Clock(),
        recorder=_recorder(place, metrics),
    )
    ended = threading.Event()
    candidate = threading.Thread(target=world.lease.run, args=(ended,), name="lease", daemon=True)
    scaler = None if place.listening is None else _scaler(place.listening, source, world, version)

    def helpers() -> str:
        if not candidate.is_alive():
            return "the Lease is no longer renewed"
        return "" if scaler is None else scaler.health()

    process = _process(place, source, world, helpers, with_history=with_history)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    status = StatusServer(*place.address, process.health, process.readiness, world.metrics.render)
    status.start()
    world.watches.start()
    candidate.start()
    if scaler is not None:
        scaler.start()
    log.info("foreserve %s as %s in %s", version, place.identity, place.namespace)
    try:
        process.run(stop)
    finally:
        world.lease.release()
        ended.set()
        if scaler is not None:
            scaler.close()
        if world.recorder is not None:
            world.recorder.close()
        world.watches.close()
        status.close()
        world.traces.shutdown()
        log.info("ended")


def _scaler(listening: "Listening", source: Source, world: _World, version: str) -> "ScalerBeside":
    """Return the scaler that answers KEDA from this process: on every replica, whoever leads."""
    from autoscaler.edge.keda.serve import Scaler, ScalerBeside

    scaler = Scaler(world.api, version, world.clock, world.metrics.registry)
    if source.gateway is not None:
        scaler.look_at(*source.gateway)
    return ScalerBeside(scaler, listening)


def _process(
    place: Place,
    source: Source,
    world: _World,
    helpers: Callable[[], str],
    *,
    with_history: bool,
) -> Process:
    memory = Memory(world.api, place.namespace, world.clock)
    trained = _first_models(place.models)
    controller = Controller(Policies({}, ()), trained)
    world.metrics.set_model(trained.generation)
    collect_seldom()
    time = SteadyTime(world.clock, source.server_seconds)
    finder = FactFinder(
        world.api,
        world.cluster,
        place.namespace,
        world.clock,
        lambda: world.watches.alive,
        source.failed_devices,
        settled_seconds(source.window_seconds),
    )
    parts = Parts(
        api=world.api,
        finder=finder,
        telemetry=source.telemetry,
        controller=controller,
        lease=world.lease,
        memory=memory,
        metrics=world.metrics,
        traces=world.traces,
        clock=world.clock,
        time=time,
        before_writes=mark_idle_pods(
            world.api, lambda: source.pod_loads(time.now()), world.metrics
        ),
        recorder=world.recorder,
    )
    return Process(
        parts,
        Reporter(
            world.api, place.identity, world.metrics, STALE_INTERVALS * place.interval_seconds
        ),
        Backfill(_history(source, controller) if with_history else None, world.clock),
        StartLearner(memory, trained.lead_time, _keep_in(place.starts)),
        _models_of(place.models),
        WarmPlaces(world.api, place.namespace, world.metrics),
        place.interval_seconds,
        helpers,
    )


def _recorder(place: Place, metrics: OperatorMetrics) -> Recorder | None:
    if place.decision_log is None:
        return None
    limit_bytes = place.decision_log_mib << 20
    return Recorder(DecisionFolder(place.decision_log, place.identity, limit_bytes), metrics)


def _keep_in(folder: Path | None) -> Callable[[list[Start]], bool] | None:
    """Return what keeps watched starts for training."""
    return None if folder is None else StartsFile(folder).keep


def _history(source: Source, controller: Controller) -> History:
    def read(policies: Policies, now_seconds: float) -> Recorded | None:
        load = controller.models.load
        if load is None:
            return None  # nothing would be forecast from it
        return source.history(policies, now_seconds, load.step_seconds, load.history_steps)

    return read


def _models_of(folder: Path) -> Models:
    """Return how to ask which generation is current, and how to load it: what is in use stays."""

    def current() -> tuple[str, Callable[[], ServingModels]]:
        try:
            pointer = (folder / CURRENT).read_text(encoding="utf-8")
        except OSError:
            return "", partial(load_models, folder)  # which says what is wrong
        return pointer, partial(load_models, folder)

    return current


def _first_models(folder: Path) -> ServingModels:
    """Return the current models, or models that know nothing: then concurrency sizes."""
    try:
        return load_models(folder)
    except ArtifactError as error:
        log.warning("%s; sized by measured latency until there is a model", error)
        return nothing_learned()
