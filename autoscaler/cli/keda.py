"""What the scaler alone and the scaler inside the operator share: where and how KEDA is answered."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoscaler.cli.common import log

if TYPE_CHECKING:
    from autoscaler.edge.keda.server import Listening

MODULES = ("grpc", "grpc_health", "grpc_reflection", "kubernetes", "prometheus_client")
MAX_AGE_SECONDS = 180.0
DRAIN_SECONDS = 10.0

TlsCert = Annotated[
    Path | None, typer.Option(help="KEDA: certificate chain (PEM); read again when it changes.")
]
TlsKey = Annotated[Path | None, typer.Option(help="KEDA: the certificate's key (PEM).")]
ClientCa = Annotated[
    Path | None, typer.Option(help="PEM file: KEDA must show a certificate of this authority.")
]


def listening_of(
    address: tuple[str, int],
    tls: tuple[Path | None, Path | None, Path | None],
    drain_seconds: float = DRAIN_SECONDS,
) -> "Listening":
    """Return where and how to listen; `tls`: certificate, key, authority of clients. BadParameter."""
    missing = [m for m in MODULES if importlib.util.find_spec(m) is None]
    if missing:
        raise typer.BadParameter(
            f"{missing[0]} is not installed; allowed: pip install 'foreserve[keda,kubernetes]'"
        )
    from autoscaler.edge.keda.server import Listening
    from autoscaler.edge.keda.tls import TlsFiles

    certificate, key, client_ca = tls
    if (certificate is None) != (key is None):
        raise typer.BadParameter("one without the other; allowed: both", param_hint="--tls-cert")
    if client_ca is not None and certificate is None:
        raise typer.BadParameter("needs --tls-cert and --tls-key", param_hint="--client-ca")
    files = None
    if certificate is not None and key is not None:
        files = TlsFiles(certificate, key, client_ca)
    else:
        log.warning("without TLS: anybody in reach can read the planned counts, or answer for us")
    return Listening(*address, files, drain_seconds)
