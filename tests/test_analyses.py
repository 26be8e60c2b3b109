"""Calibration, selective answers, groups and odds ratios, against closed forms, brute force and statsmodels."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from matplotlib.figure import Figure
from scipy import stats as sps
from synthetic import certified, evaluated, write_run
from test_cli import call

from safemed_eval import stats
from safemed_eval.errors import SpecError
from safemed_eval.report import Run
from safemed_eval.report.analyses.bounded import bounded_mean
from safemed_eval.report.analyses.calibration import (
    calibration,
    calibration_errors,
    count_bins,
    width_bins,
)
from safemed_eval.report.analyses.falling import REFERENCE, falling, odds_of, separated
from safemed_eval.report.analyses.selective import Selective, accuracy_at, aurc, errors_among, selective
from safemed_eval.report.analyses.subgroups import extremes, extremes_of
from safemed_eval.report.columns import columns_of
from safemed_eval.report.drawing.style import style
from safemed_eval.report.figures import drawer
from safemed_eval.report.page import write_page
from safemed_eval.report.run import with_columns
from safemed_eval.report.tables import tables_of
from safemed_eval.smoothing import Voting, read_prediction

PGD = "pgd:eps=4/255,steps=10"


def log_probs(confidence: float, answer: int) -> list[float]:
    """Three options; the answer has this probability, the others the same."""
    probabilities = [(1 - confidence) / 2] * 3
    probabilities[answer] = confidence
    return [float(value) for value in np.log(probabilities)]


def answer(number: int, confidence: float, right: bool, attack: str = "clean", **changes: Any) -> dict[str, Any]:
    return evaluated(number, attack, right, log_probs=log_probs(confidence, 1 if right else 0), **changes)


def run_of(folder: Path, records: list[dict[str, Any]], conditions: tuple[str, ...] = ("clean",), **meta: Any) -> Run:
    return Run.read(write_run(folder, records, "evaluate", conditions=conditions, **meta))


# --------------------------------------------------------------------------------------------------------- calibration


def simulated(n: int, over: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and outcomes of a model that is right less often than it says by `over`."""
    sure = rng.uniform(0.5, 1.0, n)
    return sure, (rng.random(n) < sure - over).astype(float)


def test_ece_of_bins_by_hand() -> None:
    """Two bins: 0.9 said and 3 of 4 right, 0.6 said and 2 of 2 right: (4 * 0.15 + 2 * 0.4) / 6."""
    sure, right = np.array([0.9] * 4 + [0.6] * 2), np.array([1.0, 1, 1, 0, 1, 1])
    found = calibration_errors(sure, right, np.arange(6), width_bins(sure))
    assert found.ece.value == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)
    assert found.ece.lower <= found.ece.value <= found.ece.upper


def test_bins_hold_their_upper_ends() -> None:
    assert width_bins(np.array([0.0, 1 / 15, 1 / 15 + 1e-6, 1.0])).tolist() == [0, 0, 1, 14]
    equal = count_bins(np.linspace(0, 1, 150))
    assert set(np.bincount(equal)) == {10}
    assert len(set(count_bins(np.array([0.5] * 90 + [0.7] * 10)))) <= 2  # equal confidences share a bin


def test_a_calibrated_model_has_no_error_beyond_chance_and_an_overconfident_one_has_its_own() -> None:
    rng = np.random.default_rng(0)
    covered = {0.0: 0, 0.2: 0}
    for over in covered:
        for _ in range(100):
            sure, right = simulated(400, over, rng)
            found = calibration_errors(sure, right, np.arange(400), width_bins(sure))
            covered[over] += found.ece.lower <= over <= found.ece.upper
        assert found.by_chance is not None and 0.02 < found.by_chance < 0.1
    assert min(covered.values()) >= 90, covered
    sure, right = simulated(100_000, 0.2, rng)
    assert calibration_errors(sure, right, np.arange(100_000), width_bins(sure)).ece.value == pytest.approx(
        0.2, abs=0.01
    )
    sure, right = simulated(100_000, 0.0, rng)
    assert calibration_errors(sure, right, np.arange(100_000), count_bins(sure)).ece.value < 0.01


