"""Items in, records out, numbers at the end: evaluate, certify and the breakdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_table
from running import answers, certificates
from synthetic import certified, evaluated, failed, numbers, write_run

from safemed_eval import attacks, data, faults
from safemed_eval.core import Item, Question
from safemed_eval.models.toy import Brightness
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.report.curves import MOST_POINTS, curve_of
from safemed_eval.runs.work.certify import Certification
from safemed_eval.runs.work.evaluate import Evaluation
from safemed_eval.smoothing import Smoothing
from safemed_eval.threat import Threat

CANVAS = data.Canvas(size=(24, 24))
CPU = torch.device("cpu")
CHOSEN = [attacks.parse(spec) for spec in ("clean", "fgsm:eps=8/255", "pgd:eps=8/255,steps=3")]


class Colors:
    """A small nonlinear model over the means of image quarters; options beyond the second are possible answers."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        parts = torch.nn.functional.adaptive_avg_pool2d(canvas, 2).flatten(1) - 0.5
        weight = torch.randn(parts.shape[1], 3, generator=torch.Generator().manual_seed(0))
        return torch.tanh(20 * parts @ weight)


def items(table: Path) -> tuple[Item, ...]:
    return data.verify(data.load(f"table:{table}")).items


def evaluation(model: object, **settings: object) -> Evaluation:
    return Evaluation(
        **{"model": Waist(model, CPU), "canvas": CANVAS, "seed": 0, "batch": 3, **settings}  # type: ignore[arg-type]
    )


def without_seconds(records: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "batch")} for record in records]


def test_every_item_has_one_record_per_attack(table: Path) -> None:
    records = [r for group in answers(evaluation(Colors()), items(table), CHOSEN) for r in group]
    assert len(records) == 8 * 3
    for record in records:
        assert record["error"] is None and record["correct"] == (record["prediction"] == record["label"])
        assert len(record["log_probs"]) == len(record["options"])
        assert record["prediction"] == int(np.argmax(record["log_probs"]))
        assert np.exp(record["log_probs"]).sum() == pytest.approx(1, abs=1e-5)
        limit = 0 if record["attack"] == "clean" else 8 / 255
        assert record["linf"] <= limit + 1e-6
        json.dumps(record, allow_nan=False)


class Asked(attacks.Attack):
    """Changes nothing; notes the questions of the odd rows of each batch."""

    seen: ClassVar[list[Question]] = []
    name, threat = "asked", Threat(norm="linf", eps=1.0)

    def search(self, problem: attacks.Problem) -> attacks.Attacked:
        odd = problem.take(range(1, len(problem), 2))
        self.seen.extend(odd.questions or ())
        return attacks.Attacked(canvas=problem.canvas, steps=[0] * len(problem))


def test_an_attack_is_given_the_questions_of_its_rows(table: Path) -> None:
    Asked.seen.clear()
    list(answers(evaluation(Colors(), batch=4), items(table), [Asked()]))
    assert Asked.seen == [item.question for item in items(table)[1::2]]


def test_an_interrupted_run_ends_with_the_same_records(table: Path) -> None:
    """Stopped after any number of records, even in the middle of a group: the rest fills in exactly what is missing."""
    whole = [r for group in answers(evaluation(Colors()), items(table), CHOSEN) for r in group]
    key = {(r["item"], r["attack"]): r for r in without_seconds(whole)}
    for stop in (1, 4, 10, 23):
        kept = whole[:stop]
        done = {(r["item"], r["attack"]) for r in kept}
        again = answers(evaluation(Colors()), items(table), CHOSEN, done=lambda i, c, done=done: (i, c) in done)
        rest = [r for group in again for r in group]
        assert len(kept) + len(rest) == len(whole)
        assert {(r["item"], r["attack"]): r for r in without_seconds(kept + rest)} == key


