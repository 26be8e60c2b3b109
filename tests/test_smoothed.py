"""The smoothed model at work: PREDICT against its promise, gradients that average over noise, evaluate --smooth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from running import answers
from scipy import stats as sps
from synthetic import evaluated, numbers, write_run
from test_cli import call
from test_pipeline import CANVAS, CPU, Colors, evaluation, items, without_seconds

from safemed_eval import attacks
from safemed_eval.core import Question
from safemed_eval.data import canvas_of
from safemed_eval.errors import RunError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Gaussian, Voting, read_prediction
from safemed_eval.smoothing.copies import noisy_copies
from safemed_eval.smoothing.scores import SmoothedClassify

AB = Question(text="Which?", options=("A", "B"))
ABC = Question(text="Which?", options=("A", "B", "C"))
SHAPE = (3, 4, 4)
TOY = "python:safemed_eval.models.toy:brightness"


@pytest.mark.parametrize(
    ("votes", "prediction", "abstained"),
    [
        ((80, 20, 0), 0, None),
        ((20, 80, 0), 1, None),
        ((60, 40, 0), None, "p_value > alpha"),
        ((50, 50, 0), None, "p_value > alpha"),
        ((10, 10, 80), None, "no answer won"),
        ((40, 5, 55), None, "p_value > alpha"),
        ((0, 11, 0), 1, None),
        ((0, 10, 0), None, "p_value > alpha"),
    ],
)
def test_predictions_from_votes(votes: tuple[int, ...], prediction: int | None, abstained: str | None) -> None:
    found = read_prediction(votes, 0.001)
    assert (found.prediction, found.abstained) == (prediction, abstained)
    best, second = sorted(votes, reverse=True)[:2]
    assert found.p_value == pytest.approx(sps.binomtest(best, best + second, 0.5).pvalue)


def test_a_false_answer_is_rarer_than_alpha() -> None:
    """P(an answer that is not the smoothed model's), summed over all counts of two classes, for every p."""
    answers = [read_prediction((k, 60 - k, 0), 0.01).prediction for k in range(61)]
    for p in np.linspace(0.01, 0.5, 50):
        mass = sps.binom.pmf(np.arange(61), 60, p)
        assert mass[[answer == 0 for answer in answers]].sum() <= 0.01 * (1 + 1e-9)
    assert sps.binom.pmf(np.arange(61), 60, 0.5)[[answer is not None for answer in answers]].sum() > 0.002


def smoothed(model: object, questions: Sequence[Question], sigma: float = 0.3, m: int = 64) -> SmoothedClassify:
    rngs = [generator("cpu", 0, "eot", row) for row in range(len(questions))]
    return SmoothedClassify(Waist(model, CPU).classify(questions), noise=Gaussian(sigma), m=m, generators=rngs)


def linear() -> Linear:
    return Linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)), bias=0.5)


def test_scores_of_the_smoothed_model_are_mean_probabilities() -> None:
    """The mean of a sigmoid over the margin's normal distribution, by quadrature."""
    toy, x = linear(), torch.full((1, *SHAPE), 0.5)
    mean, spread = float(toy.margin(x)), 0.3 * float(toy.weight.norm())
    places, weights = np.polynomial.hermite_e.hermegauss(80)
    truth = float((weights / (1 + np.exp(-(mean + spread * places)))).sum() / weights.sum())
    found = smoothed(toy, [AB], m=40_000)(x).exp()[0]
    assert float(found[0]) == pytest.approx(truth, abs=0.01) and float(found.sum()) == pytest.approx(1, abs=1e-5)


def test_padded_options_stay_out_and_gradients_finite() -> None:
    class Three(Linear):
        def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
            return torch.tanh(canvas.flatten(1)[:, :3] * 5)

    canvas = torch.full((2, *SHAPE), 0.5).requires_grad_()
    found = smoothed(Three(linear().weight), [AB, ABC])(canvas)
    assert found.isneginf().tolist() == [[False, False, True], [False] * 3]
    (gradient,) = torch.autograd.grad((found[:, 0] - found[:, 1]).sum(), canvas)
    assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(1) > 0).all()


