"""`foreserve train`: telemetry folder in, models out."""

from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import log, progress_report, write_json
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import (
    HolidaysOf,
    HolidaysZone,
    StoreRules,
    StoreService,
    StoreVariant,
    telemetry_folder,
)
from autoscaler.core.types import Policies, Variant
from autoscaler.edge.artifacts import read_generation
from autoscaler.edge.policy_files import read_documents
from autoscaler.policy import parse_policies
from models.artifact import CURRENT, ArtifactError, Generation, NewerFormatError
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE

EXAMPLE = """
Learn load, latency and lead time of every service; promote what beats what is there.

**Example**

    foreserve train --telemetry telemetry/ --models models/ --json train.json

    foreserve train --telemetry store/ --models models/      # what `foreserve otlp` writes

    foreserve train --telemetry telemetry/ --models models/ --policies policies.yaml   # their profileRefs
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", help=EXAMPLE)(train)


def train(
    telemetry: Annotated[
        Path,
        typer.Option(help="Folder with load, serving and startups Parquet, or an OTLP store."),
    ],
    models: Annotated[Path, typer.Option(help="Registry folder; made if absent.")],
    policies: Annotated[
        list[Path] | None,
        typer.Option(help="YAML with policies: their profileRefs and roles shape latency fits."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the summary here.")] = None,
    engine: Annotated[str, typer.Option(help="Where fits run: `local`.")] = "local",
    service: StoreService = SERVICE_TEMPLATE,
    variant: StoreVariant = VARIANT_TEMPLATE,
    rules: StoreRules = None,
    holidays: HolidaysOf = None,
    holidays_zone: HolidaysZone = "UTC",
) -> None:
    """Train and promote."""
    from training.holiday_names import Asked
    from training.train import train as run_training

    if engine != "local":
        raise typer.BadParameter(f"{engine!r}; allowed: local", param_hint="--engine")
    variants = _variants(policies or [])
    identity = identity_of(service, variant, rules)
    with telemetry_folder(telemetry, identity) as folder, progress_report() as report:
        trained = run_training(
            folder,
            models,
            incumbent=current_generation(models),
            profiles={key: v.profile_ref for key, v in variants.items() if v.profile_ref},
            roles={key: v.role.value for key, v in variants.items()},
            holidays=None if holidays is None else Asked(holidays, holidays_zone),
            progress=report,
        )
    for sentence in trained.summary["mended"]:
        log.warning("%s", sentence)
    for part, verdict in trained.summary["promotion"].items():
        word = "promoted" if verdict["promoted"] else "kept the incumbent"
        log.info("%s: %s (%s)", part, word, verdict["why"])
    log.info("%s: generation %s serves", models, trained.generation)
    if json is not None:
        write_json(json, trained.summary)


def _variants(policies: list[Path]) -> dict[tuple[str, str], Variant]:
    """Return the variants that these policies declare, by (service, variant)."""
    declared = parse_policies(read_documents(policies)) if policies else Policies({}, ())
    return {
        (name, variant.name): variant
        for name, policy in declared.services.items()
        for variant in policy.variants
    }


def current_generation(models: Path) -> Generation | None:
    """Return what serves now; None for a folder that holds nothing yet, or nothing that can serve.

    Damage is what training again repairs; models of a newer format are somebody's and are kept.
    """
    if not (models / CURRENT).exists():
        return None
    try:
        return read_generation(models)
    except NewerFormatError:
        raise
    except ArtifactError as error:
        log.warning("%s: not compared with what is there, nothing of it can serve", error)
        return None


def train_folder(telemetry: Path, models: Path) -> None:
    """Train without a report: what worker processes import by name."""
    from training.train import train as run_training

    run_training(telemetry, models, incumbent=current_generation(models))