def test_copies_of_an_item_in_one_cluster_say_no_more_than_one() -> None:
    sure, right = simulated(200, 0.1, np.random.default_rng(1))
    one = calibration_errors(sure, right, np.arange(200), width_bins(sure)).ece
    many = calibration_errors(sure.repeat(5), right.repeat(5), np.arange(200).repeat(5), width_bins(sure.repeat(5))).ece
    assert (many.value, many.lower, many.upper) == pytest.approx((one.value, one.lower, one.upper))


def test_clusters_that_agree_prove_no_calibration() -> None:
    """All certain and all right: 0, but 40 items leave open what `unseen_share` says."""
    found = calibration_errors(np.ones(40), np.ones(40), np.arange(40), width_bins(np.ones(40))).ece
    assert (found.value, found.lower) == (0, 0)
    assert found.upper == pytest.approx(1 - 0.025 ** (1 / 40))


def test_calibration_of_a_run(tmp_path: Path) -> None:
    records = [answer(i, 0.9, i % 2 == 0) for i in range(20)]
    records += [evaluated(20, "clean", False, prediction=None, log_probs=None, error="broken")]
    run = run_of(tmp_path / "run", records)
    found = calibration(run, run.answers)
    assert (found.n, found.without, found.accuracy) == (20, {"failed": 1}, 0.5)
    assert found.ece is not None and found.brier is not None and found.over is not None
    assert (found.ece.value, found.over.value) == pytest.approx((0.4, 0.4))
    right, wrong = 0.1**2 + 2 * 0.05**2, 0.9**2 + 0.95**2 + 0.05**2
    assert found.brier.value == pytest.approx((right + wrong) / 2)
    assert 0 <= found.brier.lower < found.brier.value < found.brier.upper <= 2
    assert [cell.accuracy.n for cell in found.bins] == [20]


def test_log_probabilities_that_do_not_sum_to_one_are_scaled(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [evaluated(0, "clean", True, log_probs=[-3.0, -1.0, -3.0])])
    assert run.answers.confidences[0] == pytest.approx(1 / (1 + 2 * np.exp(-2)))


def test_answers_without_probabilities_have_none_and_a_reason(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [evaluated(i, "clean", True, log_probs=None) for i in range(3)])
    found = calibration(run, run.answers)
    assert found.without == {"the model gives none": 3}
    assert (found.ece, found.brier, found.over, found.accuracy) == (None, None, None, None)
    assert selective(run, run.answers) == "answers have no probabilities"
    cells = {table.name: table for table in tables_of([run], radii=None)}["calibration"].shown
    assert cells["ECE"].tolist() == ["n/a"] and cells["without probabilities"].tolist() == ["3 the model gives none"]


# ----------------------------------------------------------------------------------------------------------- selective


def test_errors_and_area_are_the_mean_over_all_orders_of_ties() -> None:
    sure, wrong = np.array([0.9, 0.5, 0.5, 0.5, 0.2]), np.array([False, True, False, True, True])
    orders = []
    for order in itertools.permutations(range(5)):
        if all(sure[a] >= sure[b] for a, b in itertools.pairwise(order)):
            orders.append(np.cumsum(wrong[list(order)]))
    expected = np.mean(orders, axis=0)
    assert errors_among(sure, wrong) == pytest.approx(expected)
    found = aurc(sure, wrong, np.arange(5))
    assert found.value == pytest.approx((expected / np.arange(1, 6)).mean())
    accuracy = accuracy_at(0.6, sure, wrong, np.arange(5))
    assert accuracy.value == pytest.approx(1 - expected[2] / 3)
    assert accuracy.lower <= accuracy.value <= accuracy.upper


