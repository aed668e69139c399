"""The artifact format: a generation of models as named bytes with a manifest. Never code, never pickle.

    MODELS/current.json          {"format_version", "generation", "previous"}
    MODELS/<generation>/manifest.json   {"format_version", "files": {name: {"sha256", "bytes"}}, "summary"}
    MODELS/<generation>/<part>/<file>

A generation is written whole under another name, then renamed, then made current by replacing one
small file: a reader sees the old generation or the new one, never half of one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORMAT_VERSION = 1
CURRENT = "current.json"
MANIFEST = "manifest.json"


class ArtifactError(ValueError):
    """A models folder that cannot be used; the message says where, what and what to do."""


class NewerFormatError(ArtifactError):
    """Models that a later version wrote: whole, and not ours to read or to replace."""


@dataclass(frozen=True, slots=True)
class Generation:
    """All files of one generation, by "part/file" name, and the training summary."""

    name: str
    files: Mapping[str, bytes]
    summary: Mapping[str, Any]

    def part(self, part: str) -> dict[str, bytes]:
        """Return one part's files by their own names; empty if the generation lacks the part."""
        prefix = f"{part}/"
        return {k.removeprefix(prefix): v for k, v in self.files.items() if k.startswith(prefix)}


def generation_name(files: Mapping[str, bytes]) -> str:
    """Return the name of a generation: a digest of its content, the same for the same models."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return f"g-{digest.hexdigest()[:16]}"


def manifest_of(files: Mapping[str, bytes], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest that `verify` checks against."""
    listed = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in sorted(files.items())
    }
    return {"format_version": FORMAT_VERSION, "files": listed, "summary": dict(summary)}


def read_versioned(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object that carries a format version, or raise ArtifactError."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"{where}: not JSON ({error}); train again") from error
    if not isinstance(content, dict) or not isinstance(content.get("format_version"), int):
        raise ArtifactError(f"{where}: no format_version; allowed: what `foreserve train` writes")
    version = content["format_version"]
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{where}: format_version {version} is newer than this foreserve reads; "
            f"allowed: up to {FORMAT_VERSION} (upgrade foreserve, or train again)"
        )
    return content


def is_file_list(files: object) -> bool:
    """Return whether a manifest's `files` is what `manifest_of` writes."""
    return isinstance(files, dict) and all(
        isinstance(of, dict) and isinstance(of.get("sha256"), str) for of in files.values()
    )


def verify(name: str, data: bytes, manifest: Mapping[str, Any], where: str) -> None:
    """Raise ArtifactError if a file is not what the manifest says."""
    expected = manifest["files"][name]
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise ArtifactError(
            f"{where}: {len(data)} bytes with another checksum than the manifest's; "
            "allowed: the file as trained (restore it, or train again)"
        )
