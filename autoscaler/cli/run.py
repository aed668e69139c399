"""`foreserve run`: the operator."""

import socket
import uuid
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli import keda, server
from autoscaler.cli.common import log_as
from autoscaler.edge.prometheus_api import Access
from autoscaler.edge.telemetry_config import read_labels

HELP = """
Run the operator: watch policies and pools, decide every few seconds, act according to each policy's mode.

Two replicas may run; the one that holds the Lease acts. Without models it sizes by measured
latency, or concurrency, until `foreserve train` has written some. Ends on SIGTERM, giving the Lease back.

**Examples**

    foreserve run --models /models --prometheus http://prometheus.monitoring.svc:9090

    foreserve run --models /models --prometheus http://prometheus.monitoring.svc:9090 --scaler-listen :6000

    foreserve run --kubeconfig ~/.kube/config --namespace foreserve-system --models models/ \\
                  --otlp-store store/ --starts store/ --http 127.0.0.1:8080
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", help=HELP)(run)


def run(
    models: Annotated[Path, typer.Option(help="Registry folder written by `train`; may be empty.")],
    prometheus: Annotated[
        str | None, typer.Option(help="Address before /api/v1 of a Prometheus-compatible server.")
    ] = None,
    otlp_store: Annotated[
        Path | None, typer.Option(help="Folder of `foreserve otlp`, instead of --prometheus.")
    ] = None,
    otlp_map: Annotated[
        Path | None, typer.Option(help="Rules that name services and variants (docs/otlp.md).")
    ] = None,
    interval_seconds: Annotated[float, typer.Option(min=1, max=300, help="Of decisions.")] = 15.0,
    scrape_seconds: Annotated[
        float,
        typer.Option(min=1, max=300, help="The server's scrape interval; `lint` measures it."),
    ] = 15.0,
    namespace: Annotated[
        str, typer.Option(envvar="POD_NAMESPACE", help="The operator's own: Lease, memory, switch.")
    ] = "foreserve-system",
    identity: Annotated[str, typer.Option(envvar="POD_NAME", help="Name of this process.")] = "",
    http: Annotated[
        str,
        typer.Option(help="HOST:PORT of /healthz, /readyz and /metrics; `:8080`: every address."),
    ] = "127.0.0.1:8080",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Outside a cluster; default: the pod's account, ~/.kube/config."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    log_format: Annotated[str, typer.Option(help="`text` or `json`, a line each.")] = "text",
    log_level: Annotated[str, typer.Option(help="`info`, or `debug` for every decision.")] = "info",
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(help="Send traces of ticks there: http://HOST:4318, grpc://HOST:4317."),
    ] = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Do not read past load at the start.")
    ] = False,
    starts: Annotated[
        Path | None,
        typer.Option(help="Telemetry folder: add starts of watched pods, for `train`."),
    ] = None,
    decision_log: Annotated[
        Path | None, typer.Option(help="Folder: keep what was decided and why, for `replay`.")
    ] = None,
    decision_log_mib: Annotated[
        int, typer.Option(min=16, help="MiB that the folder may hold; the oldest files go.")
    ] = 1024,
    scaler_listen: Annotated[
        str | None,
        typer.Option(help="HOST:PORT: answer KEDA, too, as `foreserve scaler` does."),
    ] = None,
    tls_cert: keda.TlsCert = None,
    tls_key: keda.TlsKey = None,
    client_ca: keda.ClientCa = None,
    config: server.Config = None,
    user: server.User = None,
    password_file: server.PasswordFile = None,
    bearer_token_file: server.BearerTokenFile = None,
    ca_file: server.CaFile = None,
    tenant: server.Tenant = None,
) -> None:
    """Run the operator."""
    if (prometheus is None) == (otlp_store is None):
        raise typer.BadParameter(
            "allowed: exactly one of the two", param_hint="--prometheus, --otlp-store"
        )
    log_as(log_format, log_level)
    from autoscaler.cli.sources import otlp_source, prometheus_source
    from autoscaler.cli.wiring import Place, serve
    from autoscaler.edge.kube.errors import KubeInvalid

    if prometheus is not None:
        access = Access(prometheus, user, password_file, bearer_token_file, ca_file, tenant, 10.0)
        source = prometheus_source(access, read_labels(config), interval_seconds, scrape_seconds)
    else:
        assert otlp_store is not None  # noqa: S101 - narrowing: checked above
        source = otlp_source(otlp_store, otlp_map)
    name = f"{identity or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    place = Place(
        kubeconfig,
        context,
        namespace,
        name,
        models,
        interval_seconds,
        address_of(http),
        otlp_endpoint,
        starts,
        decision_log,
        decision_log_mib,
        None
        if scaler_listen is None
        else keda.listening_of(address_of(scaler_listen), (tls_cert, tls_key, client_ca)),
    )
    try:
        serve(place, source, with_history=not no_history)
    except KubeInvalid as error:  # no cluster: whatever else the API says is met in the loop
        raise typer.BadParameter(str(error), param_hint="--kubeconfig") from error


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an empty host means every address. BadParameter."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(
            f"{text!r}; allowed: HOST:PORT, such as :8080", param_hint="--http"
        )
    return host.strip("[]"), int(port)
