"""Reads policy files; what they mean is decided in `autoscaler.policy`."""

from collections.abc import Sequence
from pathlib import Path

from autoscaler.core.types import Policies
from autoscaler.policy import PolicyError, parse_policies

MAX_FILE_BYTES = 16 * 1024 * 1024  # 20,000 policies


def load_policies(paths: Sequence[Path]) -> Policies:
    """Return what the files at `paths` declare, in their order.

    Raises PolicyError naming the file: unreadable, larger than MAX_FILE_BYTES, not UTF-8, or wrong.
    """
    return parse_policies(read_documents(paths))


def read_documents(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return (file name, text) of each file, as `parse_policies` takes them; PolicyError as above."""
    return [(str(path), _read(path)) for path in paths]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PolicyError(f"{path}: {reason}; allowed: a readable YAML file") from error
    if len(data) > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES // 2**20} MiB a file"
        raise PolicyError(f"{path}: too large; allowed: {limit}, in as many files as needed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: byte {error.start} is not UTF-8; allowed: UTF-8") from error
