"""A failure is no success of an attack: what cannot be measured is refused before a run, or shown as failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from running import answers
from synthetic import ATTACKS, certified, evaluated, failed, numbers, write_run
from test_cli import call
from test_pipeline import Colors, evaluation, items

from safemed_eval import attacks
from safemed_eval.core import GROUNDED, Question
from safemed_eval.errors import CheckpointError
from safemed_eval.report import Run
from safemed_eval.report.conditions import role_of, strongest
from safemed_eval.report.findings.checklist import checklist
from safemed_eval.report.findings.unanswered import failures
from safemed_eval.report.summary import EvaluateSummary
from safemed_eval.report.tables import tables_of

PGD = ATTACKS[2]
SQUARE = "art:SquareAttack,eps=4/255,max_iter=2"
LOST: dict[str, Any] = {"prediction": None, "log_probs": None, "steps": None, "linf": None, "l2": None}
WHOLE_SPECS = {
    "art": SQUARE,
    "corrupt": "corrupt:kind=blur,severity=1",
    "overlay": "overlay:text=X,size=5",
    "prompt": "prompt:kind=prefix",
    "transfer": "transfer:from=x",
}


def lost(number: int, attack: str, error: str = "broken", **changes: Any) -> dict[str, Any]:
    """The record of an item that failed under an attack."""
    return evaluated(number, attack, False, error=error, **LOST | changes)


# --------------------------------------------------------------------------------- what an attack needs of a model


class Sparing(Colors):
    """Counts what it is asked, and gives its scores without a gradient."""

    def __init__(self) -> None:
        self.asked = 0

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        self.asked += len(canvas)
        return super().scores(canvas.detach(), questions)


class Voting:
    """Only votes."""

    def __init__(self) -> None:
        self.asked = 0

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        self.asked += len(canvas)
        return (canvas.mean((1, 2, 3)) > 0.5).long()


@pytest.mark.parametrize("name", attacks.names())
def test_every_attack_needs_what_it_says_and_no_more(name: str, table: Path) -> None:
    """It runs without a fault on a model that has what it names alone, and is refused before the first item by one
    that has less."""
    attack, voting = attacks.parse(WHOLE_SPECS.get(name, name)), Voting()
    if attack.needs in ((), ("votes",), ("scores",)):
        model = Sparing() if attack.needs == ("scores",) else voting
        records = [one for group in answers(evaluation(model), items(table), [attack]) for one in group]
        assert len(records) == 8 and not any(one["error"] for one in records)
        assert model.asked
    if attack.needs and not attack.surrogates:
        asked = voting.asked
        with pytest.raises(CheckpointError, match=f"--attack {name}.*: needs .* and the model (only votes|does not)"):
            next(answers(evaluation(voting), items(table), [attacks.parse("clean"), attack]))
        assert voting.asked == asked


def test_a_surrogate_that_only_votes_is_refused(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "votes_for_transfer.py").write_text(
        "class M:\n    def vote(self, canvas, question): return (canvas.mean((1, 2, 3)) > 0.5).long()\nmake = M\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shared = ["--data", f"table:{table}", "--canvas", "32x32", "--out", tmp_path / "run"]
    toy, votes = "python:safemed_eval.models.toy:brightness", "python:votes_for_transfer:make"
    code, text = call("evaluate", "--model", toy, *shared, "--attack", f"transfer:from={votes}")
    assert code == 2 and f"and {votes} only votes" in text and not (tmp_path / "run").exists()
    assert call("evaluate", "--model", votes, *shared, "--attack", f"transfer:from={toy}")[0] == 0


# ------------------------------------------------------------------------------ conditions under which all failed

FAILING = """
from safemed_eval.models.toy import Brightness

class M(Brightness):
    def __init__(self, when): self.when = when
    def scores(self, canvas, questions):
        if any(self.when(int(q.text.split()[-1].strip("?")), canvas.requires_grad) for q in questions):
            raise ValueError("no luck")
        return super().scores(canvas, questions)