def test_certify_does_not_depend_on_batch_order_or_restart(table: Path) -> None:
    def run(batch: int, order: slice = slice(None), done: Sequence[str] = ()) -> dict[str, object]:
        work = Certification(
            model=Waist(Colors(), CPU), canvas=CANVAS, smoothing=Smoothing(sigma=0.3, n0=10, n=90), seed=3, batch=batch
        )
        records = list(certificates(work, items(table)[order], done=lambda item: item in done))
        return {str(r["item"]): r for r in without_seconds(records)}

    base = run(32)
    assert len(base) == 8 and {r["votes"] is None for r in base.values()} == {False}
    assert run(7) == base
    assert run(32, slice(None, None, -1)) == base
    assert run(32, done=["q0", "q5"]) == {key: r for key, r in base.items() if key not in ("q0", "q5")}


def test_a_broken_image_and_a_broken_answer_are_errors_that_count(table: Path) -> None:
    class Fragile(Colors):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            broken = torch.tensor([torch.nan if "image 5" in q.text else 1.0 for q in questions])
            return super().scores(canvas, questions) * broken[:, None]

    chosen = items(table)
    (table.parent / "2.png").write_bytes(b"gone")
    records = [r for group in answers(evaluation(Fragile()), chosen, CHOSEN) for r in group]
    failed = {r["item"]: r["error"] for r in records if r["error"]}
    assert set(failed) == {"q2", "q5"} and len(records) == 24
    assert "has changed" in failed["q2"] and "NaN" in failed["q5"]
    healthy = [r for r in without_seconds(records) if r["item"] not in failed]
    whole = [r for group in answers(evaluation(Colors()), items(draw_table(table.parent)), CHOSEN) for r in group]
    expected = {(r["item"], r["attack"]): r["prediction"] for r in whole}
    assert all(r["prediction"] == expected[r["item"], r["attack"]] for r in healthy)
    work = Certification(
        model=Waist(Fragile(), CPU), canvas=CANVAS, smoothing=Smoothing(sigma=0.3, n0=5, n=50), seed=0, batch=16
    )
    found = {r["item"]: r for r in certificates(work, chosen)}
    assert "NaN" in found["q5"]["error"] and found["q5"]["radius"] is None and found["q5"]["correct"] is False


