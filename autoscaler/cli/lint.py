"""`foreserve lint`: whether a server holds what forecasts and decisions need."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from autoscaler.cli import server
from autoscaler.cli.common import EXIT_RUN_TIME, log, result_console, write_json
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import StoreRules, StoreService, StoreVariant
from autoscaler.edge.lint import Facts, Finding, Status, judge, look, target_findings
from autoscaler.edge.policy_files import load_policies
from autoscaler.edge.telemetry_config import read_labels
from models.contract import DEFAULT_VARIANT
from models.contract_api import clock_skew_sentence
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE, Identity

MAX_SKEW_SECONDS = 30.0
COLORS = {Status.OK: "green", Status.CAVEAT: "yellow"}

HELP = """
Check a live server, or an OTLP store, against the metric contract (docs/telemetry.md, docs/otlp.md).

Each series: found under which name, with the labels of the mapping, fresh, plausible; else what will
not work and which setting gives it. Status 1 when something required is missing or cannot be used.

**Example**

    foreserve lint --url http://prometheus:9090 --policies policies.yaml

    foreserve lint --otlp-store store/ --policies policies.yaml
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lint", help=HELP)(lint)


def lint(
    url: Annotated[
        str | None, typer.Option(help="Address before /api/v1, such as http://prometheus:9090.")
    ] = None,
    otlp_store: Annotated[
        Path | None, typer.Option(help="Instead: the folder that `foreserve otlp` writes.")
    ] = None,
    policies: Annotated[
        list[Path] | None, typer.Option(help="Policy files: are their targets bounds of buckets?")
    ] = None,
    at: Annotated[
        str, typer.Option(help="Time to look at: now, 1h (ago), or a time with zone.")
    ] = "now",
    json: Annotated[Path | None, typer.Option(help="Write the findings here.")] = None,
    config: server.Config = None,
    user: server.User = None,
    password_file: server.PasswordFile = None,
    bearer_token_file: server.BearerTokenFile = None,
    ca_file: server.CaFile = None,
    tenant: server.Tenant = None,
    timeout: server.Timeout = 30.0,
    service: StoreService = SERVICE_TEMPLATE,
    variant: StoreVariant = VARIANT_TEMPLATE,
    rules: StoreRules = None,
) -> None:
    """Check the contract."""
    when = server.instant_of(at, server.wall_seconds(), "--at")
    if otlp_store is not None and url is None:
        _lint_store(otlp_store, identity_of(service, variant, rules), when, policies, json)
        return
    if url is None or otlp_store is not None:
        raise typer.BadParameter("allowed: this or --otlp-store, one of both", param_hint="--url")
    from autoscaler.edge.prometheus_api import Access, PrometheusApi

    labels = read_labels(config)
    targets = server.targets_of(policies)
    access = Access(url, user, password_file, bearer_token_file, ca_file, tenant, timeout)
    with PrometheusApi(access) as api:
        facts = look(api, labels, when)
        skew = clock_skew_sentence(api.server_seconds(), server.wall_seconds(), MAX_SKEW_SECONDS)
    findings = judge(facts, labels, when)
    outside = target_findings(facts, targets)
    _show(findings)
    _notes(facts, skew)
    _tell_targets(outside)
    if json is not None:
        write_json(json, _content(findings, facts))
    _end(findings)


def _lint_store(
    folder: Path, identity: Identity, when: float, policies: list[Path] | None, json: Path | None
) -> None:
    from autoscaler.edge.lint_otlp import judge_store, look_at_store

    declared = load_policies(policies).services if policies else {}
    facts = look_at_store(folder, identity, when)
    findings = judge_store(facts, when)
    outside = target_findings(facts, server.targets_of(policies))
    silent = sorted(set(declared) - set(facts.services))
    _show(findings)
    log.info("services that speak: %s", ", ".join(facts.services) or "none")
    for name in silent:
        log.warning(
            "%s: a policy, but no source is named so (--service, --map; docs/otlp.md)", name
        )
    for name, policy in sorted(declared.items()):
        named = {DEFAULT_VARIANT, *(v.name for v in policy.variants)}
        for stranger in sorted(set(facts.variants(name)) - named):
            log.warning(
                "%s: variant %r speaks but is not in the policy (--variant, --map)", name, stranger
            )
    _tell_targets(outside)
    if json is not None:
        content = {"services": list(facts.services), "policies_without_telemetry": silent}
        write_json(json, {**content, "findings": [_finding(f) for f in findings]})
    _end(findings)


def _tell_targets(outside: list[tuple[str, str, float, str]]) -> None:
    for service, what, target, sentence in outside:
        log.warning("%s: its %s target of %g s %s", service, what.upper(), target, sentence)


def _end(findings: list[Finding]) -> None:
    failing = [f.quantity for f in findings if f.fails]
    if failing:
        log.error("required and not usable: %s", ", ".join(failing))
        raise typer.Exit(EXIT_RUN_TIME)


def _show(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("quantity", "status", "found as", "series", "age", "what to know"):
        table.add_column(
            title, justify="right" if title in {"series", "age"} else "left", overflow="fold"
        )
    for f in findings:
        color = COLORS.get(f.status, "red" if f.required else "yellow")
        table.add_row(
            f.quantity + ("" if f.required else " (optional)"),
            f"[{color}]{f.status.value}[/]",
            ", ".join(f.names) or "-",
            str(f.series),
            "-" if math.isnan(f.age_seconds) else f"{f.age_seconds:.0f} s",
            _words(f),
        )
    result_console().print(table)


def _words(finding: Finding) -> str:
    if finding.status is Status.OK:
        return ""
    if finding.status is Status.CAVEAT:
        return finding.detail
    return f"{finding.detail}; without it {finding.without}; {finding.remedy}"


def _notes(facts: Facts, skew: str) -> None:
    if not math.isnan(facts.scrape_seconds):
        log.info("engines are scraped about every %.0f s", facts.scrape_seconds)
        if facts.scrape_seconds > 30:
            log.warning("rates over 60 s need scrapes of 30 s or less: set scrape_interval to 15s")
    if facts.duplicated:
        log.info("%d engines are scraped more than once; each counts once", int(facts.duplicated))
    if skew:
        log.warning("%s", skew)


def _content(findings: list[Finding], facts: Facts) -> dict[str, object]:
    return {
        "scrape_seconds": facts.scrape_seconds,
        "duplicated": facts.duplicated,
        "findings": [_finding(f) for f in findings],
    }


def _finding(f: Finding) -> dict[str, object]:
    return {
        "quantity": f.quantity,
        "required": f.required,
        "status": f.status.value,
        "names": list(f.names),
        "series": f.series,
        "age_seconds": f.age_seconds,
        "detail": f.detail,
        "without": f.without,
        "remedy": f.remedy,
    }