def test_area_against_its_integral_and_the_interval_covers_it() -> None:
    """Right with probability c, c uniform: risk at coverage q is q / 2, its area 1/4."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        sure = rng.random(300)
        found = aurc(sure, rng.random(300) > sure, np.arange(300))
        covered += found.lower <= 0.25 <= found.upper
    assert covered >= 90


def test_copies_say_no_more_about_the_area() -> None:
    rng = np.random.default_rng(2)
    sure = rng.random(200)
    wrong = rng.random(200) > sure
    one = aurc(sure, wrong, np.arange(200))
    many = aurc(sure.repeat(4), wrong.repeat(4), np.arange(200).repeat(4))
    assert (many.upper - many.lower) == pytest.approx(one.upper - one.lower, rel=0.1)


def test_a_model_without_errors_is_not_proved_to_have_none() -> None:
    found = aurc(np.linspace(0, 1, 50), np.zeros(50, dtype=bool), np.arange(50))
    assert (found.value, found.lower) == (0, 0)
    assert found.upper == pytest.approx(1 - 0.025 ** (1 / 50))


def test_failed_items_come_last_as_errors(tmp_path: Path) -> None:
    records = [answer(i, 0.9 - i / 100, True) for i in range(8)]
    records += [evaluated(i, "clean", False, prediction=None, log_probs=None, error="broken") for i in (8, 9)]
    run = run_of(tmp_path / "run", records)
    found = selective(run, run.answers)
    assert isinstance(found, Selective)
    assert (found.n, found.answered) == (10, 8)
    assert [found.accuracy[share].value for share in (1.0, 0.8, 0.5)] == pytest.approx([0.8, 1, 1])
    assert found.aurc.value == pytest.approx((1 / 9 + 2 / 10) / 10)
    assert found.best == pytest.approx(found.aurc.value)


def test_certificates_are_ordered_by_their_bound_and_abstentions_come_last(tmp_path: Path) -> None:
    records = [certified(0, 1000), certified(1, 900), certified(2, 950, chosen=0), certified(3, 500)]
    run = Run.read(write_run(tmp_path / "run", records, "certify"))
    found = selective(run, run.certificates)
    assert isinstance(found, Selective)
    assert (found.answered, found.confidence) == (3, "p_lower")
    assert [risk for _, risk in found.curve] == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])


def test_votes_order_the_answers_of_a_smoothed_model(tmp_path: Path) -> None:
    voting = Voting(sigma=0.25, n=100, alpha=0.001, m=1)
    records = []
    for number, votes in enumerate([(0, 100, 0, 0), (90, 10, 0, 0), (0, 95, 5, 0), (50, 50, 0, 0)]):
        read = read_prediction(votes, voting.alpha)
        right = read.prediction == 1
        fields = {"prediction": read.prediction, "p_value": read.p_value, "abstained": read.abstained, "votes": votes}
        records.append(evaluated(number, "clean", right, log_probs=None, **fields))
    run = run_of(tmp_path / "run", records, spec={"smooth": vars(voting)})
    found = selective(run, run.answers)
    assert isinstance(found, Selective)
    assert (found.answered, found.confidence) == (3, "share of votes")
    assert [risk for _, risk in found.curve] == pytest.approx([0, 0, 1 / 3, 2 / 4])


def test_a_bounded_mean_is_the_weighted_one_and_stays_in_range() -> None:
    found = bounded_mean(np.array([0.0, 1, 1]), np.arange(3), low=0, high=1, weights=np.array([1.0, 1, 0.5]))
    assert found is not None and found.value == pytest.approx(1.5 / 2.5)
    assert 0 <= found.lower <= found.value <= found.upper <= 1
    assert bounded_mean(np.zeros(0), np.zeros(0, dtype=int), low=0, high=1) is None


# -------------------------------------------------------------------------------------------------------------- groups


def grouped_run(folder: Path, n: int = 80, names: dict[str, str] | None = None, **extra: Any) -> Run:
    """Items with an age from 20 on, missing for each tenth, two sites, and a rare third one; site B falls."""
    records = []
    for i in range(n):
        site = "C" if i < 4 else "AB"[i % 2]
        values = {"age": "" if i % 10 == 0 else str(20 + i), "site": site, **extra}
        for attack in ("clean", PGD):
            right = attack == "clean" or (site != "B" and i % 4 != 0) or i % 8 == 1
            records.append(answer(i, 0.8, right, attack, extra=values))
    return run_of(folder, records, ("clean", PGD), names=names or {})


def test_numbers_are_cut_at_quartiles_of_values_that_occur(tmp_path: Path) -> None:
    run = grouped_run(tmp_path / "run")
    (age, site) = columns_of(run.records, "AGE, site")
    ages = sorted(20 + i for i in range(80) if i % 10)
    assert (age.name, site.name, site.edges) == ("age", "site", None)
    assert age.edges == (ages[0], ages[17], ages[35], ages[53], ages[-1])
    sizes = {name: len(part) // 2 for name, part in run.answers.split(age).items()}
    assert sizes == {
        f"Q1 [{ages[0]}, {ages[17]}]": 18,
        f"Q2 ({ages[17]}, {ages[35]}]": 18,
        f"Q3 ({ages[35]}, {ages[53]}]": 18,
        f"Q4 ({ages[53]}, {ages[-1]}]": 18,
        "unknown": 8,
    }


def test_few_different_numbers_are_categories_in_their_order(tmp_path: Path) -> None:
    records = [answer(i, 0.8, True, extra={"grade": str(i % 10 + 1)}) for i in range(40)]
    run = run_of(tmp_path / "run", records)
    assert run.accuracy(by="grade").index.tolist() == [str(grade) for grade in range(1, 11)]


def test_data_sets_with_the_same_ids_are_cut_into_groups_that_hold_their_values(tmp_path: Path) -> None:
    """Both sets number their items from 0; the second one's ages must not stand for those of the first."""
    young = [answer(i, 0.8, True, extra={"age": str(20 + i)}) for i in range(40)]
    old = [answer(i, 0.8, True, extra={"age": str(60 + i)}, image=f"o{i}.png", image_sha256=None) for i in range(40)]
    runs = with_columns([run_of(tmp_path / "a", young), run_of(tmp_path / "b", old, spec={"data": "other"})], "age")
    sizes = [{name: len(part) for name, part in run.answers.split(run.by[0]).items()} for run in runs]
    assert sizes == [{"Q1 [20, 39]": 20, "Q2 (39, 59]": 20}, {"Q3 (59, 79]": 20, "Q4 (79, 99]": 20}]


