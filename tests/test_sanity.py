"""The checklist of an attack run: each check by hand, and a masked gradient that it must not miss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from running import answers
from synthetic import certified, evaluated, write_run
from test_cli import call
from test_pipeline import Colors, evaluation, items

from safemed_eval import attacks
from safemed_eval.core import Question
from safemed_eval.faults import BROKEN_GRADIENT
from safemed_eval.models.toy import Linear
from safemed_eval.report import Run
from safemed_eval.report.findings.checklist import checklist

PGD, FGSM, NOISE = "pgd:eps=4/255,steps=10", "fgsm:eps=4/255", "noise:eps=4/255"
TRANSFER = "transfer:eps=4/255,from=other,steps=10"
N = 40


def run_of(out: Path, right: dict[str, int], *, spec: Any = None, meta: Any = None, **fields: Any) -> Run:
    """A run in which so many of N items stay right under each condition; `fields` go to attacks."""
    records = [
        evaluated(number, name, number < count, **({} if name == "clean" else fields))
        for name, count in {"clean": N, **right}.items()
        for number in range(N)
    ]
    return Run.read(write_run(out, records, "evaluate", conditions=["clean", *right], spec=spec, **(meta or {})))


def checks(out: Path, right: dict[str, int], **settings: Any) -> dict[str, tuple[str, str]]:
    """The checklist of such a run."""
    return {check.name: (check.status, check.detail) for check in checklist(run_of(out, right, **settings))}


def test_a_check_that_fails_is_a_failure_and_one_that_warns_a_warning(tmp_path: Path) -> None:
    """And nothing is said of each check that passes, nor that the attacks are not to be believed where none fails."""
    fine, flat = {NOISE: 38, FGSM: 20, PGD: 5}, [0.0, 5.0, 9.0, 10.0, 10.0]
    for number, (right, dead, severities, failed) in enumerate(
        [
            (fine | {PGD: 30}, 0.02, {"stronger attacks are stronger": "fail", "gradients are finite": "warn"}, True),
            (fine, 0.02, {"gradients are finite": "warn"}, False),
            (fine, 0.0, {}, False),
        ]
    ):
        run = run_of(tmp_path / str(number), right, dead=dead, climb=flat)
        said = {finding.sentence: finding.severity for finding in run.findings if finding.key == "check"}
        assert len(said) == len(severities)
        for name, severity in severities.items():
            (sentence,) = [sentence for sentence in said if name in sentence]
            assert said[sentence] == severity and sentence.startswith(f"attack check '{name}")
        assert [finding.severity for finding in run.findings if finding.key == "failed-check"] == ["fail"] * failed


@pytest.mark.parametrize(
    ("right", "status"),
    [
        ({NOISE: 38, FGSM: 20, PGD: 5}, "pass"),
        ({NOISE: 5, FGSM: 20, PGD: 20}, "fail"),
        ({FGSM: 5, PGD: 20}, "fail"),
        ({FGSM: 19, PGD: 20}, "pass"),
        ({NOISE: 38, PGD: 38}, "fail"),
        ({NOISE: 0, PGD: 0}, "pass"),
        ({PGD: 5}, "n/a"),
        ({FGSM: 20, "pgd:eps=8/255,steps=10": 30}, "n/a"),
    ],
)
def test_order_of_strength(right: dict[str, int], status: str, tmp_path: Path) -> None:
    assert checks(tmp_path / "run", right)["stronger attacks are stronger"][0] == status


def broken_for(out: Path, right: dict[str, int], attack: str, broken: range, wrong: range = range(0)) -> Run:
    """The same, but an attack fails on these items; others are wrong under every condition."""
    lost = {"prediction": None, "correct": False, "log_probs": None, "error": "broken"}
    records = [
        evaluated(number, name, number < count and number not in wrong)
        | (lost if name == attack and number in broken else {})
        for name, count in {"clean": N, **right}.items()
        for number in range(N)
    ]
    return Run.read(write_run(out, records, "evaluate", conditions=["clean", *right]))


def test_what_an_attack_failed_on_it_did_not_flip(tmp_path: Path) -> None:
    """PGD fails on ten items and flips no other, as noise does; of the five that a transfer did search it flips one."""
    run = broken_for(tmp_path / "a", {NOISE: N, PGD: N}, PGD, range(10))
    assert {check.name: check.status for check in checklist(run)}["stronger attacks are stronger"] == "fail"
    run = broken_for(tmp_path / "b", {PGD: N, TRANSFER: N - 1}, TRANSFER, range(N - 5))
    found = {check.name: check for check in checklist(run)}["gradients beat what sees none"]
    assert found.status == "warn" and "flips 1 of 5 that" in found.detail


def test_a_huge_eps_that_failed_flips_nothing(tmp_path: Path) -> None:
    """What was wrong already is left alone: that it is wrong under the attack is no evidence that the attack works."""
    huge = "pgd:eps=1,steps=10"
    run = broken_for(tmp_path / "run", {huge: N}, huge, range(30), wrong=range(30, N))
    assert run.all_failed
    found = {check.name: check.status for check in checklist(run)}
    assert found["a huge eps flips everything"] == "n/a"


@pytest.mark.parametrize(
    ("small", "large", "status"), [(20, 5, "pass"), (20, 20, "pass"), (5, 20, "fail"), (5, 6, "pass")]
)
def test_order_of_eps(small: int, large: int, status: str, tmp_path: Path) -> None:
    right = {"pgd:eps=2/255,steps=10": small, PGD: large}
    assert checks(tmp_path / "run", right)["a larger eps is stronger"][0] == status


@pytest.mark.parametrize(
    ("right", "status"),
    [
        ({"pgd:eps=1,steps=10": 0}, "pass"),
        ({"pgd:eps=1,steps=10": 1}, "warn"),
        ({"pgd:eps=1,steps=10": 10}, "fail"),
        ({"pgd:eps=1,steps=10,target=random": 10, PGD: 3}, "n/a"),
        ({"fgsm:eps=1": 10}, "n/a"),
        ({PGD: 3}, "n/a"),
    ],
)
def test_a_huge_eps(right: dict[str, int], status: str, tmp_path: Path) -> None:
    assert checks(tmp_path / "run", right)["a huge eps flips everything"][0] == status


@pytest.mark.parametrize(
    ("climb", "status"),
    [([0.0, 5.0, 8.0, 9.5, 10.0], "pass"), ([0.0, 2.5, 5.0, 7.5, 10.0], "warn"), ([1.0] * 5, "n/a"), (None, "n/a")],
)
def test_steps_that_still_climb(climb: list[float] | None, status: str, tmp_path: Path) -> None:
    assert checks(tmp_path / "run", {PGD: 5}, climb=climb)["more steps would not help"][0] == status


def test_more_restarts_that_still_help(tmp_path: Path) -> None:
    more, flat = f"{PGD},restarts=10", [0.0, 5.0, 9.0, 10.0, 10.0]
    name = "more steps would not help"
    assert checks(tmp_path / "a", {PGD: 20, more: 5}, climb=flat)[name][0] == "warn"
    assert checks(tmp_path / "b", {PGD: 20, more: 19}, climb=flat)[name][0] == "pass"


@pytest.mark.parametrize(("dead", "status"), [(0.0, "pass"), (0.02, "warn"), (0.5, "fail"), (None, "n/a")])
def test_gradients_that_are_zero(dead: float | None, status: str, tmp_path: Path) -> None:
    assert checks(tmp_path / "run", {PGD: 5}, dead=dead)["gradients are finite and not zero"][0] == status


@pytest.mark.parametrize(("broken", "status"), [(0, "pass"), (1, "warn"), (10, "fail"), (N, "fail")])
def test_gradients_that_are_not_finite(broken: int, status: str, tmp_path: Path) -> None:
    """Items whose search failed for that, not for something else, and not the clean ones."""
    told = {"error": "the model's gradient is not finite for 1 of 1 rows", "prediction": None, "dead": None}
    records = [evaluated(i, "clean", True) for i in range(N)]
    records += [evaluated(i, PGD, False, **(told if i < broken else {"dead": 0.0})) for i in range(N)]
    records[-1] |= {"error": "image is gone", "prediction": None, "correct": False, "dead": None} if broken < N else {}
    run = write_run(tmp_path / "run", records, "evaluate", conditions=["clean", PGD])
    (found,) = [check for check in checklist(Run.read(run)) if check.name == "gradients are finite and not zero"]
    assert found.status == status
    assert (f"{broken} of {N - (broken < N)} searches" in found.detail) is (broken > 0)


class Rooted(Colors):
    """The square root of 0, whose gradient is infinite, times 0."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        return super().scores(canvas, questions) + (0 * canvas[:, 0]).sum((1, 2)).sqrt()[:, None]