class Hungry(Colors):
    """Runs out of memory above a number of rows."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        if len(canvas) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().scores(canvas, questions)


def test_out_of_memory_halves_the_batch_and_goes_on(table: Path) -> None:
    whole = [r for group in answers(evaluation(Colors(), batch=8), items(table), CHOSEN) for r in group]
    small = [r for group in answers(evaluation(Hungry(2), batch=8), items(table), CHOSEN) for r in group]
    assert [r["prediction"] for r in small] == [r["prediction"] for r in whole]
    smoothing = Smoothing(sigma=0.3, n0=10, n=90)
    votes = []
    for model in (Colors(), Hungry(5)):
        work = Certification(model=Waist(model, CPU), canvas=CANVAS, smoothing=smoothing, seed=0, batch=64)
        votes.append([(r["votes0"], r["votes"]) for r in certificates(work, items(table))])
    assert votes[0] == votes[1]
    starved = [r for group in answers(evaluation(Hungry(0)), items(table), CHOSEN[:1]) for r in group]
    assert len(starved) == 8 and all("out of memory" in r["error"] for r in starved)


def test_what_a_model_raises_is_the_items_fault_and_names_its_place(table: Path) -> None:
    class Buggy(Colors):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            if any("image 6" in q.text for q in questions):
                raise ValueError("cannot do\nimage 6")
            return super().scores(canvas, questions)

    records = [r for group in answers(evaluation(Buggy()), items(table), CHOSEN) for r in group]
    assert {r["item"] for r in records if r["error"]} == {"q6"}
    errors = {r["error"] for r in records if r["error"]}
    assert len(errors) == 1 and "raised ValueError at test_pipeline.py:" in next(iter(errors))


def test_our_own_bugs_are_not_swallowed(table: Path) -> None:
    def keep(*arguments: object) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(answers(evaluation(Colors(), keep=keep), items(table), CHOSEN))
    assert faults.out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp:116] can't allocate memory"))
    assert not faults.out_of_memory(RuntimeError("shape mismatch"))


def test_native_canvases_of_different_sizes(table: Path) -> None:
    from PIL import Image

    Image.new("RGB", (30, 20), (200, 9, 9)).save(table.parent / "1.png")
    work = evaluation(Colors(), canvas=data.Canvas(size=None), batch=8)
    records = [r for group in answers(work, items(table), CHOSEN[:1]) for r in group]
    assert {r["item"] for r in records} == {f"q{i}" for i in range(8)} and not any(r["error"] for r in records)


def test_a_model_that_only_votes_is_answered_with(table: Path) -> None:
    class Voter:
        def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
            return torch.where(canvas.mean((1, 2, 3)) > 0.5, 1, len(question.options))

    chosen = [attacks.parse(spec) for spec in ("clean", "noise:eps=1/255")]
    records = [r for group in answers(evaluation(Voter()), items(table), chosen) for r in group]
    assert len(records) == 16 and not any(r["error"] or r["log_probs"] for r in records)
    assert {r["prediction"] for r in records} == {1, None}
    assert all(r["correct"] == (r["prediction"] == r["label"]) for r in records)


def test_the_official_path_has_the_same_guards(table: Path) -> None:
    class Official(Colors):
        def official_scores(self, image: object, question: Question) -> torch.Tensor:
            if "image 4" in question.text:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.tensor([torch.nan if "image 2" in question.text else 0.0, 1.0, -9.0][: len(question.options)])

    records = [r for group in answers(evaluation(Official()), items(table), CHOSEN[:1], official=True) for r in group]
    official = {r["item"]: r for r in records if r["attack"] == "official"}
    assert len(official) == 8
    assert {item for item, r in official.items() if r["error"]} == {"q2", "q4"}
    assert official["q0"]["prediction"] == 1 and official["q2"]["prediction"] is None


# ----------------------------------------------------------------- breakdown


def test_certified_accuracy_by_hand(tmp_path: Path) -> None:
    """Five items: radius 0.307 right, 0.616 right, 0.495 wrong, one abstained, one failed."""
    records = [
        certified(0, 920),
        certified(1, 1000, modality="MRI"),
        certified(2, 990, chosen=0),
        certified(3, 500),
        failed(4),
    ]
    assert [r["radius"] and round(r["radius"], 3) for r in records] == [0.307, 0.616, 0.495, None, None]
    out = write_run(tmp_path / "run", records, "certify")
    summary = numbers(out, {"0": 0.0, "0.3": 0.3, "0.31": 0.31, "2": 2.0})
    curve = summary.overall["certified"]
    assert [curve[r]["certified_accuracy"] for r in ("0", "0.3", "0.31", "2")] == [0.4, 0.4, 0.2, None]
    assert curve["2"]["above_ceiling"] and not curve["0.31"]["above_ceiling"]
    assert summary.overall["average_radius"] == pytest.approx((0.30677 + 0.61582) / 5, abs=1e-5)
    assert summary.overall["median_radius"] is None, "fewer than half are certified right"
    assert (summary.overall["abstained"], summary.overall["wrong"], summary.failed) == (1, 1, 1)
    assert summary.by_modality["MRI"]["median_radius"] == pytest.approx(0.61582, abs=1e-5)
    assert [summary.by_modality[m]["n"] for m in ("CT", "MRI")] == [4, 1]
    assert list(summary.by_question_type) == ["unknown"]
    two = numbers(write_run(tmp_path / "two", [certified(0, 920), certified(1, 500)], "certify")).overall
    assert two["median_radius"] == pytest.approx(0.30677, abs=1e-5), "half are enough"
    assert summary.notes["ceiling"] == pytest.approx(0.6158, abs=1e-3)


def test_breakdown_agrees_with_a_pandas_one_liner(table: Path, tmp_path: Path) -> None:
    records = [r for group in answers(evaluation(Colors()), items(table), CHOSEN) for r in group]
    out = write_run(tmp_path / "run", records, "evaluate", conditions=[str(one) for one in CHOSEN])
    summary = numbers(out)
    frame = pd.DataFrame(records)
    for (modality, attack), share in frame.groupby(["modality", "attack"])["correct"].mean().items():
        assert summary.by_modality[modality][attack]["accuracy"] == pytest.approx(share)
    for name in (str(a) for a in CHOSEN):
        whole = summary.overall[name]
        assert whole["n"] == sum(part[name]["n"] for part in summary.by_question_type.values()) == 8
        assert whole["correct"] == sum(part[name]["correct"] for part in summary.by_modality.values())
        assert whole["clusters"] == 4, "items of a patient are one cluster"


def test_image_blind_items_are_counted(table: Path, tmp_path: Path) -> None:
    class Blind(Brightness):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            seen = super().scores(canvas, questions)
            blind = torch.tensor([[-9.0, 9.0, -9.0]])[:, : seen.shape[1]]
            return torch.where(torch.tensor(["image 1" in q.text for q in questions])[:, None], blind + 0 * seen, seen)

    huge = [attacks.parse(spec) for spec in ("clean", "pgd:eps=1", "noise:eps=1", "pgd:eps=8/255")]
    records = [r for group in answers(evaluation(Blind()), items(table), huge) for r in group]
    out = write_run(tmp_path / "run", records, "evaluate", conditions=[str(one) for one in huge])
    summary = numbers(out)
    blind = {name: cell["image_blind"] for name, cell in summary.overall.items()}
    assert blind == {
        "clean": None,
        "pgd:eps=1,steps=10": 1,
        "noise:eps=1": None,
        "pgd:eps=8/255,steps=10": None,
    }
    assert [summary.by_modality[m]["pgd:eps=1,steps=10"]["image_blind"] for m in ("CT", "MRI")] == [1, 0]


def test_an_empty_run_says_nothing(tmp_path: Path) -> None:
    summary = numbers(write_run(tmp_path / "run", [], "certify", items=5))
    assert (summary.items, summary.expected, summary.overall["n"]) == (0, 5, 0)
    assert summary.overall["certified"]["0"]["certified_accuracy"] is None
    assert summary.overall["average_radius"] is None and summary.overall["median_radius"] is None


def test_a_curve_of_many_radii_is_thinned_out_from_below(tmp_path: Path) -> None:
    """At most 120 of 150 radii are drawn, the smallest and the largest too; each with its own share."""
    votes = range(700, 1000, 2)
    run = Run.read(write_run(tmp_path / "run", [certified(i, k) for i, k in enumerate(votes)], "certify"))
    curve, radius = curve_of(run), run.frame()["radius"].to_numpy()
    assert curve is not None and len(np.unique(radius)) == 150
    assert curve.share == pytest.approx([(radius >= at).mean() for at in curve.radii])
    assert len(curve.radii) <= MOST_POINTS + 2 and {0.0, radius.min(), radius.max()} < set(curve.radii)
    assert set(curve.radii) - {0.0, run.ceiling} < set(radius)


# ------------------------------------------------ what a referee's mutants asked for


class Spy(Brightness):
    """Keeps the sums of all canvases that it has seen."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        self.seen += canvas.double().sum((1, 2, 3)).tolist()
        return super().scores(canvas, questions)


