"""Runs that were made already: kept by a digest of all that goes into them, so that nothing is stale.

A run's key holds the case (requests, engines, policies, seeds), the setting and the code; one that was
interrupted goes on where it stopped. Files may be deleted at any time; a broken one counts as absent.
"""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from autoscaler.whatif.results import Measures
from autoscaler.whatif.run import Driven

OURS = ("models", "autoscaler", "training")  # whose sources a result depends on
THEIRS = ("numpy", "pandas", "scipy", "numba", "lightgbm")
KEPT_BYTES = 1 << 30


class RunCache:
    """A folder of finished runs and trained models; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Driven | None:
        """Return the run of this key, or None."""
        if self._folder is None or not (self._folder / f"{key}.json").exists():
            return None
        try:
            raw = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            series = pd.read_parquet(self._folder / f"{key}.parquet")
            services = {name: Measures(**_numbers(m)) for name, m in raw["services"].items()}
            return Driven(services, int(raw["max_replicas"]), series)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, driven: Driven) -> None:
        """Keep a run."""
        if self._folder is None:
            return
        rows = {name: dataclasses.asdict(m) for name, m in driven.services.items()}
        text = json.dumps({"services": rows, "max_replicas": driven.max_replicas})
        part = self._folder / f".{key}.part"
        driven.series.to_parquet(part)
        part.replace(self._folder / f"{key}.parquet")
        part.write_text(text, encoding="utf-8")
        part.replace(self._folder / f"{key}.json")  # last: it says that the run is whole

    def learned(self, key: str, work: Path) -> bool:
        """Bring the telemetry and models of this key to `work`; False where they are not kept."""
        if self._folder is None or not (self._folder / key).is_dir():
            return False
        shutil.copytree(self._folder / key, work, dirs_exist_ok=True)
        return True

    def keep_learned(self, key: str, work: Path) -> None:
        """Keep the telemetry and models in `work`."""
        if self._folder is None or (self._folder / key).exists():
            return
        part = self._folder / f".{key}.part"
        shutil.rmtree(part, ignore_errors=True)
        for name in ("telemetry", "models"):
            shutil.copytree(work / name, part / name)
        part.replace(self._folder / key)

    def prune(self) -> None:
        """Forget the oldest entries beyond KEPT_BYTES."""
        if self._folder is None:
            return
        entries = sorted(self._folder.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
        held = 0
        for entry in entries:
            files = [entry] if entry.is_file() else [f for f in entry.rglob("*") if f.is_file()]
            held += sum(f.stat().st_size for f in files)
            if held > KEPT_BYTES:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(Measures)}
    if set(row) != names:
        raise ValueError("of another version")
    return dict(row)


def digest(*values: object) -> str:
    """Return a name for values: dataclasses, mappings, arrays, functions and plain ones, by content."""
    state = hashlib.blake2b(digest_size=16)
    for value in values:
        _take(state, value)
    return state.hexdigest()


def file_digest(*folders: Path) -> str:
    """Return a name for the bytes of all files below folders (or of a file), whatever their times."""
    state = hashlib.blake2b(digest_size=16)
    for folder in folders:
        files = (
            [folder] if folder.is_file() else sorted(f for f in folder.rglob("*") if f.is_file())
        )
        for file in files:
            name = file.name if folder.is_file() else str(file.relative_to(folder))
            state.update(name.encode() + b"\0" + hashlib.blake2b(file.read_bytes()).digest())
    return state.hexdigest()


@cache
def code_digest() -> str:
    """Return a name for the code that results come from, ours and the libraries that compute."""
    folders = []
    for package in OURS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders += [Path(p) for p in spec.submodule_search_locations]
    sources = {
        str(file.relative_to(folder.parent)): hashlib.blake2b(file.read_bytes()).hexdigest()
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
    }
    return digest(sources, {name: importlib.metadata.version(name) for name in THEIRS})


def _take(state: "hashlib.blake2b", value: object) -> None:
    kind = type(value).__qualname__
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        state.update(f"{array.dtype}{array.shape}".encode())
        state.update(array.data)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        state.update(kind.encode())
        for f in dataclasses.fields(value):
            state.update(f.name.encode())
            _take(state, getattr(value, f.name))
    elif isinstance(value, Mapping):
        state.update(b"{")
        for key in sorted(value, key=repr):
            _take(state, key)
            _take(state, value[key])
        state.update(b"}")
    elif isinstance(value, list | tuple | set | frozenset):
        members = value if isinstance(value, list | tuple) else sorted(value, key=repr)
        state.update(b"[")
        for member in members:
            _take(state, member)
        state.update(b"]")
    elif callable(value):
        state.update(getattr(value, "__qualname__", kind).encode())
        if hasattr(value, "__self__"):
            _take(state, value.__self__)
    elif value is None or isinstance(value, bool | int | float | str | Enum | Path | np.generic):
        state.update(f"{kind}:{value!r};".encode())
    else:
        raise TypeError(f"digest: a {kind} has no content that is known")
