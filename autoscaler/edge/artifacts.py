"""The registry's reading side: fetch a generation's bytes, check them, build the models."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.artifact import (
    CURRENT,
    MANIFEST,
    ArtifactError,
    Generation,
    is_file_list,
    read_versioned,
    verify,
)
from models.latency import LatencyModel
from models.lead_time import LeadTimeModel
from models.load_model import LoadModel
from models.mix_model import MixModel

NO_MODELS = "none"  # in place of a generation's name, where nothing was trained yet
MAX_FILE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServingModels:
    """What the online controller serves from."""

    generation: str
    load: LoadModel | None  # None: no load model could be trained
    latency: LatencyModel
    lead_time: LeadTimeModel
    mix: MixModel | None = (
        None  # None: trained before there was one; lengths stay as they were lately
    )


def read_generation(models: Path) -> Generation:
    """Return the current generation's verified bytes, or raise ArtifactError."""
    return _generation(models, current_name(models))


def current_name(models: Path) -> str:
    """Return the name of the current generation, or raise ArtifactError."""
    current = models / CURRENT
    if not current.is_file():
        raise ArtifactError(
            f"{models}: no {CURRENT}; allowed: a folder written by `foreserve train`"
        )
    pointer = read_versioned(_text(current), str(current))
    name = pointer.get("generation")
    if not isinstance(name, str) or not name.startswith("g-") or Path(name).name != name:
        raise ArtifactError(
            f"{current}: generation {name!r}; allowed: the name of a folder beside it"
        )
    return name


def _generation(models: Path, name: str) -> Generation:
    folder = models / name
    manifest = read_versioned(_text(folder / MANIFEST), str(folder / MANIFEST))
    if not is_file_list(manifest.get("files")):
        raise ArtifactError(
            f"{folder / MANIFEST}: no list of files with checksums; "
            "allowed: what `foreserve train` writes"
        )
    files = {}
    for file in manifest["files"]:
        path = folder / file
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(
                f"{folder / MANIFEST}: file {file!r}; allowed: names inside the folder"
            )
        files[file] = _bytes(path)
        verify(file, files[file], manifest, str(path))
    return Generation(name, files, manifest.get("summary", {}))


def load_models(models: Path) -> ServingModels:
    """Return the models of the current generation, or raise ArtifactError."""
    generation = read_generation(models)
    return serving_models(generation, str(models))


def load_named(models: Path, name: str) -> ServingModels:
    """Return the models of one generation, which need not be current; ArtifactError."""
    if name == NO_MODELS:
        return nothing_learned()
    if Path(name).name != name or not (models / name).is_dir():
        raise ArtifactError(f"{models}: no generation {name}; allowed: the registry that has it")
    return serving_models(_generation(models, name), str(models))


def nothing_learned() -> ServingModels:
    """Return models that know nothing: measured latency or concurrency sizes."""
    return ServingModels(NO_MODELS, None, LatencyModel((), np.zeros((0, 0)), {}), LeadTimeModel({}))


def serving_models(generation: Generation, where: str) -> ServingModels:
    """Build the models of a generation, or raise ArtifactError."""
    try:
        load, mix = generation.part("load"), generation.part("mix")
        return ServingModels(
            generation=generation.name,
            load=LoadModel.from_files(load) if load else None,
            latency=LatencyModel.from_files(generation.part("latency")),
            lead_time=LeadTimeModel.from_files(generation.part("lead_time")),
            mix=MixModel.from_files(mix) if mix else None,
        )
    except ArtifactError:
        raise
    except (ValueError, KeyError) as error:
        raise ArtifactError(f"{where}: generation {generation.name} is damaged: {error}") from error


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", errors="replace")


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ArtifactError(f"{path}: {path.stat().st_size} bytes; allowed: {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: {error.strerror}; allowed: a readable file (train again)"
        ) from error
