"""The gate: verdicts, exit codes, refusals, its files, and its error rates by simulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from synthetic import certified, evaluated, failed, write_run
from test_cli import call

import safemed_eval
from safemed_eval import paired
from safemed_eval.errors import RunError
from safemed_eval.report.compare import Comparison, Pair, Rules, compare, judge, overall_verdict
from safemed_eval.smoothing import Smoothing

N = 200
PGD = "pgd:eps=4/255,steps=10"
Json = dict[str, Any]


def run(out: Path, right: int = 150, *, attacked: int = 100, n: int = N, **settings: Any) -> Path:
    """An evaluate run: of n items, the first `right` are right on clean images, the first `attacked` under PGD."""
    records = [evaluated(i, "clean", i < right, modality="CT" if i % 2 else "MRI") for i in range(n)]
    records += [evaluated(i, PGD, i < attacked, modality="CT" if i % 2 else "MRI") for i in range(n)]
    return write_run(out, records, "evaluate", conditions=("clean", PGD), **settings)


def votes(out: Path, ks: list[int], **settings: Any) -> Path:
    return write_run(out, [certified(i, k) for i, k in enumerate(ks)], "certify", **settings)


def by_measure(found: Comparison) -> dict[str, str]:
    return {change.measure: change.verdict for change in found.overall}


def test_a_drop_is_a_regression(tmp_path: Path) -> None:
    found = compare(run(tmp_path / "a"), run(tmp_path / "b", attacked=70, weights="other"))
    assert found.verdict == "regression" and found.exit_code() == 1
    assert by_measure(found) == {"clean": "no regression", PGD: "regression"}
    (clean, attacked) = found.overall
    assert (clean.drop, clean.lost, clean.won) == (0.0, 0, 0)
    assert (attacked.baseline, attacked.candidate, attacked.lost, attacked.won) == (0.5, 0.35, 30, 0)
    assert attacked.drop == pytest.approx(0.15)
    assert attacked.p_drop == pytest.approx(2 * 0.5**30), "Holm: two measures"
    assert {change.slice for change in found.slices} == {"modality: CT", "modality: MRI", "question type: unknown"}


def test_rules_shape_the_verdict(tmp_path: Path) -> None:
    one, two = run(tmp_path / "a"), run(tmp_path / "b", attacked=94, weights="other")

    def verdict(**rules: float) -> str:
        return compare(one, two, rules=Rules(**rules)).verdict

    assert verdict() == "regression", "six of six, p = 1/64, doubled by Holm"
    assert verdict(level=0.02) == "inconclusive"
    assert verdict(min_drop=0.031) == "inconclusive", "the drop is 3 points, the margin 5: not surely below"
    assert verdict(min_drop=0.031, margin=0.08) == "no regression"
    assert compare(two, one).verdict == "no regression", "better is no regression"


def test_too_few_items_are_inconclusive(tmp_path: Path) -> None:
    found = compare(run(tmp_path / "a", n=20), run(tmp_path / "b", 18, n=20, weights="other"))
    assert by_measure(found) == {"clean": "inconclusive", PGD: "no regression"}, "18 of 20; 20 of 20 in both"
    assert (found.verdict, found.exit_code(), found.exit_code(allow_inconclusive=True)) == ("inconclusive", 3, 0)


def test_same_weights_and_any_change_is_one_of_the_toolkit(tmp_path: Path) -> None:
    broken = compare(run(tmp_path / "a"), run(tmp_path / "b", attacked=130))
    assert broken.same_weights and broken.verdict == "toolkit changed" and broken.exit_code() == 1
    assert compare(run(tmp_path / "c"), run(tmp_path / "d", attacked=102)).verdict == "no regression", "not significant"
    other = compare(tmp_path / "a", run(tmp_path / "e", attacked=130, weights="other"))
    assert other.verdict == "no regression"
    quantized = run(tmp_path / "f", attacked=130, spec={"load": {"dtype": "float16"}})
    found = compare(tmp_path / "a", quantized)
    assert not found.same_weights and any("dtype" in note for note in found.notes)


def test_certificates_are_compared_at_radii_and_on_average(tmp_path: Path) -> None:
    one = votes(tmp_path / "a", [1000] * 60 + [920] * 40)
    two = votes(tmp_path / "b", [920] * 60 + [500] * 10 + [920] * 30, weights="other")
    found = compare(one, two, radii="0,0.3,0.5")
    drops = {change.measure: round(change.drop, 6) for change in found.overall}
    ceiling = Smoothing(sigma=0.25).ceiling
    assert ceiling is not None
    low = certified(0, 920)["radius"] / ceiling
    assert drops.pop("average certified radius") == pytest.approx(0.6 * (1 - low) + 0.1 * low, abs=1e-6)
    assert drops == {"certified at r >= 0": 0.1, "certified at r >= 0.3": 0.1, "certified at r >= 0.5": 0.6}
    assert set(by_measure(found).values()) == {"regression"}
    same = compare(one, one)
    assert same.verdict == "no regression" and all(change.p_drop == 1.0 for change in same.overall)


def test_a_radius_above_the_ceiling_is_refused(tmp_path: Path) -> None:
    votes(tmp_path / "a", [1000] * 5)
    assert call("compare", tmp_path / "a", tmp_path / "a", "--radii", "0,3s") == (
        2,
        "--radii 3s: n=1000 draws certify no radius above 0.6158 at all; leave it out",
    )


SPECS: dict[str, Json] = {
    "data": {"data": "other"},
    "asking.template.cue": {"asking": {"readout": "choice", "template": {"user": "{question}\n{options}", "cue": "x"}}},
    "canvas": {"canvas": "64x64 stretch"},
    "seed": {"seed": 1},
    "quantize": {"quantize": True},
    "attacks": {"attacks": {"clean": {"attack": "clean"}, PGD: {"attack": "pgd", "steps": 5}}},
}


@pytest.mark.parametrize("key", SPECS)
def test_other_questions_are_refused(tmp_path: Path, key: str) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", spec=SPECS[key])
    code, text = call("compare", tmp_path / "a", tmp_path / "b")
    assert code == 2 and "cannot be compared" in text and f"\n  {key}" in text


@pytest.mark.parametrize("field", ["sigma", "n", "alpha"])
def test_other_smoothing_is_refused(tmp_path: Path, field: str) -> None:
    changed = Smoothing(**{"sigma": 0.25} | {field: {"sigma": 0.5, "n": 500, "alpha": 0.01}[field]})
    votes(tmp_path / "a", [400] * 5)
    write_run(tmp_path / "b", [certified(i, 400, smoothing=changed) for i in range(5)], "certify", smoothing=changed)
    with pytest.raises(RunError, match=f"smoothing.{field} was"):
        compare(tmp_path / "a", tmp_path / "b")


def lines(out: Path) -> list[str]:
    return (out / "records.jsonl").read_text().splitlines(keepends=True)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "unfinished": (lambda out: (out / "records.jsonl").write_text("".join(lines(out)[:-1])), "lacks 1 records"),
    "empty": (lambda out: (out / "records.jsonl").write_text(""), "holds no record"),
    "no run": (lambda out: (out / "run.json").unlink(), "not a run folder"),
    "other items": (
        lambda out: (out / "records.jsonl").write_text("".join(lines(out)).replace('"i7"', '"new"')),
        "1 (i7) missing, 1 (new) new",
    ),
    "other image": (
        lambda out: (out / "records.jsonl").write_text("".join(lines(out)).replace('"hash 7"', '"other"')),
        "image_sha256 differs",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_whole_is_never_a_pass(tmp_path: Path, name: str) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    breaks, message = BROKEN[name]
    breaks(tmp_path / "b")
    for pair in ((tmp_path / "a", tmp_path / "b"), (tmp_path / "b", tmp_path / "a")):
        assert call("compare", *pair)[0] == 2
    assert message in call("compare", tmp_path / "a", tmp_path / "b")[1]


def test_a_failed_item_is_never_a_pass(tmp_path: Path) -> None:
    records = [certified(0, 900), failed(1)]
    for name in ("a", "b"):
        write_run(tmp_path / name, records, "certify")
    assert call("compare", tmp_path / "a", tmp_path / "b")[0] == 2
    assert "1 items failed" in call("compare", tmp_path / "a", tmp_path / "b")[1]


def test_a_few_patients_are_no_evidence_that_nothing_changed(tmp_path: Path) -> None:
    def of_patients(out: Path, right: int, weights: str) -> Path:
        records = [evaluated(i, "clean", i < right, patient_id=f"p{i // 100}") for i in range(500)]
        return write_run(out, records, "evaluate", conditions=("clean",), weights=weights)

    found = compare(of_patients(tmp_path / "a", 300, "w"), of_patients(tmp_path / "b", 302, "v"))
    assert found.verdict == "inconclusive" and found.overall[0].upper is None and found.overall[0].clusters == 5


# ----------------------------------------------------------------------------------------------------------- the files


def test_exit_codes_and_files_of_the_command(tmp_path: Path) -> None:
    run(tmp_path / "a", n=40, attacked=20)
    run(tmp_path / "worse", n=40, attacked=5, weights="v")
    run(tmp_path / "vague", n=40, attacked=19, weights="v")
    files = {name: tmp_path / f"out.{name}" for name in ("junit", "markdown", "json")}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]

    assert call("compare", tmp_path / "a", tmp_path / "a")[0] == 0
    code, text = call("compare", tmp_path / "a", tmp_path / "worse", *options)
    assert code == 1 and f"regression ({PGD})" in text and "Not for clinical use" in text
    suites = ElementTree.parse(files["junit"]).getroot()
    assert [(s.get("name"), s.get("failures"), s.get("errors")) for s in suites] == [
        ("all", "1", "0"),
        ("slices", "0", "0"),
    ]
    assert [case.get("name") for case in suites[0] if case.find("failure") is not None] == [PGD]
    assert "## \u274c safemed-eval compare: regression" in files["markdown"].read_text()
    written = json.loads(files["json"].read_text())
    assert written["verdict"] == "regression" and written["overall"][1]["lost"] == 15

    code, text = call("compare", tmp_path / "a", tmp_path / "vague", *options)
    assert code == 3 and text.rstrip().endswith(f"inconclusive ({PGD})")
    assert ElementTree.parse(files["junit"]).getroot()[0].get("errors") == "1"
    assert files["markdown"].read_text().count("## ") == 2, "a second comparison of one workflow is added"
    assert call("compare", tmp_path / "a", tmp_path / "vague", "--allow-inconclusive", *options)[0] == 0
    assert ElementTree.parse(files["junit"]).getroot()[0].get("errors") == "0"


def test_text_of_data_stays_text_in_the_files(tmp_path: Path) -> None:
    name = 'CT <b> | & "x" \x01 ]]>'
    records = [evaluated(i, "clean", i < 15, modality=name) for i in range(20)]
    write_run(tmp_path / "a", records, "evaluate", conditions=("clean",))
    options = ["--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md"]
    assert call("compare", tmp_path / "a", tmp_path / "a", *options)[0] == 0
    assert ElementTree.parse(tmp_path / "j.xml").getroot()[1][0].get(
        "classname"
    ) == f"safemed-eval.modality: {name}".replace("\x01", "\ufffd")
    table = next(line for line in (tmp_path / "m.md").read_text().splitlines() if "&lt;b&gt;" in line)
    assert "<b>" not in table and "\\|" in table


@pytest.mark.parametrize("option", [("--level", "0.7"), ("--margin", "-1"), ("--min-drop", "100")])
def test_senseless_rules_are_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    code, text = call("compare", tmp_path, tmp_path, *option)
    assert code == 2 and option[0].removeprefix("--") in text


def test_it_is_a_function_for_pytest(tmp_path: Path) -> None:
    found = safemed_eval.compare(run(tmp_path / "a"), run(tmp_path / "b", attacked=70, weights="v"))
    assert isinstance(found, Comparison) and found.exit_code() == 1


# ---------------------------------------------------------------------------------------------------------- simulation


def pair_of_runs(rng: np.random.Generator, n: int, size: int, drop: float, churn: float) -> tuple[dict[str, Pair], Any]:
    """Clean, two attacks and average radii of n items in clusters of `size`; half of the clusters share one fate.

    Only the first measure drops; a share `churn` changes at random in each.
    """
    codes = np.repeat(np.arange(n // size), size)
    joined = (rng.random(n // size) < 0.5)[codes] if size > 1 else np.zeros(n, dtype=bool)
    measures = {}
    for name in ("clean", "fgsm", "pgd", "average certified radius"):
        lost_share = churn / 2 + (drop if name == "clean" else 0.0)
        fate, before = (np.where(joined, rng.random(n // size)[codes], rng.random(n)) for _ in range(2))
        lost, won = fate < lost_share, fate > 1 - churn / 2
        base = np.where(lost, True, np.where(won, False, before < 0.6)).astype(float)
        new = np.where(lost, False, np.where(won, True, before < 0.6)).astype(float)
        weight = rng.uniform(0.2, 1.0, n // size)[codes] if "radius" in name else 1.0
        measures[name] = (base * weight, new * weight)
    return measures, codes


def verdicts(n: int, size: int, drop: float, rules: Rules, runs: int, names: tuple[str, ...]) -> dict[str, float]:
    """How often each overall verdict comes out."""
    rng, found = np.random.default_rng(0), []
    everything = {"all": np.ones(n, dtype=bool)}
    for _ in range(runs):
        measures, codes = pair_of_runs(rng, n, size, drop, 0.1)
        overall = judge({name: measures[name] for name in names}, codes, rules, slices=everything)
        found.append(overall_verdict(overall, rules, same_weights=False))
    return {verdict: found.count(verdict) / runs for verdict in set(found)}


ACCURACIES = ("clean", "fgsm", "pgd")


@pytest.mark.parametrize("size", [1, 4])
def test_false_alarms_are_as_rare_as_promised(size: int) -> None:
    """2,000 pairs of runs without a true change. min_drop is 0 here: the test alone must hold the level."""
    rate = verdicts(400, size, 0.0, Rules(min_drop=0.0), 2000, ACCURACIES).get("regression", 0.0)
    assert 0 < rate <= 0.05


def test_a_test_that_ignores_clusters_would_raise_more_alarms() -> None:
    """The simulation can tell: items of four-question images, counted as if they were independent."""
    rng, rules, alarms = np.random.default_rng(0), Rules(min_drop=0.0), 0
    for _ in range(500):
        measures, _ = pair_of_runs(rng, 400, 4, 0.0, 0.1)
        overall = judge({"clean": measures["clean"]}, np.arange(400), rules, slices={"all": np.ones(400, dtype=bool)})
        alarms += overall_verdict(overall, rules, same_weights=False) == "regression"
    assert alarms / 500 > 0.07


@pytest.mark.parametrize("drop", [0.05, 0.1])
def test_a_true_drop_is_caught_with_the_power_that_is_printed(drop: float) -> None:
    rules = Rules()
    promised = paired.power(400, drop, churn=0.1, level=rules.level / len(ACCURACIES), min_drop=rules.min_drop)
    rate = verdicts(400, 1, drop, rules, 500, ACCURACIES)["regression"]
    assert rate >= promised - 0.02, "three standard errors of 500 runs at most"
    assert promised > (0.95 if drop == 0.1 else 0.5)


@pytest.mark.parametrize("size", [1, 4])
def test_a_drop_of_the_margin_rarely_passes(size: int) -> None:
    """True drop of 5 points in one measure, margin 5 points: 'no regression' in about 5 % at most."""
    rate = verdicts(800, size, 0.05, Rules(), 400, ("clean",)).get("no regression", 0.0)
    assert rate <= 0.08


def test_average_radii_raise_no_more_false_alarms() -> None:
    rules = Rules(min_drop=0.0)
    rate = verdicts(80, 4, 0.0, rules, 200, ("average certified radius",)).get("regression", 0.0)
    assert rate <= 0.08, "nominal 5 %, two standard errors of 200 runs"
