"""Time to write a report of 10,000 items, and to open its page in headless Chromium.

    python benchmarks/page.py [ITEMS]

Needs a Chromium on the PATH. The runs are synthetic: two evaluate runs of three conditions and two certify runs.
"open" is the time from navigation until the table of items and all curves are drawn.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from synthetic import ATTACKS, certified, evaluated, write_run

from safemed_eval.core import MODALITIES, QUESTION_TYPES
from safemed_eval.report import read_all
from safemed_eval.report.page import write_page

OPENINGS = 5


def main(items: int) -> None:
    rng = np.random.default_rng(0)
    slices = [
        {"modality": str(rng.choice(MODALITIES)), "question_type": str(rng.choice(QUESTION_TYPES))}
        for _ in range(items)
    ]
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for name, right in (("sft", (0.95, 0.5, 0.2)), ("at-grpo", (0.85, 0.8, 0.75))):
            answers = [
                evaluated(i, attack, bool(rng.random() < share), **slices[i])
                for attack, share in zip(ATTACKS, right, strict=True)
                for i in range(items)
            ]
            votes = [certified(i, int(rng.integers(400, 1001)), **slices[i]) for i in range(items)]
            runs.append(str(write_run(Path(folder, f"e-{name}"), answers, "evaluate", names={"model": name})))
            runs.append(str(write_run(Path(folder, f"c-{name}"), votes, "certify", names={"model": name})))
        started = time.perf_counter()
        loaded = read_all(runs)
        read = time.perf_counter() - started
        page = Path(folder, "report.html")
        write_page(loaded, page, title="benchmark")
        written = time.perf_counter() - started - read
        print(f"{items:,} items: read {read:.1f} s, page written {written:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
        print("open:", ", ".join(f"{seconds:.2f} s" for seconds in opened(page)))


def opened(page: Path) -> list[float]:
    """Measure the seconds of each opening."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    seconds = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(OPENINGS):
            tab = browser.new_page()
            started = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready]")
            seconds.append(time.perf_counter() - started)
            tab.close()
        browser.close()
    return seconds


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