def test_noise_differs_between_purposes_items_and_seeds(table: Path) -> None:
    """Four items that share one image, two seeds, selection and estimation: no draw occurs twice."""
    one = items(table)[0]
    same_image = [replace(one, id=f"copy {number}") for number in range(4)]
    spy = Spy()
    for seed in (0, 1):
        work = Certification(
            model=Waist(spy, CPU), canvas=CANVAS, smoothing=Smoothing(sigma=0.25, n0=20, n=40), seed=seed, batch=8
        )
        for item in same_image:
            work.certify(item)
    assert len(spy.seen) == 2 * 4 * 60 == len(set(spy.seen))


def test_random_starts_differ_between_items_attacks_and_seeds(table: Path) -> None:
    one = items(table)[0]
    same_image = [replace(one, id=f"copy {number}") for number in range(4)]
    kept: list[torch.Tensor] = []

    def keep(item: Item, condition: str, clean: torch.Tensor, attacked: torch.Tensor, wrong: bool) -> None:
        kept.append((attacked - clean).flatten())

    chosen = [attacks.parse(spec) for spec in ("noise:eps=4/255", "noise:eps=8/255")]
    for seed in (0, 1):
        list(answers(evaluation(Colors(), seed=seed, keep=keep), same_image, chosen))
    assert len(kept) == 2 * 2 * 4
    alike = torch.corrcoef(torch.stack(kept)) - torch.eye(len(kept))
    assert alike.abs().max() < 0.2, "another eps is another draw, not the same one scaled"