def test_runs_that_are_grouped_already_are_reported_with_others(tmp_path: Path) -> None:
    """A report of runs one of which was grouped breaks all of them down alike."""
    one, two = grouped_run(tmp_path / "a"), grouped_run(tmp_path / "b", names={"model": "other"})
    for runs in ([one.grouped("site"), two], [one, two.grouped("site")], [one.grouped("age"), two.grouped("site")]):
        shown = with_columns(runs, None)
        assert shown[0].by == shown[1].by != ()
        assert {"accuracy-by-site", "odds"} <= {table.name for table in tables_of(shown, radii=None)}
    assert with_columns([one, two], None) == [one, two]


@pytest.mark.parametrize("name", ["question type", "model", "modality (data)"])
def test_columns_that_are_called_as_those_of_the_tool_have_odds_of_their_own(tmp_path: Path, name: str) -> None:
    (run,) = with_columns([grouped_run(tmp_path / "run", **{name: "x", "model (data)": "y"})], f"{name},model (data)")
    (found,) = falling([run])
    columns = list(dict.fromkeys(odds.column for odds in found.odds))
    assert len(columns) == 3 + len(run.by) and {odds.n for odds in found.odds if odds.level in "xy"} == {80}


def test_a_table_is_of_one_column(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="name one column"):
        grouped_run(tmp_path / "run").accuracy(by="age,site")


def test_an_unknown_column_is_one_line_before_any_compute(tmp_path: Path) -> None:
    run = grouped_run(tmp_path / "run", scanner=" ")
    line = "--by agge: the data have no such column; did you mean 'age'?"
    assert call("report", run.where, "--out", tmp_path / "r", "--by", "site,agge") == (2, line)
    assert not (tmp_path / "r").exists()
    with pytest.raises(SpecError, match=r"--by scanner: no item has a value in this column"):
        with_columns([run], "scanner")