@pytest.mark.parametrize("spec", ["pgd", "apgd:steps=3", "art:FastGradientMethod"])
def test_an_item_whose_gradient_is_broken_says_so_as_the_checklist_reads_it(spec: str, table: Path) -> None:
    (records,) = answers(evaluation(Rooted(), batch=8), items(table), [attacks.parse(spec)])
    broken = [record["error"].startswith(BROKEN_GRADIENT) for record in records if record["error"]]
    assert broken and all(broken)


@pytest.mark.parametrize(
    ("right", "status"),
    [
        ({PGD: 5, TRANSFER: 30}, "pass"),
        ({PGD: 20, TRANSFER: 2}, "fail"),
        ({PGD: 20, "art:SquareAttack,eps=4/255": 2}, "fail"),
        ({PGD: 20, "art:AutoProjectedGradientDescent,eps=4/255": 2}, "n/a"),
        ({PGD: 20, FGSM: 2}, "n/a"),
    ],
)
def test_a_transfer_that_wins(right: dict[str, int], status: str, tmp_path: Path) -> None:
    assert checks(tmp_path / "run", right)["gradients beat what sees none"][0] == status


def test_a_black_box_that_flips_what_gradients_missed(tmp_path: Path) -> None:
    suite = "suite:eps=4/255,steps=100"
    for number, (left, status) in enumerate({True: "pass", False: "warn"}.items()):
        found = checks(tmp_path / str(number), {suite: 10}, parts={"apgd-ce": True, "square": left})
        assert found["gradients beat what sees none"][0] == status