def attacked(): return M(lambda number, gradient: gradient)
def always(): return M(lambda number, gradient: True)
def half(): return M(lambda number, gradient: number % 2)
"""


@pytest.fixture
def broken(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a command on a model that passes its checks at load, which are left out here, and then raises."""
    monkeypatch.setattr("safemed_eval.models.check.check", lambda *_, **__: [])
    (tmp_path / "failing_for_test.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(command: str, model: str, *options: object) -> tuple[int, str]:
        model = f"python:failing_for_test:{model}"
        return call(command, "--model", model, "--data", f"table:{table}", "--canvas", "32x32", *options)

    return run


def test_an_attack_that_failed_on_every_item_has_no_accuracy_and_an_exit_code(broken: Any, tmp_path: Path) -> None:
    command = ("evaluate", "attacked", "--attack", "noise", "--attack", PGD, "--out", tmp_path / "run")
    code, text = broken(*command)
    assert code == 3
    assert f"{PGD}: failed, nothing was measured; the first error: the model raised ValueError" in text
    assert "failed" in {line.split()[-1] for line in text.splitlines() if line.startswith("all")}
    assert broken(*command)[0] == 3, "again, from the records"
    summary = numbers(tmp_path / "run")
    clean, cell = (json.loads(json.dumps(summary.overall))[name] for name in ("clean", PGD))
    assert [cell[key] for key in ("accuracy", "lower", "upper", "correct", "without_failed")] == [None] * 5
    assert cell["all_failed"] and 0 < clean["correct"] <= cell["failed"] <= cell["n"]
    assert list(summary.all_failed) == [PGD]
    other = write_run(tmp_path / "other", [], "evaluate")
    for name in ("run.json", "records.jsonl"):
        (other / name).write_bytes((tmp_path / "run" / name).read_bytes())
    code, text = call("compare", tmp_path / "run", other)
    assert code == 2 and "items failed, which is no pass" in text


def test_a_certify_run_that_failed_on_every_item_certifies_neither_0_nor_anything(broken: Any, tmp_path: Path) -> None:
    options = ("--sigma", 0.25, "--n", 30, "--n0", 5, "--out", tmp_path / "run")
    code, text = broken("certify", "always", *options)
    assert code == 3, text
    assert "certify: failed, nothing was measured" in text
    overall = numbers(tmp_path / "run").overall
    assert overall["certified"]["0"]["certified_accuracy"] is overall["average_radius"] is overall["wrong"] is None
    assert overall["failed"] == overall["n"] == 8
    code, text = broken("certify", "always", *options, "--json")
    parsed = json.loads(text[: text.rindex("}") + 1])
    assert code == 3 and parsed["overall"]["certified"]["0"]["certified_accuracy"] is None
    assert list(parsed["all_failed"]) == ["certify"]


def test_where_some_items_failed_the_figure_without_them_stands_beside_the_other(broken: Any, tmp_path: Path) -> None:
    code, text = broken("evaluate", "half", "--attack", "noise", "--out", tmp_path / "run")
    assert code == 0 and "(4 failed, else " in text and "4 of 8 items failed and count as wrong." in text
    cell = numbers(tmp_path / "run").overall["noise:eps=4/255"]
    assert cell["n"] == 8 and cell["without_failed"]["n"] == 4
    assert cell["correct"] == cell["without_failed"]["count"]


def test_shares_with_and_without_failed_items_by_hand(tmp_path: Path) -> None:
    """20 items, CT and MRI; under fgsm 5 of the CT fail and 10 others are right, under pgd all MRI fail."""
    records = []
    for i in range(20):
        slices = {"modality": "CT" if i < 10 else "MRI", "question_type": "t"}
        records += [
            evaluated(i, ATTACKS[0], True, **slices),
            lost(i, ATTACKS[1], **slices) if i < 5 else evaluated(i, ATTACKS[1], i < 15, **slices),
            evaluated(i, PGD, i < 4, **slices) if i < 10 else lost(i, PGD, **slices),
        ]
    run = Run.read(write_run(tmp_path / "run", records, "evaluate"))
    summary = numbers(run)
    clean, fgsm, pgd = (summary.overall[name] for name in ATTACKS)
    assert (clean["accuracy"], clean["failed"], clean["without_failed"]) == (1.0, 0, None)
    assert (fgsm["accuracy"], fgsm["without_failed"]["share"]) == (0.5, 10 / 15)
    assert (pgd["accuracy"], pgd["without_failed"]["share"]) == (0.2, 0.4)
    assert summary.by_modality["MRI"][PGD]["all_failed"] and summary.by_modality["MRI"][PGD]["accuracy"] is None
    assert summary.by_modality["CT"][PGD]["accuracy"] == 0.4 and not summary.all_failed
    tables = {table.name: table for table in tables_of([run], radii=None)}
    assert "(5 failed, else 66.6 " in tables["accuracy"].shown[ATTACKS[1]][0].replace("66.7", "66.6")
    by_modality = tables["accuracy-by-modality"].shown.set_index("modality")
    assert by_modality.loc["MRI", PGD] == "failed"
    assert tables["methods-by-modality"].shown.set_index("attack").loc[PGD, "MRI"] == "failed"
    shares = tables["accuracy"].values.set_index("column")["share_without_failed"]
    assert shares[ATTACKS[1]] == pytest.approx(10 / 15) and shares.isna()["clean"]


def test_items_that_were_wrong_when_clean_do_not_stand_for_an_attack_that_failed(tmp_path: Path) -> None:
    """A search leaves what is wrong already as it is: where it failed on all others, it was not made."""
    rows = [evaluated(i, "clean", i < 4) for i in range(10)]
    rows += [lost(i, PGD) if i < 4 else evaluated(i, PGD, False, steps=0) for i in range(10)]
    run = Run.read(write_run(tmp_path / "run", rows, "evaluate", conditions=["clean", PGD]))
    assert run.all_failed == {PGD: "broken"} and numbers(run).overall[PGD]["accuracy"] is None
    assert failures(run) == [f"every item that was right when clean failed under {PGD}, and nothing was measured."]
    rows[10] = evaluated(0, PGD, False)
    one_fell = Run.read(write_run(tmp_path / "fell", rows, "evaluate", conditions=["clean", PGD]))
    assert not one_fell.all_failed and numbers(one_fell).overall[PGD]["accuracy"] == 0.0


def test_certified_shares_with_and_without_failed_items(tmp_path: Path) -> None:
    """Three of four certified at 0.3; six failed: 30 % with, 75 % without, rounded down."""
    records = [*(certified(i, 1000 if i < 3 else 500) for i in range(4)), *(failed(i) for i in range(4, 10))]
    run = Run.read(write_run(tmp_path / "run", records, "certify"))
    point = numbers(run, {"0.3": 0.3}).overall["certified"]["0.3"]
    assert (point["certified_accuracy"], point["without_failed"]["share"], point["failed"]) == (0.3, 0.75, 6)
    (table,) = (table for table in tables_of([run], radii="0.3") if table.name == "certified")
    assert "(6 failed, else 75.0 " in table.shown["r>=0.3"][0]


# ------------------------------------------------------------------------------- what else reads failures as outcomes


def test_a_black_box_that_failed_does_not_accuse_the_gradients(tmp_path: Path) -> None:
    names = ["clean", PGD, SQUARE]
    rows = [evaluated(i, name, True) for i in range(40) for name in names[:2]]
    rows += [lost(i, SQUARE) for i in range(40)]
    run = Run.read(write_run(tmp_path / "run", rows, "evaluate", conditions=names))
    found = {check.name: check for check in checklist(run)}
    assert found["gradients beat what sees none"].status == "n/a"
    assert "SquareAttack" not in found["only right answers can fall"].detail
    assert role_of(SQUARE) == "attack" and strongest(run, run.summary.overall) == PGD


def test_the_strongest_attack_is_not_the_one_that_failed_most(tmp_path: Path) -> None:
    """FGSM leaves 8 of the 10 right on which it did not fail, PGD 12 of 20."""
    rows = [evaluated(i, "clean", True) for i in range(20)]
    rows += [evaluated(i, ATTACKS[1], i < 8) if i < 10 else lost(i, ATTACKS[1]) for i in range(20)]
    rows += [evaluated(i, PGD, i < 12) for i in range(20)]
    run = Run.read(write_run(tmp_path / "run", rows, "evaluate"))
    assert strongest(run, run.summary.overall) == PGD


def test_failures_do_not_make_the_canvas_cost_anything(tmp_path: Path) -> None:
    names = ["clean", "official"]
    rows = [evaluated(i, "official", True) for i in range(10)]
    rows += [lost(i, "clean") if i < 5 else evaluated(i, "clean", i < 9) for i in range(10)]
    run = Run.read(write_run(tmp_path / "run", rows, "evaluate", conditions=names))
    assert numbers(run).notes["canvas_cost"] == pytest.approx(0.2)


def test_a_model_that_works_has_no_failures(tmp_path: Path) -> None:
    run = Run.read(write_run(tmp_path / "run", [evaluated(i, a, True) for i in range(3) for a in ATTACKS], "evaluate"))
    assert failures(run) == [] and run.all_failed == {}


def test_grounded_accuracy_is_no_attack_of_its_own() -> None:
    run = Run.read(Path(__file__).parents[1] / "reports/grounded/evaluate-sft")
    assert isinstance(run.summary, EvaluateSummary)
    grounded, all_right = (run.summary.overall[name].count for name in (f"{GROUNDED}, {PGD}", PGD))
    assert grounded is not None and all_right is not None and grounded < all_right
    assert strongest(run, run.summary.overall) == PGD
