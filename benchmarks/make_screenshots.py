"""The pictures of the README and the site: the demo's terminal and report, as they are. Needs Chromium.

    python benchmarks/make_screenshots.py [--out docs/images] [--demo out/demo]    # or: make screenshots

Runs `foreserve demo` (80 s on two cores), and shows what it printed and the top of what it wrote.
"""

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 120
TERMINAL_PIXELS = 1160  # wide
REPORT_PIXELS = (1200, 1500)
COLOURS = 192  # a palette: pictures of a page need no more, and stay small
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--demo", type=Path, default=Path("out/demo"))
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("chromium is not on PATH; needed for pictures (Debian: apt install chromium)")
    asked.out.mkdir(parents=True, exist_ok=True)
    printed = run_demo(asked.demo)
    with tempfile.TemporaryDirectory() as scratch:
        page, size = terminal_page(printed, Path(scratch))
        picture(chromium, page, size, asked.out / "terminal.png")
    picture(chromium, asked.demo / "report.html", REPORT_PIXELS, asked.out / "report.png")


def run_demo(out: Path) -> str:
    """Return what the demo prints on a terminal of COLUMNS columns, colours included."""
    command = [
        sys.executable,
        "-c",
        "from autoscaler.cli import main; main()",
        "demo",
        "--out",
        str(out),
    ]
    terminal = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    return subprocess.run(
        command, env=terminal, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def terminal_page(printed: str, folder: Path) -> tuple[Path, tuple[int, int]]:
    """Return a page that looks like the terminal, and its width and height in pixels."""
    with (folder / "nothing").open("w") as nothing:
        console = Console(record=True, width=COLUMNS, file=nothing)
        console.print(Text.from_ansi(f"$ make demo\n{printed.strip()}"))
        path = folder / "terminal.svg"
        path.write_text(console.export_svg(title="foreserve", theme=MONOKAI), encoding="utf-8")
        page = folder / "terminal.html"
        style = "body{margin:0;background:#fff}svg{width:100%}@font-face{font-family:none}"
        svg = path.read_text(encoding="utf-8")
        page.write_text(f"<!doctype html><style>{style}</style>{svg}", encoding="utf-8")
    width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0])
    return page, (TERMINAL_PIXELS, math.ceil(TERMINAL_PIXELS * height / width))


def picture(chromium: str, page: Path, size: tuple[int, int], out: Path) -> None:
    """Take a page's top as a PNG with a palette, without a network."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            *(chromium, *FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000"),
            *(f"--screenshot={out.resolve()}", page.resolve().as_uri()),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=180)
    with Image.open(out) as taken:
        taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
