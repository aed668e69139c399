"""The decision log: JSON lines from which every decision can be made again, to the same bytes.

    {"kind":"header", "format_version", "generation", "documents": [[file, text], ...]}
    {"kind":"tick", "observation", "outlooks" (null: as in the tick before), "decision"}
    {"kind":"accounts", "services": {name: account}}   before the tick that closed their hour

The header names the models and holds the policies as they were written; a tick holds what the core
was given. Nothing is rounded on the way in: what is logged is what was decided on. The operator's log
has further records between the two (`decision_changes`), no documents, and is compressed (gzip).
Accounts are for people: they enter no tick, and a replay passes them over.
"""

import contextlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from autoscaler.core.accounts import Account
from autoscaler.core.outcome import Decisions, Outlook
from autoscaler.core.types import Observation
from autoscaler.edge.account_record import account_from_dict, account_to_dict
from autoscaler.edge.decision_changes import KINDS, Inputs, with_change
from autoscaler.edge.decisions import decisions_to_dict, dump_line
from autoscaler.edge.wire import observation_to_dict, parse_observation

FORMAT_VERSION = 1
ACCOUNTS = "accounts"
GZIP = b"\x1f\x8b"
GZIP_BITS = 31  # of zlib: with gzip's header
BLOCK_BYTES = 1 << 20
# How Z_SYNC_FLUSH ends: an empty stored block, on a byte's edge (RFC 1951, 3.2.4). Compressed text holds it
# by chance once in four gigabytes: of the unfinished tick of a killed process, one in millions.
FLUSHED = b"\x00\x00\xff\xff"


class LogError(ValueError):
    """A decision log that cannot be read; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What was decided with: the models' generation and the policies as written."""

    generation: str
    documents: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One logged tick: the core's input, and the line as it stands in the log.

    `changes`: records of `decision_changes` before it, with line numbers. `accounts`: of a closed hour.
    """

    number: int
    line: str
    observation: Observation
    outlooks: Mapping[str, Outlook] | None
    changes: tuple[tuple[int, Mapping[str, Any]], ...] = ()
    accounts: Mapping[str, Account] = field(default_factory=dict)

    def changed(self, known: Inputs) -> Inputs:
        """Return the inputs that this tick was given, `known` being those of the one before; LogError."""
        for number, record in self.changes:
            try:
                known = with_change(known, record)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                kind = record.get("kind")
                raise LogError(f"line {number}: not a record of {kind} ({error})") from error
        return known


class DecisionLog:
    """Appends ticks to an open file, each flushed before the decision is given out."""

    def __init__(self, file: TextIO, header: Header) -> None:
        self._file = file
        self._last: Mapping[str, Outlook] | None = None
        file.write(header_line(header))
        file.flush()

    def append(
        self,
        observation: Observation,
        outlooks: Mapping[str, Outlook],
        decisions: Decisions,
        accounts: Mapping[str, Account],
    ) -> None:
        """Write one tick, and the accounts of the hour that it closed."""
        changed = outlooks is not self._last
        self._last = outlooks
        if accounts:
            self._file.write(accounts_line(accounts))
        self._file.write(tick_line(observation, outlooks if changed else None, decisions))
        self._file.flush()


def header_line(header: Header) -> str:
    """Return a log's first line."""
    return dump_line(
        {
            "kind": "header",
            "format_version": FORMAT_VERSION,
            "generation": header.generation,
            "documents": [list(d) for d in header.documents],
        }
    )


def tick_line(
    observation: Observation, outlooks: Mapping[str, Outlook] | None, decisions: Decisions
) -> str:
    """Return the log's line for one tick."""
    shown = None if outlooks is None else {k: _outlook_to_dict(o) for k, o in outlooks.items()}
    return dump_line(
        {
            "kind": "tick",
            "observation": observation_to_dict(observation),
            "outlooks": shown,
            "decision": decisions_to_dict(decisions),
        }
    )


def accounts_line(accounts: Mapping[str, Account]) -> str:
    """Return the log's line for the accounts of a closed hour."""
    shown = {name: account_to_dict(account) for name, account in accounts.items()}
    return dump_line({"kind": ACCOUNTS, "services": shown})