def test_the_worst_group_has_an_interval_that_holds_for_all(tmp_path: Path) -> None:
    run = with_columns([grouped_run(tmp_path / "run")], "site")[0]
    rows = run.answers.under(PGD)
    found = extremes(rows.correct, rows.clusters, rows.names(run.by[0]))
    assert (found.groups, found.left_out) == (2, ("C",))  # four items are too few to compare
    assert found.worst is not None and found.best is not None and found.gap is not None
    b = rows.where(rows.names(run.by[0]) == "B")
    expected = b.share(b.correct, alpha=0.05 / 2)
    assert found.worst[0] == "B" and found.best[0] == "A"
    assert (found.worst[1].value, found.worst[1].lower, found.worst[1].upper) == pytest.approx(
        (expected.estimate, expected.lower, expected.upper)
    )
    assert found.gap.value == pytest.approx(found.best[1].value - found.worst[1].value)
    assert found.gap.lower <= found.gap.value <= found.gap.upper


def test_a_group_that_failed_is_not_the_worst(tmp_path: Path) -> None:
    """All images of site C are lost under attack: that is no accuracy of 0 %."""
    lost = {"prediction": None, "log_probs": None, "error": "broken"}
    records = [answer(i, 0.8, True, extra={"site": "ABC"[i % 3]}) for i in range(90)]
    for i in range(90):
        right, changes = i % 3 == 0 or (i % 3 == 1 and i % 2 == 0), lost if i % 3 == 2 else {}
        records.append(answer(i, 0.8, right, PGD, extra={"site": "ABC"[i % 3]}) | changes)
    run = run_of(tmp_path / "run", records, ("clean", PGD)).grouped("site")
    found = dict(extremes_of(run, run.by[0]))[PGD]
    assert found.worst is not None and (found.worst[0], found.worst[1].value, found.left_out) == ("B", 0.5, ("C",))


def test_intervals_of_worst_and_gap_cover_though_they_were_looked_for() -> None:
    """Ten groups that are all alike: the worst looks bad by chance; the true gap is 0."""
    rng = np.random.default_rng(0)
    names = np.array([f"g{i % 10}" for i in range(400)], dtype=object)
    worst = gap = alone = 0
    for _ in range(60):
        right = rng.random(400) < 0.7
        found = extremes(right, np.arange(400), names)
        assert found.worst is not None and found.gap is not None
        worst += found.worst[1].lower <= 0.7 <= found.worst[1].upper
        gap += found.gap.lower == 0
        single = stats.clustered_proportion(right[names == found.worst[0]], np.arange(40))
        alone += single.upper is not None and single.upper >= 0.7
    assert worst >= 57 and gap >= 57
    assert alone < 54  # an interval for one group alone would not hold


def test_a_true_gap_is_covered_and_seen() -> None:
    rng = np.random.default_rng(1)
    chances = np.repeat([0.5, 0.7, 0.9], 200)
    names = np.repeat(np.array(["a", "b", "c"], dtype=object), 200)
    gaps = [extremes(rng.random(600) < chances, np.arange(600), names).gap for _ in range(60)]
    assert sum(gap is not None and gap.lower <= 0.4 <= gap.upper for gap in gaps) >= 56
    assert all(gap is not None and gap.lower > 0 for gap in gaps)


def test_groups_that_share_clusters_against_each_other_get_wider_gaps() -> None:
    """In each cluster one group is right where the other is wrong: the difference varies twice as much."""
    flips = np.random.default_rng(0).random(100) < 0.5
    successes = np.concatenate([flips, ~flips])
    names = np.repeat(np.array(["a", "b"], dtype=object), 100)
    apart = extremes(successes, np.arange(200), names).gap
    shared = extremes(successes, np.tile(np.arange(100), 2), names).gap
    assert apart is not None and shared is not None
    assert shared.upper - shared.value == pytest.approx(np.sqrt(2) * (apart.upper - apart.value), rel=0.05)


def test_tables_and_accuracy_by_a_column(tmp_path: Path) -> None:
    run = with_columns([grouped_run(tmp_path / "run")], "site,age")[0]
    tables = {table.name: table for table in tables_of([run], radii=None)}
    assert {"accuracy-by-site", "accuracy-by-age", "calibration-by-site", "selective-by-age", "worst-groups"} <= set(
        tables
    )
    shares = run.accuracy(by="site")
    assert shares.index.tolist() == ["A", "B", "C"] and shares["n"].sum() == 80
    assert tables["accuracy-by-age"].shown["age"].iloc[-1] == "unknown"
    worst = tables["worst-groups"].values
    assert set(worst["groups of"]) == {"site", "age"}
    assert "worst accuracy" in set(worst["column"])