def test_the_attack_on_a_smoothed_model_reaches_the_closed_form_optimum() -> None:
    """The mean gradient of a linear model is along its weight: the margin falls by eps ||w||_2."""
    toy, x = linear(), torch.full((3, *SHAPE), 0.5)
    attack = attacks.parse("pgd:eps=0.4,norm=l2,steps=40").on_smoothed
    rngs = [generator("cpu", 0, row) for row in range(3)]
    found = attack(smoothed(toy, [AB] * 3, m=16), x, torch.zeros(3, dtype=torch.int64), rngs)
    drop = toy.margin(x) - toy.margin(found.canvas)
    assert drop.min() > 0.99 * toy.best_drop(attack.threat)
    assert found.steps == [40, 40, 40], "a row does not stop at the first flip that it sees"


def test_a_row_is_attacked_alike_in_any_batch() -> None:
    x = torch.rand((4, *SHAPE), generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(4, dtype=torch.int64)
    attack = attacks.parse("pgd:eps=0.1,steps=3,restarts=2").on_smoothed

    def rngs(rows: Sequence[int], purpose: str) -> list[torch.Generator]:
        return [generator("cpu", 0, purpose, row) for row in rows]

    def run(rows: list[int]) -> torch.Tensor:
        bound = Waist(linear(), CPU).classify([AB] * len(rows))
        classify = SmoothedClassify(bound, noise=Gaussian(0.3), m=4, generators=rngs(rows, "eot"))
        return attack(classify, x[rows], labels[rows], rngs(rows, "start")).canvas

    torch.testing.assert_close(run([0, 1, 2, 3])[2], run([2])[0], atol=1e-6, rtol=0)


def test_votes_do_not_depend_on_the_batch_or_on_restarts(table: Path) -> None:
    chosen = [attacks.parse(spec) for spec in ("clean", "pgd:eps=8/255,steps=2", "noise:eps=8/255")]
    voting = Voting(sigma=0.1, n=33, m=3)

    def run(batch: int, done: Sequence[tuple[str, str]] = ()) -> dict[tuple[str, str], dict[str, object]]:
        work = evaluation(Colors(), batch=batch, voting=voting)
        groups = answers(work, items(table), chosen, done=lambda *key: key in done)
        return {(str(r["item"]), str(r["attack"])): r for r in without_seconds([r for g in groups for r in g])}

    whole = run(3)
    assert all(sum(record["votes"]) == 33 for record in whole.values())  # type: ignore[call-overload]
    assert [r["votes"] for r in whole.values()] == [run(8)[key]["votes"] for key in whole]
    rest = run(3, done=list(whole)[:10])
    assert rest == {key: whole[key] for key in list(whole)[10:]} or set(rest) == set(list(whole)[10:])
    votes = {attack: [r["votes"] for (_, a), r in whole.items() if a == attack] for attack in map(str, chosen)}
    assert votes["clean"] != votes["noise:eps=8/255"], "each condition has noise of its own"
    assert CANVAS.size == (24, 24)


def test_the_smoothed_model_itself_is_attacked(table: Path) -> None:
    """Each gradient is over m noisy copies of a row, and no row stops at a flip that it happens to see."""

    class Spied(Colors):
        def __init__(self) -> None:
            self.slopes: list[torch.Tensor] = []

        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            if canvas.requires_grad:
                self.slopes.append(canvas.detach())
            return super().scores(canvas, questions)

    spied = Spied()
    work = evaluation(spied, batch=2, voting=Voting(sigma=0.1, n=33, m=5))
    (records,) = answers(work, items(table)[:2], [attacks.parse("pgd:eps=64/255,steps=3,step=1")])
    assert [record["steps"] for record in records] == [3, 3]
    assert [len(rows) for rows in spied.slopes] == [2 * 5] * 3
    for rows in spied.slopes:
        for copies in rows.split(5):
            spread = (copies - copies.mean(0)).square().sum(0).div(4).mean().sqrt()
            assert float(spread) == pytest.approx(0.1, rel=0.05)


class Scribe(Colors):
    """Writes what Colors sees, and nothing that can be read where the image is dark."""

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        seen = zip(self.scores(canvas, questions).argmax(1).tolist(), canvas.mean((1, 2, 3)) > 0.3, strict=True)
        return [f"<think>So it is.</think><answer>{'ABC'[one]}</answer>" if bright else "dark" for one, bright in seen]


def test_generated_answers_vote(table: Path) -> None:
    """The votes are those of each noisy copy's text, read; unreadable ones are a class of their own."""
    asked, voting = items(table), Voting(sigma=0.2, n=40)
    (records,) = answers(evaluation(Scribe(), batch=8, voting=voting), asked, [attacks.parse("clean")])
    model, silent = Waist(Scribe(), CPU), 0
    for record, item in zip(records, asked, strict=True):
        streams = partial(generator, "cpu", 0, "predict", "clean", item.id)
        copies = next(noisy_copies(canvas_of(item, CANVAS), Gaussian(0.2), 40, 40, streams))
        said = model.answer(copies, [item.question] * 40).predictions
        votes = [said.count(option) for option in (*range(len(item.question.options)), None)]
        assert record["votes"] == votes and sum(votes) == 40
        found = read_prediction(tuple(votes), voting.alpha)
        assert (record["prediction"], record["abstained"]) == (found.prediction, found.abstained)
        silent += votes[-1]
    assert silent > 0


def test_a_checkpoint_that_writes_is_smoothed_and_attacked(tmp_path: Path) -> None:
    asked = ["--model", "builtin:sft", "--data", "phantom:images=16", "--limit", 2, "--readout", "generate"]
    out = tmp_path / "run"
    code, text = call(
        *["evaluate", *asked, "--smooth", "sigma=0.02,n=15,m=2", "--attack", "pgd:eps=4/255,steps=2", "--out", out]
    )
    assert code == 0, text
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert len(records) == 4 and all(sum(one["votes"]) == 15 and not one["error"] for one in records)
    assert all(one["steps"] == 2 for one in records if one["attack"] != "clean")


def test_evaluate_smooth_counts_abstentions_as_wrong(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shared = ["evaluate", "--model", TOY, "--data", f"table:{table}", "--canvas", "16x16", "--out", out]
    code, text = call(*shared, "--attack", "pgd:eps=4/255,steps=2", "--smooth", "sigma=0.3,n=40")
    assert (
        code == 0
        and "smooth sigma=0.3,noise=gaussian,n=40,alpha=0.001,m=8" in text
        and "Abstained, counted as wrong" in text
    )
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert all(record["correct"] == (record["prediction"] == record["label"]) for record in records)
    clean = numbers(out).overall["clean"]
    unclear = [record for record in records if record["attack"] == "clean" and record["abstained"]]
    assert clean["abstained"] == len(unclear) and clean["no_answer"] == 0
    assert clean["correct"] == sum(record["correct"] for record in records if record["attack"] == "clean")
    assert call(*shared, "--attack", "pgd:eps=4/255,steps=2")[0] == 2, "without --smooth it is another run"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smooth", "sigma=0"], "sigma must be above 0"),
        (["--smooth", "sigma=0.25,n=5"], "unanimous votes decide nothing"),
        (["--smooth", "sgma=0.25"], "did you mean 'sigma'"),
        (["--smooth", "0.25"], "not key=value"),
        (["--smooth", "n=100"], "needs sigma"),
        (["--smooth", "sigma=0.1", "--attack", "apgd"], "use pgd or fgsm"),
        (["--smooth", "sigma=0.1", "--official", "--model", "builtin:sft"], "without noise"),
        (["--smooth", "sigma=0.1", "--circular"], "without noise"),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], message: str, table: Path) -> None:
    code, text = call("evaluate", "--model", TOY, "--data", f"table:{table}", *options)
    assert code == 2 and message in text


@pytest.mark.parametrize(
    "change",
    [{"votes": [0, 99, 0, 0]}, {"prediction": 0, "correct": False}, {"abstained": "p_value > alpha"}, {"votes": None}],
)
def test_an_answer_that_its_votes_do_not_give_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    spec = {"smooth": vars(Voting(sigma=0.25))}
    voted = {"votes": [0, 100, 0, 0], "p_value": 0.0, "abstained": None}
    record = evaluated(0, "clean", True, **voted)
    whole = Run.read(write_run(tmp_path / "whole", [record], "evaluate", conditions=["clean"], spec=spec))
    assert whole.name == "toy, smoothed at sigma 0.25"
    out = write_run(tmp_path / "edited", [record | change], "evaluate", conditions=["clean"], spec=spec)
    with pytest.raises(RunError, match=r"does not follow from its votes|are not 100 votes"):
        Run.read(out)