def test_the_judged_canvas_is_the_attacked_one(table: Path) -> None:
    """The record's log-probabilities are those of the very canvas that was kept."""
    kept: dict[str, torch.Tensor] = {}

    def keep(item: Item, condition: str, clean: torch.Tensor, attacked: torch.Tensor, wrong: bool) -> None:
        kept[item.id] = attacked

    waist = Waist(Colors(), CPU)
    groups = answers(evaluation(Colors(), keep=keep), items(table), CHOSEN[2:])
    by_id = {item.id: item for item in items(table)}
    for record in (record for group in groups for record in group):
        again = waist.classify([by_id[record["item"]].question])(kept[record["item"]][None])[0]
        assert record["log_probs"] == pytest.approx(again.tolist(), abs=1e-6)
        delta = kept[record["item"]].double() - data.canvas_of(by_id[record["item"]], CANVAS).double()
        assert (record["linf"], record["l2"]) == pytest.approx((float(delta.abs().max()), float(delta.norm())))


def test_an_abstention_with_a_majority_for_gold_is_not_correct(table: Path) -> None:
    class Torn(Spy):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            lead = (canvas[:, 0, 0, 0] - data.canvas_of(items(table)[0], CANVAS)[0, 0, 0] + 0.03) * 100
            return torch.stack([-lead, lead, -99 + 0 * lead], 1)

    work = Certification(
        model=Waist(Torn(), CPU), canvas=CANVAS, smoothing=Smoothing(sigma=0.25, n0=50, n=50), seed=0, batch=50
    )
    record = work.certify(items(table)[0]).to_json()
    assert record["votes"][record["label"]] > 25 and record["abstained"] == "p_lower <= 1/2"
    assert record["prediction"] is None and not record["correct"] and record["radius"] is None


def test_notes_by_hand(tmp_path: Path) -> None:
    """Canvas cost: official less clean. Steps: the median over flipped rows. Grey levels: RMS over three channels."""

    pgd = attacks.parse("pgd:eps=4/255")
    records = [evaluated(i, "clean", i < 5) for i in range(10)]
    records += [evaluated(i, "official", i < 8, steps=None) for i in range(10)]
    records += [evaluated(i, str(pgd), i < 2, steps=steps) for i, steps in enumerate([10, 10, 2, 4, 9, 0, 0, 0, 0, 0])]
    conditions = ["clean", str(pgd), "official"]
    summary = numbers(write_run(tmp_path / "a", records, "evaluate", conditions=conditions))
    assert summary.notes["canvas_cost"] == pytest.approx(0.3)
    assert summary.overall[str(pgd)]["median_steps"] == 4
    certified_run = numbers(write_run(tmp_path / "b", [certified(0, 920)], "certify"), {"at": 0.6158, "over": 0.6159})
    assert certified_run.notes["grey_levels_per_radius"] == pytest.approx(255 / np.sqrt(3 * 384 * 384))
    wide = numbers(write_run(tmp_path / "c", [certified(0, 920)], "certify", spec={"canvas": "20x40 pad"}))
    assert wide.notes["grey_levels_per_radius"] == pytest.approx(255 / np.sqrt(3 * 20 * 40))
    ceiling = certified_run.notes["ceiling"]
    exactly = numbers(tmp_path / "b", {"top": ceiling, "over": np.nextafter(ceiling, 1)}).overall["certified"]
    assert not exactly["top"]["above_ceiling"] and exactly["over"]["above_ceiling"]


@pytest.mark.parametrize("stop", [True, None])
def test_a_summary_says_whether_draws_ended_with_a_wrong_selection(stop: bool | None, tmp_path: Path) -> None:
    spec = {"stop_when_wrong": stop} if stop else {}
    assert (
        numbers(write_run(tmp_path / "run", [certified(0, 920)], "certify", spec=spec)).asked["stop_when_wrong"] is stop
    )
