"""`foreserve otlp`: receive OpenTelemetry, so that no Prometheus is needed."""

import asyncio
import importlib.util
import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import log
from models.frames import FrameError

EXAMPLE = """
Receive OTLP metrics and traces (gRPC and HTTP) into an embedded store, until SIGTERM.

**Examples**

    foreserve otlp --listen 127.0.0.1 --store store/

    foreserve otlp --listen 0.0.0.0 --store /var/lib/foreserve --tls-cert tls.crt --tls-key tls.key
"""
DAY_SECONDS = 86_400.0
MAX_TOKEN_BYTES = 4096


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("otlp", help=EXAMPLE)(otlp)


def otlp(
    store: Annotated[Path, typer.Option(help="Folder of the store; made if absent.")],
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free.")] = 4317,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free.")] = 4318,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="One line: the bearer token that clients must send.")
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(help="One more attribute that tells sources apart.")
    ] = None,
    bin_seconds: Annotated[int, typer.Option(min=1, max=300, help="Of a new store.")] = 30,
    retention_days: Annotated[float, typer.Option(min=0.01, help="Older data is deleted.")] = 15.0,
    max_store_mib: Annotated[int, typer.Option(min=4, help="The file stays below.")] = 8192,
    max_series: Annotated[int, typer.Option(min=1, help="New ones beyond are refused.")] = 50_000,
    max_message_mib: Annotated[int, typer.Option(min=1, max=64, help="As it arrives.")] = 4,
    max_inflated_mib: Annotated[int, typer.Option(min=1, max=64, help="After gzip.")] = 8,
    max_concurrent: Annotated[int, typer.Option(min=1, max=1024, help="Requests at once.")] = 32,
    receive_seconds: Annotated[float, typer.Option(min=0.1, help="To deliver one message.")] = 10.0,
    flush_seconds: Annotated[float, typer.Option(min=0.1, help="What a crash may lose.")] = 5.0,
) -> None:
    """Receive until SIGTERM or SIGINT."""
    require_extra()
    from autoscaler.edge.otlp_receiver import Receiver, ReceiverLimits, TlsFiles
    from autoscaler.edge.otlp_serve import serve
    from autoscaler.edge.otlp_store import OtlpStore
    from models.otlp_fold import Fold, FoldLimits
    from models.otlp_names import IDENTITY_ATTRIBUTES

    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("one without the other; allowed: both", param_hint="--tls-cert")
    tls = TlsFiles(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    token = None if token_file is None else read_token(token_file)
    if not _is_loopback(listen):
        if tls is None:
            log.warning("%s without TLS: anybody on the way can read telemetry and token", listen)
        if token is None:
            log.warning("%s without --token-file: anybody in reach can write telemetry", listen)
    opened = OtlpStore(
        store,
        bin_seconds=bin_seconds,
        retention_seconds=retention_days * DAY_SECONDS,
        max_bytes=max_store_mib * 2**20,
    )
    fold = Fold(bin_seconds=opened.bin_seconds, limits=FoldLimits(series=max_series))
    opened.restore(fold)
    limits = ReceiverLimits(
        message_bytes=max_message_mib * 2**20,
        inflated_bytes=max_inflated_mib * 2**20,
        concurrent_requests=max_concurrent,
        receive_seconds=receive_seconds,
        flush_seconds=flush_seconds,
    )
    identity = tuple(dict.fromkeys((*IDENTITY_ATTRIBUTES, *(attribute or ()))))
    receiver = Receiver(opened, fold, limits, identity, token)
    asyncio.run(serve(receiver, listen, (grpc_port, http_port), tls))


def read_token(path: Path) -> str:
    """Return the token in a file of one line, or raise FrameError."""
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FrameError(f"{path}: not readable as one line of ASCII ({error})") from error
    if not text or len(text) > MAX_TOKEN_BYTES or any(not 33 <= ord(c) < 127 for c in text):
        raise FrameError(
            f"{path}: allowed: one line of 1 to {MAX_TOKEN_BYTES} printable characters, no spaces"
        )
    return text


def require_extra() -> None:
    """Say how to get what OTLP needs, where it is not installed."""
    for module in ("aiohttp", "grpc", "opentelemetry.proto"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # not even the package that it would be in
            found = None
        if found is None:
            raise FrameError(f"{module} is not installed; allowed: pip install 'foreserve[otlp]'")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
