"""`foreserve scaler`: the external scaler that KEDA asks."""

import asyncio
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli import keda, server
from autoscaler.cli.common import log_as
from autoscaler.cli.run import address_of
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from autoscaler.edge.telemetry_config import read_labels

HELP = """
Serve KEDA: each trigger of type external or external-push asks here for the count that was planned.

Decides nothing: reads the policies' statuses, which `foreserve run` writes, and stands in for a plan that
has become too old. Any number of replicas may run. With --prometheus a service at zero is woken as soon as
requests wait at the gateway, and in place of a plan that is too old stands at least what the load needs.
Ends on SIGTERM, letting calls end.

**Examples**

    foreserve scaler --listen :6000 --http :8080

    foreserve scaler --listen :6000 --tls-cert tls.crt --tls-key tls.key --client-ca ca.crt

    foreserve scaler --listen :6000 --prometheus http://prometheus.monitoring.svc:9090
"""
LOOK_TIMEOUT_SECONDS = 2.0  # of one question


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("scaler", help=HELP)(scaler)


def scaler(
    listen: Annotated[str, typer.Option(help="HOST:PORT of gRPC; `:6000`: every address.")],
    http: Annotated[
        str, typer.Option(help="HOST:PORT of /healthz, /readyz and /metrics.")
    ] = "127.0.0.1:8080",
    max_age_seconds: Annotated[
        float,
        typer.Option(
            min=1, max=86_400, help="Older decisions give way to what runs, or the load needs."
        ),
    ] = keda.MAX_AGE_SECONDS,
    tls_cert: keda.TlsCert = None,
    tls_key: keda.TlsKey = None,
    client_ca: keda.ClientCa = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0, max=600, help="For calls to end after SIGTERM.")
    ] = keda.DRAIN_SECONDS,
    prometheus: Annotated[
        str | None,
        typer.Option(help="Address before /api/v1: where queues and load are looked at."),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Outside a cluster; default: the pod's account, ~/.kube/config."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    log_format: Annotated[str, typer.Option(help="`text` or `json`, a line each.")] = "text",
    log_level: Annotated[str, typer.Option(help="`info` or `debug`.")] = "info",
    config: server.Config = None,
    user: server.User = None,
    password_file: server.PasswordFile = None,
    bearer_token_file: server.BearerTokenFile = None,
    ca_file: server.CaFile = None,
    tenant: server.Tenant = None,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    log_as(log_format, log_level)
    files = (tls_cert, tls_key, client_ca)
    listening = keda.listening_of(_address(listen, "--listen"), files, drain_seconds)
    page = _address(http, "--http")
    from autoscaler.edge.keda.serve import Scaler
    from autoscaler.edge.kube.api import KubeApi
    from autoscaler.edge.kube.errors import KubeInvalid

    try:
        api = KubeApi.from_environment(kubeconfig, context)
    except KubeInvalid as error:
        raise typer.BadParameter(str(error), param_hint="--kubeconfig") from error
    version = metadata.version("foreserve")
    made = Scaler(api, version, max_age_seconds=max_age_seconds)
    if prometheus is not None:
        access = Access(
            prometheus,
            user,
            password_file,
            bearer_token_file,
            ca_file,
            tenant,
            LOOK_TIMEOUT_SECONDS,
        )
        made.look_at(PrometheusApi(access), read_labels(config))
    asyncio.run(made.serve(listening, page))


def _address(text: str, option: str) -> tuple[str, int]:
    try:
        return address_of(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(error.message, param_hint=option) from error
