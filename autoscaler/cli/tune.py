"""`foreserve tune`: a policy's few knobs, picked by simulated cost on the user's own history."""

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.table import Table

from autoscaler.cli.common import progress_report, result_console, write_json
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import StoreRules, StoreService, StoreVariant, telemetry_folder
from autoscaler.cli.train import train_folder
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE

if TYPE_CHECKING:
    from autoscaler.whatif.tune import Knobs, Tried, Tuned

EXAMPLE = """
Pick one policy's knobs by simulated cost at the SLO asked for, on your own history (docs/whatif.md).

SCENARIO.yaml is that of `foreserve whatif`; its judgedHours, as many days as you have patience for, are
split: settings are fitted on the first two thirds and checked on the rest, which no choice has seen. A
difference within noise changes nothing.

**Examples**

    foreserve tune scenario.yaml --patch patch.yaml --json tune.json

    foreserve tune scenario.yaml --service prod/chat
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tune", help=EXAMPLE)(tune)


def tune(
    scenario: Annotated[Path, typer.Argument(help="SCENARIO.yaml, as for `foreserve whatif`.")],
    policy: Annotated[
        str | None,
        typer.Option("--service", help="namespace/name of the policy; the only one if absent."),
    ] = None,
    patch: Annotated[
        Path | None, typer.Option(help="Write the YAML to apply here, too, if there is any.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Everything that was tried (JSON).")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Runs at a time; one per core by default.")
    ] = None,
    store_service: StoreService = SERVICE_TEMPLATE,
    store_variant: StoreVariant = VARIANT_TEMPLATE,
    rules: StoreRules = None,
) -> None:
    """Tune one policy."""
    from autoscaler.whatif.scenario import load_scenario
    from autoscaler.whatif.tune import tune as tuned_by

    asked = load_scenario(scenario)
    with contextlib.ExitStack() as stack:
        if asked.telemetry is not None:
            identity = identity_of(store_service, store_variant, rules)
            folder = stack.enter_context(telemetry_folder(asked.telemetry, identity))
            asked = asked.model_copy(update={"telemetry": folder})
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="foreserve-"))
        report = stack.enter_context(progress_report())
        found = tuned_by(
            asked, policy, work=Path(work), train=train_folder, progress=report, workers=workers
        )
    _show(found)
    text = patch_of(found)
    typer.echo(text or "# nothing to apply")
    if patch is not None and text:
        patch.parent.mkdir(parents=True, exist_ok=True)
        patch.write_text(text, encoding="utf-8")
    if json is not None:
        write_json(json, document_of(found))


def patch_of(found: "Tuned") -> str:
    """Return the YAML to apply; empty where today's settings stay."""
    fields = found.chosen.patch(found.today)
    if not fields:
        return ""
    namespace, name = found.service.split("/", 1)
    how = f"kubectl -n {namespace} patch scalingpolicy {name} --type merge --patch-file FILE"
    return f"# {found.verdict}\n# {how}\n" + yaml.safe_dump(fields, sort_keys=False)


def document_of(found: "Tuned") -> dict[str, Any]:
    """Return everything for machines; a standard error that is not known is null."""
    return {
        "service": found.service,
        "attainment": found.asked,
        "verdict": found.verdict,
        "patch": found.chosen.patch(found.today),
        "fit": {"hours": found.fit_hours, "tried": [_row(t, found.today) for t in found.fit]},
        "validation": {
            "hours": found.validation_hours,
            "tried": [_row(t, found.today) for t in found.validation],
        },
        "notes": list(found.notes),
    }


def _row(tried: "Tried", today: "Knobs") -> dict[str, Any]:
    return {
        "settings": tried.knobs.words(today),
        "patch": tried.knobs.patch(today),
        "cost_usd_per_hour": tried.cost_usd_per_hour,
        "cheaper_usd_per_hour": tried.cheaper.mean,
        "cheaper_standard_error": tried.cheaper.error,
        "slo_attainment_ratio": tried.measures.slo_attainment_ratio,
        "attainment_gained": tried.better.mean,
        "attainment_standard_error": tried.better.error,
    }


def _show(found: "Tuned") -> None:
    console = result_console()
    table = Table(title=f"{found.service}, {found.asked:.2%} of requests asked")
    for heading in ("Hours", "Settings", "$ an hour", "Less than today", "SLO attainment"):
        table.add_column(heading, justify="left" if heading in ("Hours", "Settings") else "right")
    parts = (
        ("fit", found.fit, found.fit_hours),
        ("after", found.validation, found.validation_hours),
    )
    for word, rows, hours in parts:
        for tried in rows:
            table.add_row(
                f"{word}, {hours:g} h",
                tried.knobs.words(found.today),
                f"{tried.cost_usd_per_hour:,.2f}",
                _less(tried, found.today),
                f"{tried.measures.slo_attainment_ratio:.2%}",
            )
        table.add_section()
    console.print(table)
    for note in found.notes:
        console.print(note)
    console.print(f"{found.verdict}.")


def _less(tried: "Tried", today: "Knobs") -> str:
    if tried.knobs == today:
        return "-"
    if not tried.cheaper.sure:
        return f"{tried.cheaper.mean:+.2f}, noise"
    return f"{tried.cheaper.mean:+.2f} ± {2 * tried.cheaper.error:.2f}"
