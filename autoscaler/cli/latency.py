"""`foreserve latency fit|predict|capacity`: the latency model on its own."""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from autoscaler.cli.common import log, progress_report, write_json
from models.artifact import ArtifactError
from models.capacity import TargetArrays, replica_capacity_rps
from models.frames import FrameError, validate_serving
from models.latency import LatencyModel
from models.slo import SloTargets

EXAMPLE = """
Fit and ask the latency model by itself.

**Examples**

    foreserve latency fit --serving serving.parquet --out latency-model/

    foreserve latency predict --model latency-model/ --serving windows.parquet --out predicted.parquet

    foreserve latency capacity --model latency-model/ --variant h100 --isl 1024 --osl 200 \\
                               --ttft-seconds 1.0 --tpot-seconds 0.05 --json capacity.json
"""
ASKED = ("ready_replicas", "arrival_rate_rps", "isl_tokens", "osl_tokens")


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help=EXAMPLE, no_args_is_help=True)
    group.command("fit", help="Fit to serving telemetry.")(fit)
    group.command("predict", help="Predict latency of planned windows, a row each.")(predict)
    group.command("capacity", help="Requests/s that one replica carries within an SLO.")(capacity)
    app.add_typer(group, name="latency")


def fit(
    serving: Annotated[Path, typer.Option(help="serving.parquet of the telemetry folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    json: Annotated[Path | None, typer.Option(help="Write the scores here.")] = None,
) -> None:
    """Fit the latency model of every service and variant."""
    from training.telemetry import read_frame

    frame = read_frame(serving, validate_serving)
    with progress_report() as report:
        model = LatencyModel.fit(frame, progress=report)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in model.to_files().items():
        (out / name).write_bytes(data)
    log.info("%s: %d variants fitted", out, len(model.keys))
    if json is not None:
        write_json(json, {"variants": model.scores})


def predict(
    model: Annotated[Path, typer.Option(help="Folder written by `latency fit`.")],
    serving: Annotated[
        Path, typer.Option(help=f"Parquet with service, variant, {', '.join(ASKED)}.")
    ],
    out: Annotated[Path, typer.Option(help="Where predictions go (Parquet).")],
) -> None:
    """Predict TTFT and TPOT percentiles for each row, in order."""
    from training.telemetry import read_frame

    windows = read_frame(serving, _validate_windows)
    predicted = _read(model).predict(windows)
    out.parent.mkdir(parents=True, exist_ok=True)
    predicted.to_parquet(out, index=False)
    log.info("%s: %d rows", out, len(predicted))


def capacity(
    model: Annotated[Path, typer.Option(help="Folder written by `latency fit`.")],
    variant: Annotated[str, typer.Option(help="Variant's name.")],
    isl: Annotated[float, typer.Option(min=1, help="Mean prompt tokens a request.")],
    osl: Annotated[float, typer.Option(min=1, help="Mean output tokens a request.")],
    service: Annotated[str | None, typer.Option(help="Where several have the variant.")] = None,
    ttft_seconds: Annotated[float | None, typer.Option(min=0.0, help="Target.")] = None,
    tpot_seconds: Annotated[float | None, typer.Option(min=0.0, help="Target.")] = None,
    attainment: Annotated[float, typer.Option(help="Share within all targets.")] = 0.99,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas that share the load.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the answer here.")] = None,
) -> None:
    """Find the largest steady load a replica carries within the SLO."""
    if not 0.0 < attainment < 1.0:
        raise typer.BadParameter(
            f"{attainment}; allowed: between 0 and 1", param_hint="--attainment"
        )
    fitted = _read(model)
    key = _key(fitted, service, variant, str(model))
    targets = SloTargets(
        ttft_seconds=ttft_seconds if ttft_seconds is not None else np.inf,
        tpot_seconds=tpot_seconds if tpot_seconds is not None else np.inf,
    )
    one = np.ones(1)
    rps = replica_capacity_rps(
        fitted.coefficients([key]),
        isl * one,
        osl * one,
        TargetArrays.of([targets]),
        attainment * one,
        float(replicas) * one,
        correction=fitted.correction([key], isl * one, osl * one),
    )
    answer = {
        "service": key[0],
        "variant": variant,
        "isl_tokens": isl,
        "osl_tokens": osl,
        "ttft_seconds": ttft_seconds,
        "tpot_seconds": tpot_seconds,
        "attainment": attainment,
        "replicas": replicas,
        "replica_capacity_rps": float(rps[0]),
    }
    typer.echo(
        f"{key[0]} {variant}: {rps[0]:.3f} requests/s per replica with {replicas} sharing the load"
    )
    if json is not None:
        write_json(json, answer)


def _read(folder: Path) -> LatencyModel:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: not a folder; allowed: what `foreserve latency fit` writes")
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    try:
        return LatencyModel.from_files(files)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder}: {error}") from error


def _key(model: LatencyModel, service: str | None, variant: str, where: str) -> tuple[str, str]:
    found = [k for k in model.keys if k[1] == variant and service in (None, k[0])]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{s} {v}" for s, v in model.keys[:10])
    problem = "is not in the model" if not found else "belongs to several services: name --service"
    raise ArtifactError(f"{where}: variant '{variant}' {problem}; known: {known}")


def _validate_windows(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    missing = [c for c in ("service", "variant", *ASKED) if c not in frame.columns]
    if missing:
        raise FrameError(
            f"{where}: column {', '.join(missing)} is missing; "
            f"required: service, variant, {', '.join(ASKED)}"
        )
    for column in ASKED:
        try:
            pd.to_numeric(frame[column])
        except (TypeError, ValueError) as error:
            raise FrameError(
                f"{where}: column '{column}' holds {frame[column].dtype}; numbers or NaN are allowed"
            ) from error
    return frame
