"""Make benchmarks/data/fleet_load.csv.gz: six days of four real services in 10-minute steps.

    python benchmarks/make_fleet_load.py --data DIR      DIR: the tables named in benchmarks/data/NOTICE.md

Times of day are kept, in UTC; days are laid over each other so that all four have six whole days, the last
of them a working day of each. What a source does not tell is put in by the constants below and said so
in NOTICE.md.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

OUT = Path(__file__).parent / "data" / "fleet_load.csv.gz"
START = pd.Timestamp("2026-01-02")  # any Friday: six days, to Wednesday
DAYS, STEP, STEPS_PER_DAY = 6, pd.Timedelta(minutes=10), 144
CODE_OUTPUT_TOKENS = (
    28.0  # a request; mean of the code service in the same publisher's trace of 2023
)
OFFICE_INPUT_TOKENS, OFFICE_OUTPUT_TOKENS = (
    1200.0,
    200.0,
)  # a request: assumed, its figure has prompt tokens
OFFICE_DAYS = (5, 6, 0, 1, 2, 3)  # of its week: two quiet days, then four working days
CLIENT, CLIENT_SINCE = 66, pd.Timestamp("2025-04-04")
COLUMNS = ["requests", "input_tokens", "output_tokens"]


def code(data: Path) -> pd.DataFrame:
    frame = pd.read_parquet(data / "minute" / "azure2024_code_10min_digitised.parquet")
    frame = frame.iloc[: DAYS * STEPS_PER_DAY]
    return frame.assign(output_tokens=frame.requests * CODE_OUTPUT_TOKENS)[COLUMNS]


def client(data: Path) -> pd.DataFrame:
    """One customer of an API with a working day in China: peaks when the others' nights are."""
    frame = pd.read_parquet(data / "traces" / "servegen_clients.parquet")
    frame = frame[(frame.service == "servegen-m-mid") & (frame.client == CLIENT)]
    frame = frame[frame.timestamp >= CLIENT_SINCE].iloc[: DAYS * STEPS_PER_DAY]
    requests = (frame.rate_rps * STEP.total_seconds()).where(~frame.gap)
    return pd.DataFrame(
        {
            "requests": requests,
            "input_tokens": requests * frame.mean_input_tokens,
            "output_tokens": requests * frame.mean_output_tokens,
        }
    )


def api(data: Path) -> pd.DataFrame:
    """All customers of a large model's API: no daily cycle, shifts of regime."""
    frame = pd.read_parquet(data / "minute" / "servegen_10min.parquet")
    frame = frame[(frame.service == "servegen-m-large") & (frame.timestamp >= CLIENT_SINCE)]
    return frame.iloc[: DAYS * STEPS_PER_DAY][COLUMNS]


def office(data: Path) -> pd.DataFrame:
    frame = pd.read_parquet(data / "minute" / "o365_sageserve_digitised.parquet")
    tokens = frame[frame.service == "o365-A-prod"].sort_values("t_s").input_tokens.to_numpy()
    steps = tokens.reshape(7, STEPS_PER_DAY, 10).sum(axis=2)[list(OFFICE_DAYS)].ravel()
    requests = steps / OFFICE_INPUT_TOKENS
    return pd.DataFrame(
        {
            "requests": requests,
            "input_tokens": steps,
            "output_tokens": requests * OFFICE_OUTPUT_TOKENS,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    at = START + STEP * np.arange(DAYS * STEPS_PER_DAY)
    made = {"code": code, "agent": client, "api": api, "office": office}
    frames = [f(data).set_index(at).assign(service=name) for name, f in made.items()]
    out = pd.concat(frames).rename_axis("timestamp").reset_index()
    out = out[["timestamp", "service", *COLUMNS]].round(dict.fromkeys(COLUMNS, 0))
    out.to_csv(OUT, index=False, compression={"method": "gzip", "mtime": 0})
    print(f"{OUT}: {len(out)} rows, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
