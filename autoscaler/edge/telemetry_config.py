"""The file of `--config` for ingest, lint and the online reader: which label names what."""

from pathlib import Path

import yaml

from models.contract import ContractError, Labels, parse_labels

MAX_FILE_BYTES = 1 << 20


def read_labels(path: Path | None) -> Labels:
    """Return the label mapping of a YAML file with one key `labels`; defaults without a file.

    Raises ContractError naming the file: unreadable, not YAML, unknown keys, not names of labels.
    """
    if path is None:
        return Labels()
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        content = yaml.safe_load(data.decode("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        shown = " ".join(str(error).split())
        raise ContractError(f"{path}: not readable as YAML ({shown})") from error
    if len(data) > MAX_FILE_BYTES:
        raise ContractError(f"{path}: too large; allowed: {MAX_FILE_BYTES >> 20} MiB")
    content = {} if content is None else content
    if not isinstance(content, dict) or set(content) - {"labels"}:
        raise ContractError(f"{path}: allowed: one key, labels, with a mapping below it")
    labels = content.get("labels") or {}
    if not isinstance(labels, dict):
        raise ContractError(f"{path}: labels holds {type(labels).__name__}; allowed: a mapping")
    return parse_labels(labels, str(path))