def read_log(path: Path) -> tuple[Header, Iterator[Entry]]:
    """Return the header and the ticks in order; LogError names the line that cannot be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}; allowed: a decision log") from error
    lines = _lines(file, path)
    try:
        header = _header(_object(next(lines, ""), path, 1), path)
    except LogError:
        file.close()
        raise
    return header, _entries(lines, path)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """Yield the lines of a plain or compressed log, and close it."""
    with file:
        compressed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        for line in _unzipped(file, path) if compressed else file:
            yield line.decode("utf-8", errors="replace")


def _unzipped(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield whole lines; a process that was killed left no end, and perhaps a piece of a line.

    A writer flushes after whole lines, so whatever stands before a flush's mark gives a line and leaves no
    rest. Where it does not, the file is damaged, although its bytes still read as some compressed text.
    """
    unzip = zlib.decompressobj(GZIP_BITS)
    rest = b""
    whole = True
    for part in _to_marks(file):
        try:
            text = unzip.decompress(part)
        except zlib.error as error:
            raise LogError(f"{path}: not whole gzip ({error}); allowed: a decision log") from error
        *lines, rest = (rest + text).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if part.endswith(FLUSHED):
            whole = bool(lines) and not rest
    if unzip.eof:
        if rest:
            yield rest
    elif not whole:
        raise LogError(
            f"{path}: damaged: what was flushed last gives no whole line; allowed: a decision log"
        )


def _to_marks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a file in parts, each of which ends with a flush's mark if it holds one."""
    kept = b""
    while block := file.read(BLOCK_BYTES):
        *flushed, last = (kept + block).split(FLUSHED)
        yield from (part + FLUSHED for part in flushed)
        cut = max(0, len(last) - len(FLUSHED) + 1)  # a mark may lie across two blocks
        yield last[:cut]
        kept = last[cut:]
    yield kept


def _header(content: Mapping[str, Any], path: Path) -> Header:
    if content.get("kind") == "header" and content.get("format_version") == FORMAT_VERSION:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            documents = tuple((str(name), str(text)) for name, text in content["documents"])
            return Header(str(content["generation"]), documents)
    raise LogError(
        f"{path}: line 1: not a header of format {FORMAT_VERSION}; "
        "allowed: what `foreserve decide --log` writes"
    )


def _entries(lines: Iterable[str], path: Path) -> Iterator[Entry]:
    changes: list[tuple[int, Mapping[str, Any]]] = []
    accounts: Mapping[str, Account] = {}
    for number, line in enumerate(lines, start=2):
        content = _object(line, path, number)
        if content.get("kind") in KINDS:
            changes.append((number, content))
            continue
        if content.get("kind") == ACCOUNTS:
            accounts = _accounts(content, path, number)
            continue
        try:
            observation = parse_observation(json.dumps(content["observation"]), number)
            shown = content["outlooks"]
            outlooks = (
                None if shown is None else {k: _outlook_from_dict(o) for k, o in shown.items()}
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LogError(f"{path}: line {number}: not a logged tick ({error})") from error
        yield Entry(number, line, observation, outlooks, tuple(changes), accounts)
        changes, accounts = [], {}


def _accounts(content: Mapping[str, Any], path: Path, number: int) -> Mapping[str, Account]:
    try:
        return {name: account_from_dict(a) for name, a in content["services"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LogError(f"{path}: line {number}: not a record of accounts ({error})") from error


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise LogError(f"{path}: line {number}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise LogError(f"{path}: line {number}: not a JSON object")
    return content


def _outlook_to_dict(outlook: Outlook) -> dict[str, Any]:
    mix: dict[str, Any] = {}  # most services have one class of traffic, and nothing to tell of it
    if outlook.ahead_tokens is not None:
        mix["ahead_tokens"] = outlook.ahead_tokens.tolist()
    if outlook.mix_drift:
        mix["mix_drift"] = outlook.mix_drift
    return {
        "cutoff_seconds": outlook.cutoff_seconds,
        "leads_seconds": outlook.leads_seconds.tolist(),
        "quantiles": outlook.quantiles.tolist(),
        "arrival_rate_rps": outlook.arrival_rate_rps.tolist(),
        "isl_tokens": _null(outlook.isl_tokens),
        "osl_tokens": _null(outlook.osl_tokens),
        "trusted": outlook.trusted,
        **mix,
    }


def _outlook_from_dict(content: Mapping[str, Any]) -> Outlook:
    leads, quantiles = _array(content["leads_seconds"]), _array(content["quantiles"])
    rates = _array(content["arrival_rate_rps"])
    if leads.size < 1 or quantiles.size < 2 or rates.shape != (leads.size, quantiles.size):
        raise ValueError(f"arrival_rate_rps has shape {rates.shape}")
    ahead = content.get("ahead_tokens")
    lengths = None if ahead is None else _array(ahead)
    if lengths is not None and lengths.shape != (leads.size, 2):
        raise ValueError(f"ahead_tokens has shape {lengths.shape}")
    return Outlook(
        cutoff_seconds=float(content["cutoff_seconds"]),
        leads_seconds=leads,
        quantiles=quantiles,
        arrival_rate_rps=rates,
        isl_tokens=_nan(content["isl_tokens"]),
        osl_tokens=_nan(content["osl_tokens"]),
        trusted=bool(content["trusted"]),
        ahead_tokens=lengths,
        mix_drift=str(content.get("mix_drift", "")),
    )


def _array(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