def test_a_column_of_the_name_of_a_figure_keeps_its_own(tmp_path: Path) -> None:
    records = [answer(i, 0.8, True, extra={"items": "x" if i % 2 else "y"}) for i in range(8)]
    run = with_columns([run_of(tmp_path / "run", records)], "items")[0]
    shown = {table.name: table for table in tables_of([run], radii=None)}["accuracy-by-items"].shown
    assert shown["items (data)"].tolist() == ["x", "y"] and shown["items"].tolist() == ["4", "4"]


# ---------------------------------------------------------------------------------------------------------------- odds


def names_of(codes: np.ndarray, letter: str) -> np.ndarray:
    return np.array([f"{letter}{code}" for code in codes], dtype=object)


def test_the_odds_ratio_of_two_groups_is_that_of_their_table() -> None:
    """40 of 100 against 20 of 100: (40 / 60) / (20 / 80)."""
    fallen = np.array([True] * 40 + [False] * 60 + [True] * 20 + [False] * 80)
    odds, reason = odds_of(fallen, np.arange(200), {"site": names_of(np.repeat([1, 0], 100), "s")})
    assert reason == "" and [level.level for level in odds] == ["s0", "s1"]
    assert odds[0].reason == REFERENCE and odds[0].ratio is None
    assert odds[1].ratio == pytest.approx((40 / 60) / (20 / 80))
    assert odds[1].lower is not None and odds[1].upper is not None and 1 < odds[1].lower < odds[1].upper


def test_odds_ratios_are_those_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    site, modality = rng.choice(3, 600, p=[0.5, 0.3, 0.2]), rng.choice(2, 600, p=[0.6, 0.4])
    fallen = rng.random(600) < 1 / (1 + np.exp(-(-0.5 + 0.8 * site + 0.5 * modality)))
    odds, _ = odds_of(fallen, np.arange(600), {"site": names_of(site, "s"), "modality": names_of(modality, "m")})
    design = np.column_stack([np.ones(600), site == 1, site == 2, modality == 1]).astype(float)
    expected = sm.Logit(fallen.astype(float), design).fit(disp=0)
    found = {level.level: level for level in odds if level.ratio is not None}
    assert [np.log(found[name].ratio or 0) for name in ("s1", "s2", "m1")] == pytest.approx(
        expected.params[1:], abs=1e-4
    )
    widths = [np.log(found[name].upper or 0) - np.log(found[name].lower or 1) for name in ("s1", "s2", "m1")]
    assert widths == pytest.approx(2 * 1.96 * expected.bse[1:], rel=0.1)


def test_copies_in_one_cluster_say_no_more() -> None:
    rng = np.random.default_rng(1)
    site = rng.choice(2, 200, p=[0.6, 0.4])
    fallen = rng.random(200) < 0.3 + 0.2 * site
    (_, one), _ = odds_of(fallen, np.arange(200), {"site": names_of(site, "s")})
    (_, many), _ = odds_of(fallen.repeat(5), np.arange(200).repeat(5), {"site": names_of(site.repeat(5), "s")})
    assert (many.ratio, many.lower, many.upper) == pytest.approx((one.ratio, one.lower, one.upper), rel=0.02)


