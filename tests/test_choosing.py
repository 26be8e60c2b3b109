"""docs/choosing.md: every number of its tables, computed again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scipy import stats as sps

from safemed_eval.report import Run
from safemed_eval.rounding import floor_to
from safemed_eval.smoothing import Smoothing, View
from safemed_eval.stats import clopper_pearson_lower, clopper_pearson_upper

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")


def rows_below(head: str) -> list[list[str]]:
    """The cells of the table that begins with this heading, without its heading."""
    table = PAGE.partition(f"\n| {head}")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def ceiling(sigma: float, n: int, alpha: float, side: int = 384) -> float:
    found = Smoothing(sigma=sigma, n=n, alpha=alpha).ceiling_on(View(height=side, width=side))
    assert found is not None
    return found


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_ceilings_by_n_and_sigma() -> None:
    rows = rows_below("n | sigma 0.12")
    assert len(rows) == 7
    for n, *cells in rows:
        expected = [ceiling(sigma, int(number(n)), 0.001) for sigma in (0.12, 0.25, 0.5, 1.0)]
        assert cells == [f"{floor_to(value, 3):.3f}" for value in expected], n


def test_ceilings_by_alpha_and_how_many_are_false() -> None:
    rows = rows_below("alpha | ceiling, n = 100")
    assert len(rows) == 4
    for alpha, *cells, expected, most in rows:
        value = float(alpha)
        assert cells == [f"{floor_to(ceiling(0.25, n, value), 3):.3f}" for n in (100, 1000, 10_000)]
        assert float(expected) == pytest.approx(1000 * value)
        assert int(most) == sps.binom.ppf(0.95, 1000, value)


def test_ceilings_and_grey_levels_by_canvas() -> None:
    rows = rows_below("canvas | ceiling")
    assert len(rows) == 4
    for size, top, levels in rows:
        side = int(size.partition("x")[0])
        assert top == f"{floor_to(ceiling(0.25, 1000, 0.001, side), 3):.3f}"
        assert levels == f"{floor_to(255 * 0.5 / (3 * side * side) ** 0.5, 3):.3f}"


def test_what_the_text_says_of_them() -> None:
    gains = [ceiling(0.25, 10 * n, 0.001) / ceiling(0.25, n, 0.001) - 1 for n in (100, 1000)]
    assert [int(100 * gain) for gain in gains] == [63, 25]
    clean, proved = (
        Run.read(ROOT / f"reports/grounded/{kind}-sft").accuracy().loc["all"] for kind in ("evaluate", "certify")
    )
    assert (int(100 * clean["clean"]), int(100 * proved["r>=0"])) == (96, 52)
    for patients, points in ((100, 8), (1000, 2.5)):
        right = 8 * patients // 10
        half = (clopper_pearson_upper(right, patients, 0.025) - clopper_pearson_lower(right, patients, 0.025)) / 2
        assert 100 * half == pytest.approx(points, rel=0.1)
    assert clopper_pearson_upper(0, 59, 0.05) <= 0.05 < clopper_pearson_upper(0, 58, 0.05)


def test_the_commands_of_the_page_exist() -> None:
    for option in ("--limit 300", "--per-group 20", "--paper", "--sampling sequential --radii 0.5s,1s"):
        assert option in PAGE
    assert not re.search(r"[^\x00-\x7f]", PAGE)
