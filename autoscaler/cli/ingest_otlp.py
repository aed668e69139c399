"""`foreserve ingest otlp-file` and `otlp-store`: OpenTelemetry in, telemetry folder out."""

import math
import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from autoscaler.cli.common import log, progress_report
from autoscaler.cli.otlp import require_extra
from models.frames import FrameError
from models.otlp_identity import (
    SERVICE_TEMPLATE,
    VARIANT_TEMPLATE,
    Identity,
    Rule,
    attribute_names,
    check_template,
    parse_rules,
)

if TYPE_CHECKING:
    from training.ingest_otlp import Ingested

FILE_EXAMPLE = """
Turn files of the collector's file exporter (json, proto, zstd, .gz) into a telemetry folder (docs/otlp.md).

**Example**

    foreserve ingest otlp-file metrics.jsonl traces.jsonl.gz --out telemetry/
"""
STORE_EXAMPLE = """
Turn what `foreserve otlp` has stored into a telemetry folder (docs/otlp.md).

**Example**

    foreserve ingest otlp-store --store store/ --out telemetry/ --from 2026-01-05T00:00:00Z
"""
Out = Annotated[Path, typer.Option(help="Telemetry folder to write.")]
Interval = Annotated[int, typer.Option(min=1, max=3600, help="Of the rows; whole bins.")]
ServiceTemplate = Annotated[str, typer.Option(help="Names the service; docs/otlp.md.")]
VariantTemplate = Annotated[str, typer.Option(help="Names the variant.")]
Rules = Annotated[Path | None, typer.Option("--map", help="YAML rules, before the templates.")]


def add_to(group: typer.Typer) -> None:
    """Add both commands to the group `ingest`."""
    group.command("otlp-file", help=FILE_EXAMPLE)(otlp_file)
    group.command("otlp-store", help=STORE_EXAMPLE)(otlp_store)


def otlp_file(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="In order of time.")],
    out: Out,
    interval_seconds: Interval = 60,
    service: ServiceTemplate = SERVICE_TEMPLATE,
    variant: VariantTemplate = VARIANT_TEMPLATE,
    rules: Rules = None,
) -> None:
    """Fold the files into a store of their own and write its telemetry folder."""
    require_extra()
    from autoscaler.edge.otlp_files import store_files
    from autoscaler.edge.otlp_store import OtlpStore
    from models.otlp_fold import DEFAULT_BIN_SECONDS
    from models.otlp_names import IDENTITY_ATTRIBUTES
    from training.ingest_otlp import ingest_store

    identity = identity_of(service, variant, rules)
    for path in files:
        if not path.is_file():
            raise FrameError(f"{path}: no such file; allowed: OTLP JSON lines, plain or .gz")
    bin_seconds = math.gcd(DEFAULT_BIN_SECONDS, interval_seconds)
    names = tuple(sorted({*IDENTITY_ATTRIBUTES, *attribute_names(identity)}))
    with tempfile.TemporaryDirectory(prefix="foreserve-") as work, progress_report() as report:
        total, seen = sum(p.stat().st_size for p in files), 0

        def advanced(count: int) -> None:
            nonlocal seen
            seen += count
            report("reading files (bytes)", seen, total)

        with OtlpStore(Path(work), bin_seconds=bin_seconds, max_bytes=2**40) as store:
            read = store_files(files, store, identity=names, progress=advanced)
        done = ingest_store(
            Path(work),
            identity,
            out,
            interval_seconds=interval_seconds,
            progress=report,
            name=", ".join(map(str, files)),
        )
    if read.refused:
        log.warning("%d points or spans refused: %s", read.refused, _some(read.reasons))
    if read.late:
        log.warning("%d points seen before, or older than ones before: left out", read.late)
    log.info("%d lines, %d points, %d requests", read.lines, read.points, read.requests)
    _tell(done, out)


def otlp_store(
    store: Annotated[Path, typer.Option(help="Folder that `foreserve otlp` writes.")],
    out: Out,
    start: Annotated[str | None, typer.Option("--from", help="RFC 3339; default: all.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="RFC 3339, exclusive.")] = None,
    interval_seconds: Interval = 60,
    service: ServiceTemplate = SERVICE_TEMPLATE,
    variant: VariantTemplate = VARIANT_TEMPLATE,
    rules: Rules = None,
) -> None:
    """Write the telemetry folder of a store."""
    from training.ingest_otlp import Period, ingest_store

    identity = identity_of(service, variant, rules)
    period = Period(_seconds(start, "--from", float("-inf")), _seconds(end, "--to", float("inf")))
    with progress_report() as report:
        done = ingest_store(
            store, identity, out, interval_seconds=interval_seconds, period=period, progress=report
        )
    _tell(done, out)


def _tell(done: "Ingested", out: Path) -> None:
    warn_unnamed(done)
    log.info(
        "%s: %d services, %d load rows, %d serving rows, %d starts",
        out,
        done.services,
        done.load_rows,
        done.serving_rows,
        done.starts,
    )


def warn_unnamed(done: "Ingested") -> None:
    """Say which sources no service or variant could be found for."""
    for attributes in done.unnamed_sources[:5]:
        shown = ", ".join(f"{k}={v}" for k, v in attributes.items()) or "no attributes"
        log.warning("no service or variant for a source with %s: left out", shown)


def identity_of(service: str, variant: str, rules: Path | None) -> Identity:
    """Return the identity that the options describe; FrameError for what makes no sense."""
    known: tuple[Rule, ...] = ()
    if rules is not None:
        try:
            known = parse_rules(yaml.safe_load(rules.read_text(encoding="utf-8")), str(rules))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise FrameError(f"{rules}: {error}; allowed: a YAML list of rules") from error
    return Identity(
        check_template(service, "--service"), check_template(variant, "--variant"), known
    )


def _seconds(text: str | None, where: str, default: float) -> float:
    if text is None:
        return default
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise FrameError(f"{where}: {text!r}; allowed: RFC 3339, 2026-01-05T00:00:00Z") from error
    if moment.tzinfo is None:
        raise FrameError(f"{where}: {text!r} has no time zone; allowed: 2026-01-05T00:00:00Z")
    return moment.timestamp()


def _some(reasons: Iterable[str]) -> str:
    return "; ".join(sorted(reasons)[:3])