def test_intervals_are_those_of_generalized_estimating_equations() -> None:
    """statsmodels' GEE with Mancl and DeRouen's correction, for clusters of one to forty, too many to solve at once."""
    from statsmodels.genmod.cov_struct import Independence
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(4300), np.where(np.arange(4300) < 30, 40, 1))
    site, scanner = rng.choice(3, len(clusters), p=[0.7, 0.28, 0.02]), rng.choice(2, len(clusters), p=[0.6, 0.4])
    fallen = rng.random(len(clusters)) < 0.2 + 0.2 * site + 0.1 * rng.normal(size=4300)[clusters]
    mixed = rng.permutation(len(clusters))
    levels = {"site": names_of(site, "s")[mixed], "scanner": names_of(scanner, "x")[mixed]}
    odds, reason = odds_of(fallen[mixed], clusters[mixed], levels)
    assert not reason and [level.ratio is None for level in odds] == [True, False, False, True, False]
    design = np.column_stack([np.ones(len(clusters)), site == 1, site == 2, scanner == 1]).astype(float)
    model = GEE(fallen.astype(float), design, groups=clusters, family=Binomial(), cov_struct=Independence())
    result = model.fit(maxiter=100, cov_type="bias_reduced")
    reach = sps.t.ppf(0.975, 4300 - 4) * result.bse
    for level, estimate, half in zip((odds[1], odds[2], odds[4]), result.params[1:], reach[1:], strict=True):
        assert (level.ratio, level.lower, level.upper) == pytest.approx(
            np.exp([estimate, estimate - half, estimate + half]), rel=1e-7
        )


@pytest.mark.parametrize("fell", [True, False])
def test_a_level_where_all_or_none_fell_has_a_reason_and_no_number(fell: bool) -> None:
    rng = np.random.default_rng(2)
    site = np.repeat([0, 1, 2], [200, 100, 40])
    fallen = np.where(site == 2, fell, rng.random(340) < 0.4)
    odds, reason = odds_of(fallen, np.arange(340), {"site": names_of(site, "s")})
    assert reason == "" and odds[1].ratio is not None
    assert (odds[2].ratio, odds[2].reason) == (None, f"{'all' if fell else 'none'} of them fell")


def test_columns_that_separate_together_are_found() -> None:
    """Falls exactly where both are 1, or neither: no one column separates, nor do weights; with `and` they do."""
    a, b = np.tile([0, 0, 1, 1], 30), np.tile([0, 1, 0, 1], 30)
    design = np.column_stack([np.ones(120), a, b])
    assert not separated(a == b, design)
    assert separated((a == 1) & (b == 1), design)


