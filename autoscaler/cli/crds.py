"""`foreserve crds`: the CustomResourceDefinitions, for `kubectl apply`."""

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer
import yaml

from autoscaler.policy.crds import crd_documents
from autoscaler.policy.reference import reference_page

HELP = """
Print the CustomResourceDefinitions of ScalingPolicy and AcceleratorPool, or their reference.

**Examples**

    foreserve crds | kubectl apply --server-side -f -

    foreserve crds --reference > docs/crd-reference.md      # every field in words
"""
WIDTH = 100  # of the YAML's lines


class Kind(StrEnum):
    """The kinds that have a definition; a test holds them to `policy.crds`."""

    SCALING_POLICY = "ScalingPolicy"
    ACCELERATOR_POOL = "AcceleratorPool"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("crds", help=HELP)(crds)


def crds(
    kind: Annotated[Kind | None, typer.Option(help="Only this one.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON instead of YAML: a list of both, or the one.")
    ] = False,
    reference: Annotated[
        bool, typer.Option(help="The reference of all fields, in Markdown, and no definition.")
    ] = False,
) -> None:
    """Print YAML documents, or JSON that `kubectl apply` takes as well."""
    if reference:
        sys.stdout.write(reference_page())
        return
    documents = [d for d in crd_documents() if kind is None or d["spec"]["names"]["kind"] == kind]
    if as_json:
        whole = documents[0] if len(documents) == 1 else _list_of(documents)
        sys.stdout.write(json.dumps(whole, indent=1) + "\n")
    else:
        sys.stdout.write("---\n".join(crd_yaml(d) for d in documents))


def crd_yaml(document: dict[str, object]) -> str:
    """Return one document as it stands in manifests/crds."""
    return yaml.safe_dump(document, sort_keys=False, width=WIDTH, allow_unicode=True)


def _list_of(documents: list[dict[str, object]]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "List", "items": documents}