def test_transfer_and_pgd_that_flip_different_items(tmp_path: Path) -> None:
    """Equally many, but other ones: gradients miss what exists."""
    records = [evaluated(i, "clean", True) for i in range(N)]
    records += [evaluated(i, PGD, i < 20) for i in range(N)] + [evaluated(i, TRANSFER, i >= 20) for i in range(N)]
    run = write_run(tmp_path / "run", records, "evaluate", conditions=["clean", PGD, TRANSFER])
    found = {check.name: check for check in checklist(Run.read(run))}["gradients beat what sees none"]
    assert found.status == "warn" and "flips 20 of 20" in found.detail


@pytest.mark.parametrize(
    ("rounded", "quantize", "status"), [(0, False, "pass"), (1, False, "warn"), (None, False, "n/a"), (1, True, "pass")]
)
def test_rounding_that_undoes(rounded: int | None, quantize: bool, status: str, tmp_path: Path) -> None:
    found = checks(tmp_path / "run", {PGD: 5}, rounded=rounded, spec={"quantize": quantize})
    assert found["8-bit rounding undoes nothing"][0] == status


@pytest.mark.parametrize(
    ("spec", "meta", "precision", "randomness"),
    [
        ({}, {}, "pass", "n/a"),
        (
            {},
            {"checks": [{"name": "same input, same output", "status": "warn", "detail": "largest difference 2"}]},
            "pass",
            "warn",
        ),
        ({}, {"model": {"dtype": "bfloat16"}}, "n/a", "n/a"),
        (
            {},
            {
                "model": {"dtype": "bfloat16"},
                "checks": [{"name": "gradients in half precision", "status": "warn", "detail": "x"}],
            },
            "warn",
            "n/a",
        ),
        ({"asking": {"readout": "generate", "temperature": 0.7}}, {}, "pass", "warn"),
    ],
)
def test_precision_and_randomness(spec: Any, meta: Any, precision: str, randomness: str, tmp_path: Path) -> None:
    found = checks(tmp_path / "run", {PGD: 5}, spec=spec, meta=meta)
    assert found["gradients in half precision"][0] == precision
    assert found["randomness is averaged over"][0] == randomness


def test_wrong_answers_do_not_count_as_fallen(tmp_path: Path) -> None:
    records = [evaluated(i, "clean", i < 30) for i in range(N)] + [evaluated(i, PGD, i < 10) for i in range(N)]
    run = write_run(tmp_path / "run", records, "evaluate", conditions=["clean", PGD])
    (found,) = [check for check in checklist(Run.read(run)) if check.name == "only right answers can fall"]
    assert found.detail.startswith("of 30 right when clean fell: pgd:eps=4/255,steps=10 20.") and "10" in found.detail


def test_runs_without_an_attack_have_no_checklist(tmp_path: Path) -> None:
    assert checks(tmp_path / "a", {}) == {} == checks(tmp_path / "b", {NOISE: 3})
    assert checklist(Run.read(write_run(tmp_path / "c", [certified(0, 900)], "certify"))) == []


class Masked(Linear):
    """Quantised activations: a staircase, whose gradient is zero but for a leak that leads the wrong way."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        margin = self.margin(canvas)
        stairs = (4 * margin).round() / 4
        half = (stairs - 1e-3 * margin) / 2
        return torch.stack([half, -half, *[torch.full_like(half, -1e4)] * 2], 1)


def masked() -> Masked:
    weight = torch.randn((3, 16, 16), generator=torch.Generator().manual_seed(0)) / 4
    return Masked(weight, bias=-float(weight.sum()) / 2 - 1.5)


def honest() -> Linear:
    return Linear(masked().weight, bias=masked().bias)


@pytest.mark.parametrize(("factory", "fails"), [("masked", True), ("honest", False)])
def test_a_masked_gradient_trips_the_checklist(
    factory: str, fails: bool, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    out = tmp_path / "run"
    shared = ["--data", f"table:{table}", "--canvas", "16x16", "--model", f"python:test_sanity:{factory}", "--out", out]
    transfer = "transfer:eps=16/255,from=python:test_sanity:honest_too"
    attacks = ["noise:eps=16/255", "fgsm:eps=16/255", "pgd:eps=16/255", "pgd:eps=1", transfer]
    code, text = call("evaluate", *shared, *[word for attack in attacks for word in ("--attack", attack)])
    assert code == 0
    found = {check.name: check.status for check in checklist(Run.read(out))}
    assert (found["a huge eps flips everything"] == "fail") is fails
    assert (found["gradients beat what sees none"] in ("warn", "fail")) is fails
    assert ("'a huge eps flips everything': fail" in text) is fails


honest_too: Callable[[], Linear] = honest