def test_what_cannot_be_estimated_says_why() -> None:
    rng = np.random.default_rng(3)
    site, fallen = rng.choice(2, 200, p=[0.6, 0.4]), rng.random(200) < 0.4
    same = {"site": names_of(site, "s"), "scanner": names_of(site, "x")}
    odds, _ = odds_of(fallen, np.arange(200), same)
    assert odds[1].ratio is not None
    assert {level.reason for level in odds[2:]} == {"cannot be told apart from the columns above"}
    assert odds_of(fallen, np.arange(200) // 50, same)[1] == "too few clusters"
    rare = np.zeros(200, dtype=bool)
    rare[[np.flatnonzero(site == 0)[0], np.flatnonzero(site == 1)[0]]] = True
    assert odds_of(rare, np.arange(200), {"site": names_of(site, "s")})[1].startswith("2 items fell: too few")
    assert (
        odds_of(fallen, np.arange(200), {"site": names_of(site * 0, "s")})[1] == "no column has two levels to compare"
    )
    assert odds_of(np.zeros(0, dtype=bool), np.zeros(0, dtype=int), {"site": np.zeros(0, dtype=object)})[0] == ()


def test_runs_with_one_attack_share_a_regression(tmp_path: Path) -> None:
    """Only items that are right when clean count, and failed ones are left out; the model is a column."""
    rng = np.random.default_rng(4)
    runs = []
    for name, chance in (("weak", 0.6), ("strong", 0.3)):
        records = []
        for i in range(120):
            records.append(answer(i, 0.8, i >= 20, patient_id=f"p{i // 2}", modality="CT"))
            record = answer(i, 0.8, i >= 20 and rng.random() > chance, PGD, patient_id=f"p{i // 2}", modality="CT")
            if i == 20:
                record |= {"error": "broken", "prediction": None, "correct": False, "log_probs": None}
            records.append(record)
        runs.append(run_of(tmp_path / name, records, ("clean", PGD), names={"model": name}))
    (found,) = falling(runs)
    assert (found.condition, found.n, found.failed, found.clusters, found.reason) == (PGD, 198, 2, 50, "")
    by_level = {(level.column, level.level): level for level in found.odds}
    assert by_level["modality", "CT"].reason == "one level alone"
    weak = by_level["model", "weak"]
    strong = by_level["model", "strong"]
    assert {weak.reason, strong.reason} == {"", REFERENCE}
    assert weak.n == strong.n == 99 and weak.fallen > strong.fallen
    tables = {table.name: table for table in tables_of(runs, radii=None)}
    assert tables["odds"].shown["of"].tolist() == ["modality", "question type", "model", "model"]


def test_a_run_with_nothing_to_analyse_has_no_error(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [evaluated(0, "clean", True, log_probs=None)])
    names = [table.name for table in tables_of([run], radii=None)]
    assert "calibration" in names and "odds" not in names and "worst-groups" not in names


# ------------------------------------------------------------------------------------------------------------- figures


def drawn(kind: str, runs: list[Run]) -> dict[str, Figure]:
    with style():
        found = dict(drawer(kind)(runs))
        for figure in found.values():
            figure.draw_without_rendering()
    return found


def test_a_reliability_diagram_shows_the_bins(tmp_path: Path) -> None:
    records = [answer(i, 0.9, i % 4 != 0) for i in range(40)] + [answer(i, 0.5, i % 2 == 0) for i in range(40, 60)]
    run = run_of(tmp_path / "run", records)
    (figure,) = drawn("calibration", [run]).values()
    (axes,) = figure.axes
    points = axes.containers[-1][0].get_xydata()
    assert np.asarray(points) == pytest.approx(np.array([[50, 50], [90, 75]]))
    ece = 100 * (40 * 0.15 + 20 * 0.0) / 60
    assert axes.texts[0].get_text().startswith(f"ECE {ece:.1f}\n")
    assert drawn("calibration", [run_of(tmp_path / "none", [evaluated(0, "clean", True, log_probs=None)])]) == {}


def test_the_curve_of_selective_answers_ends_where_answers_do(tmp_path: Path) -> None:
    records = [certified(0, 1000), certified(1, 900), certified(2, 950, chosen=0), certified(3, 500)]
    run = Run.read(write_run(tmp_path / "run", records, "certify"))
    (figure,) = drawn("selective", [run]).values()
    answered, rest, last = figure.axes[0].lines
    assert np.asarray(answered.get_xydata()) == pytest.approx(np.array([[25, 100], [50, 50], [75, 200 / 3]]))
    assert np.asarray(rest.get_xydata())[-1] == pytest.approx([100, 50])
    assert np.asarray(last.get_xydata())[0] == pytest.approx([75, 200 / 3])


def test_a_forest_plot_names_references_and_reasons(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    records = []
    for i in range(150):
        modality = "CT" if i < 80 else "MRI" if i < 145 else "X-Ray"
        records.append(answer(i, 0.8, True, modality=modality))
        records.append(answer(i, 0.8, bool(rng.random() < (0.7 if i < 80 else 0.4)), PGD, modality=modality))
    run = run_of(tmp_path / "run", records, ("clean", PGD))
    ((name, figure),) = drawn("odds", [run]).items()
    (found,) = falling([run])
    axes = figure.axes[0]
    mri = next(level for level in found.odds if level.level == "MRI")
    assert name == "odds-pgd-eps-4-255-steps-10"
    assert [float(bar[0].get_xdata()[0]) for bar in axes.containers] == pytest.approx([mri.ratio])
    assert "reference" in [text.get_text() for text in axes.texts]
    assert any(text.get_text().startswith("n/a: ") for text in axes.texts)


def test_the_page_shows_the_tables(tmp_path: Path) -> None:
    run = with_columns([grouped_run(tmp_path / "run")], "site")[0]
    write_page([run], tmp_path / "page.html", title="t", tables=list(tables_of([run], radii=None)))
    page = (tmp_path / "page.html").read_text()
    section = page[page.index('<section id="analyses"') :]
    for heading in ("Calibration", "Selective answers", "Groups", "What goes with falling under attack"):
        assert f"<h3>{heading}</h3>" in section
    assert "<summary>Accuracy by site</summary>" in section and "<summary>Accuracy by modality</summary>" not in section
