"""Statements about further questions, and what n and alpha buy."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import SMOOTHING, certified, write_run
from test_cli import call

from safemed_eval import stats
from safemed_eval.report import Run
from safemed_eval.report.analyses.population import DELTA, population_of
from safemed_eval.smoothing import Smoothing, View
from safemed_eval.smoothing.offers import offers


def bound(right: np.ndarray[Any, Any], clusters: np.ndarray[Any, Any], alpha: float) -> float:
    """The statement, as `population_of` makes it of a run's rows."""
    share = stats.clustered_proportion(right, clusters, alpha=2 * DELTA)
    assert share.lower is not None
    return share.lower - alpha


@pytest.mark.parametrize(("patients", "each", "rho"), [(300, 1, 0.0), (60, 5, 0.3), (40, 3, 0.95)])
def test_the_statement_holds_as_often_as_it_says(patients: int, each: int, rho: float) -> None:
    """Beta-binomial patients, and certificates that are false as often as alpha allows."""
    rng, alpha, certified_share, held = np.random.default_rng(0), 0.01, 0.85, 0
    clusters = np.repeat(np.arange(patients), each)
    for _ in range(400):
        if rho:
            a = (1 - rho) / rho
            chances = rng.beta(certified_share * a, (1 - certified_share) * a, patients)
        else:
            chances = np.full(patients, certified_share)
        right = rng.random(patients * each) < chances[clusters]
        held += bound(right, clusters, alpha) <= certified_share - alpha
    assert held / 400 >= 1 - DELTA - 0.03


def run_of(tmp_path: Path, votes: list[int], **changes: Any) -> Run:
    records = [certified(number, k, patient_id=f"p{number}") for number, k in enumerate(votes)]
    return Run.read(write_run(tmp_path / "run", records, "certify", **changes))


def test_it_is_clopper_and_pearsons_bound_less_alpha(tmp_path: Path) -> None:
    said = population_of(run_of(tmp_path, [1000] * 45 + [500] * 5))
    assert said.why_not is None and said.confidence == 0.95
    lower = stats.clopper_pearson_lower(45, 50, 0.05) - SMOOTHING.alpha
    assert said.at_least["0"] == pytest.approx(lower) and said.at_least["2s"] == pytest.approx(lower)
    assert "80.0 % at r>=0" in str(said) and 0.800 <= lower < 0.801, "rounded down"


@pytest.mark.parametrize(
    ("votes", "changes", "why"),
    [
        ([1000] * 5, {}, "fewer than ten"),
        ([1000] * 30, {"spec": {"select": {"per_group": 1}}}, "no random sample"),
        ([1000] * 30, {"items": 31}, "not finished"),
    ],
)
def test_nothing_is_said_where_nothing_is_known(
    votes: list[int], changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    said = population_of(run_of(tmp_path, votes, **changes))
    assert said.why_not is not None and why in said.why_not
    assert set(said.at_least.values()) == {None} and "%" not in str(said)


def test_alpha_and_n_buy_a_ceiling() -> None:
    """At n = 1,000 alpha = 0.01 costs one point and lifts the ceiling from 2.46 to 2.60 sigma."""
    asked = Smoothing(noise="float32", sigma=0.5, n0=100, n=1000, alpha=0.001)
    own, looser, fewer, more = offers(asked, None, 200)
    assert own.ceiling == asked.ceiling and own.ceiling / 0.5 == pytest.approx(2.463, abs=1e-3)
    assert looser.ceiling is not None and looser.ceiling / 0.5 == pytest.approx(2.605, abs=1e-3)
    assert (looser.points, looser.false_at_most, looser.copies) == (1.0, 2.0, 1100)
    assert fewer.ceiling is not None and more.ceiling is not None and fewer.ceiling < own.ceiling < more.ceiling
    assert [offer.n for offer in offers(replace(asked, n=30), None, 200)] == [30, 30, 300], "3 copies certify nothing"
    canvas = View(height=384, width=384)
    exact = offers(Smoothing(sigma=0.5, n0=100, n=1000), canvas, 1)[0]
    assert exact.ceiling is not None and exact.ceiling < own.ceiling, "less what the sampler misses"
    assert set(asdict(own)) == {"n", "alpha", "ceiling", "copies", "false_at_most", "points"}


def test_a_run_ends_with_the_statement(tmp_path: Path) -> None:
    run_of(tmp_path, [1000] * 45 + [500] * 5)
    code, _ = call("report", tmp_path / "run", "--out", tmp_path / "report")
    assert (
        code == 0
        and "at least this share of them is answered rightly" in next((tmp_path / "report").glob("*.html")).read_text()
    )
