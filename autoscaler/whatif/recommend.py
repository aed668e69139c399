"""The policies that a comparison recommends to try, as YAML that `kubectl apply` takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from autoscaler.edge.policy_files import read_documents


def recommended_text(policies: Path, services: Sequence[str]) -> str:
    """Return the policies of these services and all pools, in Recommend mode: nothing is scaled yet."""
    kept: list[Any] = []
    for _, text in read_documents([policies]):
        for document in yaml.safe_load_all(text):
            if not isinstance(document, dict):
                continue
            if document.get("kind") != "ScalingPolicy":
                kept.append(document)
                continue
            meta = document.get("metadata", {})
            if f"{meta.get('namespace', 'default')}/{meta.get('name')}" in services:
                spec = document["spec"]
                spec["behavior"] = {**spec.get("behavior", {}), "mode": "Recommend"}
                kept.append(document)
    return yaml.safe_dump_all(kept, sort_keys=False)
