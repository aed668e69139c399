"""Starts that the operator watched, kept in a telemetry folder for training (models/starts.py)."""

import logging
import os
import uuid
from pathlib import Path

import pandas as pd
import pyarrow as pa

from autoscaler.edge.kube.starts import Start, startups_frame
from models.frames import FrameError, validate_startups
from models.starts import UID, WATCHED_FILE

log = logging.getLogger("foreserve")
MAX_ROWS = 20_000  # the newest: about 2 MB


class StartsFile:
    """`startups-watched.parquet` of a folder; whoever leads adds to it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / WATCHED_FILE
        self._trouble = ""  # so that a full disk is one line

    def keep(self, starts: list[Start]) -> bool:
        """Add starts, each pod once; False, with the reason logged once, if they could not be."""
        try:
            self._add(startups_frame(starts))
        except (OSError, ValueError, pa.ArrowException) as error:
            text = f"{self._path}: starts are not kept: {error}"
            if text != self._trouble:
                log.warning("%s", text)
            self._trouble = text
            return False
        self._trouble = ""
        return True

    def _add(self, frame: pd.DataFrame) -> None:
        if self._path.exists():
            frame = pd.concat([self._kept(), frame], ignore_index=True)
        frame = frame.drop_duplicates(UID, keep="last").sort_values("created_ts").tail(MAX_ROWS)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # another name for each writer: a leader that was replaced may still be at it
        draft = self._path.with_name(f".{WATCHED_FILE}.{uuid.uuid4().hex[:8]}")
        try:
            with draft.open("wb") as file:
                frame.to_parquet(file, index=False)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)

    def _kept(self) -> pd.DataFrame:
        kept = validate_startups(pd.read_parquet(self._path), str(self._path))
        if UID not in kept.columns:
            raise FrameError(f"{self._path}: no column {UID!r}; allowed: a file of `run --starts`")
        return kept
