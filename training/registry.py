"""The registry's writing side: a generation appears whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.artifact import (
    CURRENT,
    FORMAT_VERSION,
    MANIFEST,
    generation_name,
    manifest_of,
)

KEEP_GENERATIONS = 3  # the current one and two to go back to


class RegistryError(RuntimeError):
    """The registry could not be written; what was there still serves."""


def write_generation(
    models: Path, files: Mapping[str, bytes], summary: Mapping[str, Any], previous: str | None
) -> str:
    """Write a generation and make it current; return its name.

    Raises RegistryError if anything cannot be written (a full disk, no permission). The generation
    that was current before stays current and complete.
    """
    name = generation_name(files)
    staging: Path | None = None
    try:
        models.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=models))
        for file, data in files.items():
            _write(staging / file, data)
        manifest = json.dumps(manifest_of(files, summary), indent=1, sort_keys=True)
        _write(staging / MANIFEST, manifest.encode())
        target = models / name
        if target.exists():
            _renew(target, staging)
        else:
            staging.rename(target)
        current = {"format_version": FORMAT_VERSION, "generation": name, "previous": previous}
        _replace(models / CURRENT, json.dumps(current, indent=1).encode())
    except OSError as error:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        kept = "the models that were there still serve" if previous else "nothing was written"
        raise RegistryError(
            f"{models}: models not written: {error.strerror or error}; {kept}"
        ) from error
    _forget_old(models, {name, previous})
    return name


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _renew(target: Path, staging: Path) -> None:
    """Put the same models in place file by file (their summary may be new): none is ever missing."""
    for path in sorted(p for p in staging.rglob("*") if p.is_file()):
        place = target / path.relative_to(staging)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    shutil.rmtree(staging, ignore_errors=True)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        _write(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _forget_old(models: Path, keep: set[str | None]) -> None:
    """Remove generations beyond the last few; one that cannot be removed does no harm."""
    old = sorted(
        (p for p in models.glob("g-*") if p.is_dir() and p.name not in keep),
        key=lambda p: p.stat().st_mtime,
        reverse=True,
    )
    for path in old[KEEP_GENERATIONS - 2 :]:
        shutil.rmtree(path, ignore_errors=True)
