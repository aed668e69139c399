"""`foreserve scaler`: the external scaler that KEDA asks."""

import asyncio
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import log, log_as
from autoscaler.cli.run import address_of

HELP = """
Serve KEDA: each trigger of type external or external-push asks here for the count that was planned.

Decides nothing: reads the policies' statuses, which `foreserve run` writes, and stands in for a plan that
has become too old. Any number of replicas may run. Ends on SIGTERM, letting calls end.

**Examples**

    foreserve scaler --listen :6000 --http :8080

    foreserve scaler --listen :6000 --tls-cert tls.crt --tls-key tls.key --client-ca ca.crt
"""
MODULES = ("grpc", "grpc_health", "grpc_reflection", "kubernetes", "prometheus_client")


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
        typer.Option(min=1, max=86_400, help="Older decisions give way to what runs."),
    ] = 180.0,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM); read again when it changes.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="PEM file: KEDA must show a certificate of this authority.")
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0, max=600, help="For calls to end after SIGTERM.")
    ] = 10.0,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Outside a cluster; default: the pod's account, ~/.kube/config."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    log_format: Annotated[str, typer.Option(help="`text` or `json`, a line each.")] = "text",
    log_level: Annotated[str, typer.Option(help="`info` or `debug`.")] = "info",
) -> None:
    """Serve until SIGTERM or SIGINT."""
    log_as(log_format, log_level)
    _require_extra()
    from autoscaler.edge.keda.serve import Scaler
    from autoscaler.edge.keda.server import Listening
    from autoscaler.edge.keda.tls import TlsFiles
    from autoscaler.edge.kube.api import KubeApi
    from autoscaler.edge.kube.errors import KubeInvalid

    (host, port), page = _address(listen, "--listen"), _address(http, "--http")
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("one without the other; allowed: both", param_hint="--tls-cert")
    if client_ca is not None and tls_cert is None:
        raise typer.BadParameter("needs --tls-cert and --tls-key", param_hint="--client-ca")
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = TlsFiles(tls_cert, tls_key, client_ca)
    else:
        log.warning("without TLS: anybody in reach can read the planned counts, or answer for us")
    listening = Listening(host, port, tls, max_age_seconds, drain_seconds)
    try:
        api = KubeApi.from_environment(kubeconfig, context)
    except KubeInvalid as error:
        raise typer.BadParameter(str(error), param_hint="--kubeconfig") from error
    made = Scaler(api, metadata.version("foreserve"))
    asyncio.run(made.serve(listening, page))


def _address(text: str, option: str) -> tuple[str, int]:
    try:
        return address_of(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(error.message, param_hint=option) from error


def _require_extra() -> None:
    missing = [m for m in MODULES if importlib.util.find_spec(m) is None]
    if missing:
        raise typer.BadParameter(
            f"{missing[0]} is not installed; allowed: pip install 'foreserve[keda,kubernetes]'"
        )
