"""The gate: verdicts, exit codes, refusals, its files, and its error rates by simulation."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import draw_table
from synthetic import certified, evaluated, failed, write_run
from test_cli import call

import safemed_eval
from safemed_eval import paired
from safemed_eval.core import Question
from safemed_eval.errors import RunError, SpecError
from safemed_eval.report import Run
from safemed_eval.report.compare import (
    Comparison,
    Rules,
    compare,
    judge,
    overall_verdict,
)
from safemed_eval.report.compare.aligned import AVERAGE_RADIUS, Pair
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


def test_options_of_the_command_are_points(tmp_path: Path) -> None:
    one, two = run(tmp_path / "a"), run(tmp_path / "b", attacked=94, weights="other")
    assert call("compare", one, two)[0] == 1, "a drop of 3 points, p = 1/32"
    assert call("compare", one, two, "--level", "0.02")[0] == 3
    assert call("compare", one, two, "--min-drop", "3.1")[0] == 3
    assert call("compare", one, two, "--min-drop", "3.1", "--margin", "8")[0] == 0


def test_a_change_of_the_toolkit_is_held_to_all_measures(tmp_path: Path) -> None:
    """Seven answers that rise: p = 1/64 in both directions, 1/32 with the other measure; of six 1/32 and 1/16."""
    assert compare(run(tmp_path / "a"), run(tmp_path / "b", attacked=107)).verdict == "toolkit changed"
    assert compare(run(tmp_path / "c"), run(tmp_path / "d", attacked=106)).verdict == "no regression"


def test_too_few_items_are_inconclusive(tmp_path: Path) -> None:
    found = compare(run(tmp_path / "a", n=20), run(tmp_path / "b", 18, n=20, weights="other"))
    assert by_measure(found) == {"clean": "inconclusive", PGD: "inconclusive"}, "18 of 20; 20 of 20 in both"
    assert (found.verdict, found.exit_code(), found.exit_code(allow_inconclusive=True)) == ("inconclusive", 3, 0)
    assert str(found).endswith("(20 items are too few: 59 independent ones would do, without a loss)")


@pytest.mark.parametrize(("n", "code"), [(10, 3), (58, 3), (59, 0)])
def test_identical_outcomes_are_a_pass_for_the_same_weights_only(tmp_path: Path, n: int, code: int) -> None:
    """Other weights that answer a few items alike are no evidence: 0.95 ** 59 < 0.05 < 0.95 ** 58."""
    one, two = run(tmp_path / "a", n=n), run(tmp_path / "b", n=n, weights="other")
    files = {name: tmp_path / f"out.{name}" for name in ("junit", "markdown", "json")}
    found, text = call("compare", one, two, *[word for name, file in files.items() for word in (f"--{name}", file)])
    assert found == code
    for said in (text, *(files[name].read_text() for name in ("junit", "markdown"))):
        assert (f"{n} items are too few: 59 independent ones would do, without a loss" in " ".join(said.split())) == (
            code == 3
        )
    written = json.loads(files["json"].read_text())
    assert {change["needed"] for change in written["overall"]} == {59 if code else None}
    halves = [change for change in written["slices"] if change["slice"].startswith("modality")]
    assert {change["verdict"] for change in halves} == {"inconclusive"}, "slices of fewer than 59, too"
    same = compare(one, run(tmp_path / "c", n=n))
    assert same.same_weights and {change.verdict for change in (*same.overall, *same.slices)} == {"no regression"}


CHANGED: dict[str, Json] = {
    "settings": {"model": {"weights_sha256": "w", "settings_sha256": "other"}},
    "dtype": {"load": {"dtype": "bfloat16"}},
    "denoiser": {"model": {"weights_sha256": "w", "settings_sha256": "s", "denoiser": {"weights_sha256": "d"}}},
}


@pytest.mark.parametrize("key", CHANGED)
def test_identical_outcomes_of_a_model_that_is_set_otherwise_are_no_pass(tmp_path: Path, key: str) -> None:
    """Another preprocessor, or half precision, is another function: a few items that agree prove nothing."""
    found = compare(run(tmp_path / "a", n=10), run(tmp_path / "b", n=10, spec=CHANGED[key]))
    assert found.exit_code() == 3 and found.overall[0].needed == 59


def test_other_settings_that_help_are_no_change_of_the_toolkit(tmp_path: Path) -> None:
    better = compare(run(tmp_path / "a"), run(tmp_path / "b", attacked=130, spec=CHANGED["settings"]))
    assert better.exit_code() == 0 and any("configurations differ" in note for note in better.notes)


def test_a_measure_that_few_items_have_says_how_many_would_do(tmp_path: Path) -> None:
    """Of 100 items five meet the attack: the others say nothing about it."""
    none = {"prediction": None, "unavailable": "no mask", "log_probs": None}
    records = [evaluated(i, "clean", True) for i in range(100)]
    records += [evaluated(i, PGD, True) for i in range(5)]
    records += [evaluated(i, PGD, False, **none) for i in range(5, 100)]
    one, two = (
        write_run(tmp_path / name, records, "evaluate", conditions=("clean", PGD), weights=name) for name in "ab"
    )
    clean, attacked = compare(one, two).overall
    assert (clean.verdict, clean.needed) == ("no regression", None)
    assert (attacked.verdict, attacked.n, attacked.needed) == ("inconclusive", 5, 59)


def test_certificates_at_another_alpha_are_refused(tmp_path: Path) -> None:
    """The votes are the same: at a laxer alpha they certify more, which would hide a drop or invent one."""
    one, two = votes(tmp_path / "a", [700, 900] * 40), votes(tmp_path / "b", [700, 900] * 40, weights="other")
    lax = Run.read(two, alpha=0.3)
    for pair in ((one, lax), (lax, one)):
        with pytest.raises(RunError, match=r"read at alpha 0\.\S+, .* at 0\.\S+; read both at one"):
            compare(*pair)
    assert compare(Run.read(one, alpha=0.3), lax).verdict == "no regression"


@pytest.mark.parametrize("rules", [{"level": 0.7}, {"margin": float("nan")}, {"min_drop": 0.2}, {"level": "x"}])
def test_rules_that_cannot_be_are_one_line(rules: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Rules(**rules)


def test_slices_without_a_difference_and_small_ones_are_a_line_each(tmp_path: Path) -> None:
    """Two of six modalities differ, one is unchanged, and three have four items; JSON has every row."""
    names = ["CT"] * 30 + ["MRI"] * 30 + ["OCT"] * 30 + [f"M{i // 4}" for i in range(12)]
    for out, wrong in (("a", ()), ("b", (0, 1, 40, 91))):
        records = [
            evaluated(i, attack, not (attack == PGD and i in wrong), modality=names[i])
            for i in range(len(names))
            for attack in ("clean", PGD)
        ]
        write_run(tmp_path / out, records, "evaluate", conditions=["clean", PGD])
    files = {name: tmp_path / name for name in ("markdown", "json")}
    _, text = call("compare", tmp_path / "a", tmp_path / "b", "--markdown", files["markdown"], "--json", files["json"])
    written = files["markdown"].read_text()
    for said in (" ".join(text.split()), written):
        assert "4 slices have identical outcomes" in said and "1 slice has identical outcomes" in said
        assert "3 slices have fewer than 5 items, too few to tell anything: modality: M0, modality: M1," in said
    rows = [line for line in text.splitlines() if line.startswith(("modality: ", "question type: "))]
    assert [row.split("  ")[0] for row in rows] == ["modality: CT", "modality: MRI", "question type: unknown"]
    assert written.count("| modality: ") == 2
    told = json.loads(files["json"].read_text())["slices"]
    assert len(told) == 2 * 7 and sum(one["identical"] for one in told) == 7 + 1 + 2


def test_same_weights_and_any_change_is_one_of_the_toolkit(tmp_path: Path) -> None:
    broken = compare(run(tmp_path / "a"), run(tmp_path / "b", attacked=130))
    assert broken.same_weights and broken.verdict == "toolkit changed" and broken.exit_code() == 1
    assert compare(run(tmp_path / "c"), run(tmp_path / "d", attacked=102)).verdict == "no regression", "not significant"
    other = compare(tmp_path / "a", run(tmp_path / "e", attacked=130, weights="other"))
    assert other.verdict == "no regression"
    assert not other.same_weights
    quantized = run(tmp_path / "f", attacked=130, spec={"load": {"dtype": "float16"}})
    found = compare(tmp_path / "a", quantized)
    assert found.verdict == "toolkit changed" and any("dtype" in note for note in found.notes)
    assert found.exit_code(allow_inconclusive=True) == 1


def test_weights_that_nobody_hashed_are_not_the_same(tmp_path: Path) -> None:
    model = {"factory": "mine:build", "module_sha256": "m"}
    one, two = (run(tmp_path / name, attacked=100 + 30 * i, spec={"model": model}) for i, name in enumerate("ab"))
    assert compare(one, two).verdict == "no regression"


def test_an_adapter_is_its_weights_and_those_of_its_base(tmp_path: Path) -> None:
    def adapter(base: str) -> Json:
        return {"model": {"weights_sha256": "a", "base": {"weights_sha256": base}}}

    one = run(tmp_path / "a", spec=adapter("x"))
    assert compare(one, run(tmp_path / "b", spec=adapter("x"))).same_weights
    assert not compare(one, run(tmp_path / "c", spec=adapter("y"))).same_weights


def test_certificates_are_compared_at_radii_and_on_average(tmp_path: Path) -> None:
    one = votes(tmp_path / "a", [1000] * 60 + [920] * 40)
    two = votes(tmp_path / "b", [920] * 60 + [500] * 10 + [920] * 30, weights="other")
    found = compare(one, two, radii="0,0.3,0.5")
    drops = {change.measure: round(change.drop, 6) for change in found.overall}
    ceiling = Smoothing(noise="float32", sigma=0.25).ceiling
    assert ceiling is not None
    low = certified(0, 920)["radius"] / ceiling
    assert drops.pop(AVERAGE_RADIUS) == pytest.approx(0.6 * (1 - low) + 0.1 * low, abs=1e-6)
    assert drops == {"certified at r >= 0": 0.1, "certified at r >= 0.3": 0.1, "certified at r >= 0.5": 0.6}
    assert set(by_measure(found).values()) == {"regression"}
    same = compare(one, Path(shutil.copytree(one, tmp_path / "same")))
    assert same.verdict == "no regression" and all(change.p_drop == 1.0 for change in same.overall)


def test_a_radius_above_the_ceiling_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        votes(tmp_path / name, [1000] * 5)
    assert call("compare", tmp_path / "a", tmp_path / "b", "--radii", "0,3s") == (
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


ADAPTIVE = "adaptive:eps=4/255,steps=10"


def written(out: Path, template: str, attacked: int, attack: str = ADAPTIVE) -> Path:
    """A run of 200 texts under a template: 150 right when clean, so many of them under attack."""
    records = [evaluated(i, "clean", i < 150) for i in range(N)]
    records += [evaluated(i, attack, i < attacked) for i in range(N)]
    spec = {"asking": {"readout": "generate", "template": {"user": template, "cue": ""}}}
    return write_run(out, records, "evaluate", conditions=("clean", attack), spec=spec)


@pytest.mark.parametrize(
    ("reasoning", "direct", "verdict"), [(100, 100, "no regression"), (100, 60, "regression"), (60, 100, "regression")]
)
def test_whether_reasoning_makes_robust_is_a_test_that_can_fail(
    reasoning: int, direct: int, verdict: str, tmp_path: Path
) -> None:
    """One checkpoint, asked with and without rationale; a drop from one to the other says who is less robust."""
    think = written(tmp_path / "think", "<think>", reasoning)
    instruct = written(tmp_path / "instruct", "<answer>", direct)
    code, text = call("compare", think, instruct)
    assert code == 2 and "asking.template.user was" in text and "--across-prompts" in text
    first, second = (think, instruct) if direct <= reasoning else (instruct, think)
    found = compare(first, second, across_prompts=True)
    assert found.verdict == verdict and not found.same_weights
    assert any(note.startswith("asking.template.user was") for note in found.notes)
    assert not any("option letter" in note for note in found.notes)
    assert call("compare", first, second, "--across-prompts")[0] == found.exit_code()


def test_across_prompts_is_about_prompts_only_and_warns_of_a_weak_attack(tmp_path: Path) -> None:
    one, two = written(tmp_path / "a", "<think>", 100, PGD), written(tmp_path / "b", "<answer>", 100, PGD)
    found = compare(one, two, across_prompts=True)
    assert any("aim at the option letter" in note for note in found.notes)
    assert not any("aim at the option letter" in note for note in compare(one, one_more(one)).notes)
    code, text = call("compare", one, written(tmp_path / "c", "<answer>", 100, ADAPTIVE), "--across-prompts")
    assert code == 2 and "attacks" in text and "(--across-prompts" not in text


def one_more(out: Path) -> Path:
    return Path(shutil.copytree(out, out.parent / "again"))


@pytest.mark.parametrize("field", ["sigma", "n", "alpha"])
def test_other_smoothing_is_refused(tmp_path: Path, field: str) -> None:
    changed = Smoothing(**{"noise": "float32", "sigma": 0.25} | {field: {"sigma": 0.5, "n": 500, "alpha": 0.01}[field]})
    votes(tmp_path / "a", [400] * 5)
    write_run(tmp_path / "b", [certified(i, 400, smoothing=changed) for i in range(5)], "certify", smoothing=changed)
    with pytest.raises(RunError, match=f"smoothing.{field} was"):
        compare(tmp_path / "a", tmp_path / "b")


def lines(out: Path) -> list[str]:
    return (out / "records.jsonl").read_text().splitlines(keepends=True)


def edit(old: str, new: str) -> Callable[[Path], object]:
    return lambda out: (out / "records.jsonl").write_text("".join(lines(out)).replace(old, new))


def edit_meta(**changes: Any) -> Callable[[Path], object]:
    def change(out: Path) -> None:
        meta = json.loads((out / "run.json").read_text())
        (out / "run.json").write_text(json.dumps(meta | changes))

    return change


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "unfinished": (lambda out: (out / "records.jsonl").write_text("".join(lines(out)[:-1])), "lacks 1 records"),
    "empty": (lambda out: (out / "records.jsonl").write_text(""), "holds no record"),
    "no run": (lambda out: (out / "run.json").unlink(), "not a run folder"),
    "other items": (edit('"i7"', '"new"'), "1 (i7) missing, 1 (new) new"),
    "other image": (edit('"hash 7"', '"other"'), "image_sha256 differs"),
    "other question": (edit("image 7?", "picture 7?"), "question differs"),
    "other options": (edit('"lung", "liver", "eye"', '"lung", "liver", "ear"'), "options differs"),
    "other modality": (edit('"MRI"', '"OCT"'), "modality differs"),
    "other patients": (edit('"patient_id": null', '"patient_id": "p"'), "cluster differs"),
    "answers that do not fit": (edit('"prediction": 1', '"prediction": 0'), "its prediction says otherwise"),
    "not a number": (edit('"seconds": 0.1', '"seconds": NaN'), "line 1 is not a record"),
    "half a character": (edit("image 7?", r"image \ud800?"), ""),
    "no verdict": (edit('"correct": true', '"correct": null'), "correct cannot be None"),
    "an attack that was not asked for": (edit(PGD, "pgd:eps=1/255,steps=1"), "which was not asked for"),
    "an attack left out": (edit_meta(conditions=["clean"]), "its conditions are not the attacks of its spec"),
    "no names": (edit_meta(names=None), "names cannot be None"),
    "a spec that is none": (edit_meta(spec=[]), "a run of 'None'"),
    "more records than items": (edit_meta(items=3), "more records"),
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
    (only,) = found.overall
    assert found.verdict == "inconclusive" and only.upper > 0.2 and only.clusters == 5
    assert only.needed == 59 * 100 and "5900 in clusters like these would do" in only.too_few


@pytest.mark.parametrize(("field", "value"), [("votes", [0, 90000, 10000, 0]), ("alpha", 0.4), ("votes0", [100, 0, 0])])
def test_votes_are_held_to_what_was_asked(tmp_path: Path, field: str, value: Any) -> None:
    votes(tmp_path / "a", [900, 900])
    write_run(tmp_path / "b", [certified(0, 900), certified(1, 900, **{field: value})], "certify")
    code, text = call("compare", tmp_path / "a", tmp_path / "b")
    assert code == 2 and "'i1'" in text and field in text


def test_the_order_of_records_does_not_matter(tmp_path: Path) -> None:
    """Items are paired by id: of 30 that changed all are found, whatever the order of the files."""
    for name, attacked in (("a", 100), ("b", 80)):
        run(tmp_path / name, attacked=attacked, weights=name)
    straight = compare(tmp_path / "a", tmp_path / "b")
    mixed = lines(tmp_path / "b")
    random.Random(0).shuffle(mixed)
    (tmp_path / "b/records.jsonl").write_text("".join(mixed))
    assert compare(tmp_path / "a", tmp_path / "b").overall == straight.overall
    ks = [1000, 500] * 10
    votes(tmp_path / "c", ks)
    shuffled = [certified(i, k) for i, k in enumerate(ks)][::-1]
    write_run(tmp_path / "d", shuffled, "certify")
    assert all(change.drop == 0 and change.p_change == 1 for change in compare(tmp_path / "c", tmp_path / "d").overall)


def test_wrong_certificates_do_not_count(tmp_path: Path) -> None:
    right = votes(tmp_path / "a", [1000] * 40)
    wrong = [certified(i, 1000, chosen=0 if i < 20 else 1) for i in range(40)]
    found = compare(right, write_run(tmp_path / "b", wrong, "certify", weights="v"))
    assert [change.candidate for change in found.overall] == [0.5] * 4 and found.verdict == "regression"


def test_as_many_lost_as_won_is_not_nothing(tmp_path: Path) -> None:
    def swapped(out: Path, right: range) -> Path:
        return write_run(out, [evaluated(i, "clean", i in right) for i in range(60)], "evaluate", conditions=("clean",))

    found = compare(swapped(tmp_path / "a", range(40)), swapped(tmp_path / "b", range(10, 50)))
    assert found.verdict == "inconclusive" and (found.overall[0].lost, found.overall[0].won) == (10, 10)


def test_a_drop_of_just_the_minimum_counts(tmp_path: Path) -> None:
    one, two = run(tmp_path / "a", n=1000, attacked=900), run(tmp_path / "b", n=1000, attacked=891, weights="v")
    assert compare(one, two, rules=Rules(min_drop=0.9 / 100)).verdict == "regression"


def test_what_could_have_been_found_is_told_by_hand(tmp_path: Path) -> None:
    def of(out: Path, right: range) -> Path:
        records = [
            evaluated(i, name, i in right, patient_id=f"p{i // 4}") for name in ("clean", PGD) for i in range(400)
        ]
        return write_run(out, records, "evaluate", conditions=("clean", PGD), weights=out.name)

    found = compare(of(tmp_path / "a", range(300)), of(tmp_path / "b", range(8, 304)))
    difference = np.array([1.0] * 8 + [0.0] * 292 + [-1.0] * 4 + [0.0] * 96)
    items = paired.cautious_size(difference, np.arange(400) // 4, level=0.05)
    assert items < 200, "patients count, not items"
    (one, _) = found.detectable
    assert (one.effective_items, one.churn) == (pytest.approx(items), 2 * 4 / 400)
    assert one.drop == paired.smallest_drop(items, churn=0.02, level=0.05 / 2, min_drop=0.02)


# ----------------------------------------------------------------------------------------------------------- the files


def test_exit_codes_and_files_of_the_command(tmp_path: Path) -> None:
    run(tmp_path / "a", n=40, attacked=20)
    run(tmp_path / "worse", n=40, attacked=5, weights="v")
    run(tmp_path / "vague", n=40, attacked=19, weights="v")
    files = {name: tmp_path / f"out.{name}" for name in ("junit", "markdown", "json")}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]

    assert call("compare", tmp_path / "a", shutil.copytree(tmp_path / "a", tmp_path / "same"))[0] == 0
    code, text = call("compare", tmp_path / "a", tmp_path / "a")
    assert code == 2 and "with itself" in text
    code, text = call("compare", tmp_path / "a", tmp_path / "worse", "--junit", tmp_path / "no" / "j.xml")
    assert code == 2 and "folder does not exist" in text
    code, text = call("compare", tmp_path / "a", tmp_path / "worse", *options)
    assert code == 1 and f"regression ({PGD})" in text and "Not for clinical use" in text
    assert "Which items were lost shows: safemed-eval report" in text
    suites = ElementTree.parse(files["junit"]).getroot()
    assert [(s.get("name"), s.get("failures"), s.get("errors")) for s in suites] == [
        ("all", "1", "1"),
        ("slices", "0", "0"),
    ]
    assert [case.get("name") for case in suites[0] if case.find("failure") is not None] == [PGD]
    assert "## \u274c safemed-eval compare: regression" in files["markdown"].read_text()
    written = json.loads(files["json"].read_text())
    assert written["verdict"] == "regression" and written["overall"][1]["lost"] == 15

    code, text = call("compare", tmp_path / "a", tmp_path / "vague", *options)
    assert code == 3 and text.rstrip().endswith(f"inconclusive (clean, {PGD})"), "40 items are too few for both"
    assert ElementTree.parse(files["junit"]).getroot()[0].get("errors") == "2"
    assert files["markdown"].read_text().count("## ") == 2, "a second comparison of one workflow is added"
    assert call("compare", tmp_path / "a", tmp_path / "vague", "--allow-inconclusive", *options)[0] == 0
    assert ElementTree.parse(files["junit"]).getroot()[0].get("errors") == "0"


def test_a_refused_comparison_leaves_no_former_result(tmp_path: Path) -> None:
    """A test tab, a summary and a script that read the files must not see the pass of the comparison before."""
    one, two = run(tmp_path / "a"), run(tmp_path / "b")
    files = {name: tmp_path / f"out.{name}" for name in ("junit", "markdown", "json")}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    assert call("compare", one, two, *options)[0] == 0
    meta = json.loads((two / "run.json").read_text())
    meta["spec"]["seed"] = 7
    meta["sessions"] = [{"argv": ["evaluate", "--model", "new one"]}]
    (two / "run.json").write_text(json.dumps(meta))
    for more, reason in (((), "seed was 0, now 7"), (("--margin", "1"), "min-drop 2 is above margin 1")):
        code, text = call("compare", one, two, *options, *more)
        assert code == 2 and reason in text and not files["json"].exists()
        (suite,) = ElementTree.parse(files["junit"]).getroot()
        assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
        assert reason in str(suite[0][0].get("message")) and suite[0][0].tag == "error"
        assert reason in files["markdown"].read_text().rpartition("compare: not comparable")[2]
    assert "made by: safemed-eval evaluate --model 'new one'" in call("compare", two, one)[1]
    link = tmp_path / "link"
    link.symlink_to(files["junit"])
    assert call("compare", one, two, "--json", link)[0] == 2 and link.is_symlink(), "as /dev/stdout is one"


def test_a_run_that_could_not_be_compared_with_its_baseline_never_starts(tmp_path: Path) -> None:
    chosen = safemed_eval.load_data(f"table:{draw_table(tmp_path / 'data')}", canvas="8x8")
    first = tmp_path / "first"

    class Dark:
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            return torch.stack([canvas[:, place].mean((1, 2)) for place in range(3)], dim=1)

    class Untouched:
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            raise AssertionError("the model was asked")

    safemed_eval.evaluate(Dark(), chosen, seed=1, out=first)

    for more, reason in (({"seed": 2}, "seed was 1, now 2"), ({"seed": 1, "attacks": ["fgsm"]}, "attacks.fgsm")):
        with pytest.raises(RunError, match=f"this run cannot be compared; .*\n  {reason}"):
            safemed_eval.evaluate(Untouched(), chosen, baseline=first, out=tmp_path / "second", **more)
    with pytest.raises(RunError, match="cannot be compared"):
        safemed_eval.certify(Untouched(), chosen, sigma=0.25, baseline=first)
    assert not (tmp_path / "second").exists()
    safemed_eval.evaluate(Dark(), chosen, seed=1, batch_size=3, baseline=first, out=tmp_path / "second")
    assert compare(first, tmp_path / "second").items == 8


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    run(tmp_path / "runs" / "a"), run(tmp_path / "runs" / "b")
    with pytest.raises(RunError, match=r"runs: not a run folder, but holds a, b$"):
        Run.read(tmp_path / "runs")


def test_a_number_of_items_is_estimated_where_some_changed(tmp_path: Path) -> None:
    """Of 100 items 2 are lost: 100 without a loss would have passed, and so would more with as few losses."""
    found = compare(run(tmp_path / "a", n=100, attacked=50), run(tmp_path / "b", n=100, attacked=48, weights="other"))
    clean, attacked = found.overall
    assert (clean.verdict, clean.estimated, attacked.verdict) == ("no regression", None, "inconclusive")
    assert attacked.needed is None and attacked.estimated is not None and attacked.estimated > 100
    said = f"100 items are too few: about {attacked.estimated} independent ones would decide, if changes go on"
    assert said in str(found)
    assert said in " ".join(call("compare", tmp_path / "a", tmp_path / "b")[1].split())
    lost = attacked.estimated // 50
    many = {"n": attacked.estimated, "right": attacked.estimated}
    more = compare(run(tmp_path / "c", **many), run(tmp_path / "d", attacked=100 - lost, weights="other", **many))
    assert by_measure(more)[PGD] == "no regression"
    assert {change.estimated for change in found.slices} == {None}, "slices do not decide"


def test_doubts_about_a_run_go_with_its_comparison(tmp_path: Path) -> None:
    """Chance against chance is no regression, and says nothing of robustness."""
    found = compare(run(tmp_path / "a"), run(tmp_path / "b", 66, attacked=66, weights="other"))
    (doubt,) = (note for note in found.notes if "how robust a guess is means nothing" in note)
    assert doubt.startswith("candidate: Of 200 clean answers 33.0 %")


def test_text_of_data_stays_text_in_the_files(tmp_path: Path) -> None:
    name = 'CT <b> | & "x" \x01 ]]>'
    for out, right in (("a", 15), ("b", 16)):
        records = [evaluated(i, "clean", i < right, modality=name) for i in range(20)]
        write_run(tmp_path / out, records, "evaluate", conditions=("clean",))
    options = ["--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md"]
    assert call("compare", tmp_path / "a", tmp_path / "b", *options)[0] == 3
    assert ElementTree.parse(tmp_path / "j.xml").getroot()[1][0].get(
        "classname"
    ) == f"safemed-eval.modality: {name}".replace("\x01", "\ufffd")
    table = next(line for line in (tmp_path / "m.md").read_text().splitlines() if "&lt;b&gt;" in line)
    assert "<b>" not in table and "\\|" in table


@pytest.mark.parametrize("option", [("--level", "0.7"), ("--margin", "-1"), ("--min-drop", "100"), ("--min-drop", "6")])
def test_senseless_rules_are_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    code, text = call("compare", tmp_path, tmp_path, *option)
    assert code == 2 and option[0].removeprefix("--") in text


def test_it_is_a_function_for_pytest(tmp_path: Path) -> None:
    found = safemed_eval.compare(run(tmp_path / "a"), run(tmp_path / "b", attacked=70, weights="v"))
    assert isinstance(found, Comparison) and found.exit_code() == 1
    assert str(found).splitlines()[2] == f"  {PGD}: 50.0 -> 35.0 %, p of a drop 0.0000: regression"


# ---------------------------------------------------------------------------------------------------------- simulation


def pair_of_runs(rng: np.random.Generator, n: int, size: int, drop: float, churn: float) -> tuple[dict[str, Pair], Any]:
    """Clean, two attacks and average radii of n items in clusters of `size`; half of the clusters share one fate.

    Only the first measure drops; a share `churn` changes at random in each.
    """
    codes = np.repeat(np.arange(n // size), size)
    joined = (rng.random(n // size) < 0.5)[codes] if size > 1 else np.zeros(n, dtype=bool)
    measures = {}
    for name in ("clean", "fgsm", "pgd", AVERAGE_RADIUS):
        lost_share = churn / 2 + (drop if name == "clean" else 0.0)
        fate, before = (np.where(joined, rng.random(n // size)[codes], rng.random(n)) for _ in range(2))
        lost, won = fate < lost_share, fate > 1 - churn / 2
        base = np.where(lost, True, np.where(won, False, before < 0.6)).astype(float)
        new = np.where(lost, False, np.where(won, True, before < 0.6)).astype(float)
        weight = rng.uniform(0.2, 1.0, n // size)[codes] if "radius" in name else 1.0
        measures[name] = (base * weight, new * weight)
    return measures, codes


def verdicts(n: int, size: int, drop: float, rules: Rules, runs: int, names: tuple[str, ...]) -> dict[str, float]:
    """Count the overall verdicts."""
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


def test_small_clusters_that_lose_what_large_ones_win_are_rarely_a_regression() -> None:
    """60 patients of one question lose 20 %, three of twenty win 20 %: the share did not drop."""
    rng, rules, alarms = np.random.default_rng(0), Rules(min_drop=0.0), 0
    codes = np.concatenate([np.arange(60), 60 + np.repeat(np.arange(3), 20)])
    for _ in range(300):
        lost = np.concatenate([rng.random(60) < 0.2, np.repeat(rng.random(3) < 0.2, 20)])
        base, new = np.ones(120), np.where(lost, 0.0, 1.0)
        pair = (np.where(codes < 60, base, new), np.where(codes < 60, new, base))
        overall = judge({"clean": pair}, codes, rules, slices={"all": np.ones(120, dtype=bool)})
        alarms += overall_verdict(overall, rules, same_weights=False) == "regression"
    assert alarms / 300 <= 0.06


def test_a_drop_must_be_sure_for_all_tests_of_its_family_together() -> None:
    """7 of 30 patients lose: by itself the lower bound of the drop is 0.051, at a quarter of the level -0.002."""
    base = np.ones(60)
    pair = (base, np.where(np.arange(60) < 14, 0.0, base))
    codes, every = np.arange(60) // 2, np.ones(60, dtype=bool)
    (alone,) = judge({"clean": pair}, codes, Rules(), slices={"all": every})
    family = judge({"clean": pair, "pgd": pair}, codes, Rules(), slices={"CT": every, "MR": every})
    assert (alone.verdict, {change.verdict for change in family}) == ("regression", {"inconclusive"})
    assert all(change.p_drop == pytest.approx(4 / 2**7) for change in family), "Holm alone would call it one"


@pytest.mark.parametrize("drop", [0.05, 0.1])
def test_a_true_drop_is_caught_with_the_power_that_is_printed(drop: float) -> None:
    rules = Rules()
    promised = paired.power(
        400, drop, churn=0.1, level=rules.level / len(ACCURACIES), min_drop=rules.min_drop, bound_level=rules.level
    )
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
    rate = verdicts(80, 4, 0.0, rules, 200, (AVERAGE_RADIUS,)).get("regression", 0.0)
    assert rate <= 0.08, "nominal 5 %, two standard errors of 200 runs"
