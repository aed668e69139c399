"""A few impossible rows in a load file are gaps; many are a mistake that somebody must look at.

A counter that went backwards, a scrape that was divided by nothing, an export that was joined twice: one
such row must not stop a thousand services from being trained, and must not be believed either. Where
they are more than a few, `frames.validate_load` refuses the file in one sentence.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.frames import LOAD_NUMBERS

FEW_RATIO = 0.01  # of a service's rows
FEW_ROWS = 3  # or so many
ABSURD = 1e15  # requests or tokens of one step: nobody's load
KEYS = ["service", "ts"]


@dataclass(frozen=True, slots=True)
class Mended:
    """The frame with impossible numbers as NaN and one row a step; and sentences that say so."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def mend_load(frame: pd.DataFrame, where: str) -> Mended:
    """Return the load with its few impossible rows mended; `where` names the file in the notes.

    Numbers below zero, infinite or beyond all measure become NaN. A row that is there twice is kept
    once; of two rows of one step that differ, the number that differs becomes NaN. What is wrong in
    another way, or too often, is left as it is.
    """
    numbers = [c for c in LOAD_NUMBERS if _is_number(frame, c)]
    if frame.empty or not numbers or any(k not in frame.columns for k in KEYS):
        return Mended(frame, ())
    frame, doubled = _one_row_a_step(frame.reset_index(drop=True), numbers)
    frame, impossible = _without_impossible(frame, numbers)
    notes = [f"{where}: {sentence}" for sentence in (*doubled, *impossible)]
    return Mended(frame, tuple(notes))


def _is_number(frame: pd.DataFrame, column: str) -> bool:
    return column in frame.columns and pd.api.types.is_numeric_dtype(frame[column].dtype)


def _one_row_a_step(frame: pd.DataFrame, numbers: list[str]) -> tuple[pd.DataFrame, list[str]]:
    if frame[KEYS].isna().any(axis=None):  # of no time or nobody's: refused as a whole later
        return frame, []
    if not frame.duplicated(KEYS).any():  # the usual case, and there may be millions of rows
        return frame, []
    copies = frame.duplicated([*KEYS, *numbers])
    notes = [f"{int(copies.sum())} rows are there twice; kept once"] if copies.any() else []
    frame = frame[~copies].reset_index(drop=True)
    rivals = frame.duplicated(KEYS, keep=False)
    rivals &= _few(frame.service, rivals)
    if not rivals.any():
        return frame, notes
    agreed = (
        frame[rivals].groupby(KEYS, sort=False)[numbers].transform("nunique", dropna=False) == 1
    )
    frame[numbers] = frame[numbers].astype(np.float64)
    frame.loc[agreed.index, numbers] = frame.loc[agreed.index, numbers].where(agreed)
    first = frame[rivals].iloc[0]
    again = rivals & frame.duplicated(KEYS)
    notes.append(
        f"{int(again.sum())} steps have two rows that differ, the first of {first.service} at "
        f"{first.ts}; taken as gaps"
    )
    return frame[~again].reset_index(drop=True), notes


def _without_impossible(frame: pd.DataFrame, numbers: list[str]) -> tuple[pd.DataFrame, list[str]]:
    notes = []
    for column in numbers:
        values = frame[column].astype(np.float64)
        bad = (values < 0) | (values >= ABSURD)
        if not bad.any():
            continue
        bad &= _few(frame.service, bad)
        if not bad.any():
            continue
        first = frame[bad].iloc[0]
        notes.append(
            f"column '{column}': {int(bad.sum())} impossible values, the first {first[column]:g} of "
            f"{first.service} at {first.ts}; taken as gaps"
        )
        frame = frame.assign(**{column: values.mask(bad)})
    return frame, notes


def _few(service: pd.Series, bad: pd.Series) -> pd.Series:
    """Whether the bad rows of each row's service are few."""
    grouped = bad.groupby(service)
    count = grouped.transform("sum")
    few: pd.Series = count <= np.maximum(FEW_ROWS, FEW_RATIO * grouped.transform("size"))
    return few
