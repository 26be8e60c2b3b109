"""The planted test of an attack: it finds a region that exists by construction, or it is able to find nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import call
from toys import AB, ABCD, SHAPE, linear, middle_canvases

import safemed_eval as se
from safemed_eval import attacks
from safemed_eval.core import PLANTED, Question
from safemed_eval.errors import RunError, SpecError
from safemed_eval.faults import ShrinkingBatch
from safemed_eval.models.checks.common import Finding
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.report.findings.verdict import verdict_on
from safemed_eval.report.page import write_page
from safemed_eval.runs.tally import Outcome, Tally
from safemed_eval.runs.work import planted
from safemed_eval.runs.work.landscape import slope_at
from safemed_eval.runs.work.planted import fit, plant

PGD, L2 = "pgd:eps=8/255,steps=10", "pgd:eps=0.5,norm=l2,steps=10"
NOISE = "noise:eps=8/255"


class Features:
    """Linear features of a canvas, and scores read from them; `cut` stands between them and the pixels."""

    def __init__(self, size: int = 24, cut: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        self._maps = torch.randn((int(np.prod(SHAPE)), size), generator=torch.Generator().manual_seed(0))
        self._cut = cut

    def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        return self._cut(canvas).flatten(1) @ self._maps

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        return self.features(canvas, questions)[:, :4]


def detached(x: torch.Tensor) -> torch.Tensor:
    """Gradients are there, and zero."""
    return x.detach() + 0 * x


def astray(x: torch.Tensor) -> torch.Tensor:
    """Fine quantisation, whose gradient is replaced by one that leads another way at each pixel."""
    signs = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5)).sign()
    return (x * 4096).round().detach() / 4096 + 1e-6 * signs * x


def outcomes(model: object, spec: str = PGD, rows: int = 6, **kw: bool) -> list[Outcome]:
    asked = [(str(i), ABCD, canvas) for i, canvas in enumerate(middle_canvases(rows))]
    waist = Waist(model, torch.device("cpu"))
    memory = ShrinkingBatch(64)
    return [plant(waist, attacks.parse(spec), row, seed=0, memory=memory, **kw) for row in asked]


def test_the_slope_of_a_linear_model_is_that_of_the_closed_form() -> None:
    """A step of eps / 4 along the sign of the gradient adds eps / 4 * ||w||_1, and no random one adds more."""
    model, attack, canvas = linear(), attacks.parse(PGD), middle_canvases(1)[0]
    slope = slope_at(Waist(model, torch.device("cpu")), attack, ("x", AB, canvas), seed=0)
    assert slope.gain == pytest.approx(8 / 255 / 4 * float(model.weight.norm(p=1)), rel=1e-4)
    assert slope.spread == 0 and slope.by_chance < slope.gain / 2 and slope.uphill


@pytest.mark.parametrize("place", range(4))
def test_the_slope_is_that_of_the_log_odds_of_all_other_options_together(place: int) -> None:
    """Wherever the answered option stands among four: the loss is ln((1 - p) / p) of its probability p."""

    class Turned(Features):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            return super().scores(canvas, questions).roll(place - first, 1) / 10

    def loss(point: torch.Tensor) -> torch.Tensor:
        chance = (Features().scores(point, [ABCD]) / 10).softmax(1)[0, first]
        return ((1 - chance) / chance).log()

    canvas = middle_canvases(1)
    first = int(Features().scores(canvas, [ABCD]).argmax())
    x = canvas.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    slope = slope_at(Waist(Turned(), torch.device("cpu")), attacks.parse(PGD), ("x", ABCD, canvas[0]), seed=0)
    assert slope.gain == pytest.approx(float(loss(canvas + 2 / 255 * gradient.sign()) - loss(canvas)), rel=1e-4)
    assert slope.spread == 0 and slope.by_chance < slope.gain and slope.uphill


class Noisy(Features):
    def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        told = super().features(canvas, questions)
        return told + 100 * torch.randn(told.shape, generator=self._rng)

    _rng = torch.Generator().manual_seed(3)


def test_a_loss_that_changes_from_call_to_call_and_a_gradient_astray_are_seen() -> None:
    row, attack = ("x", ABCD, middle_canvases(1)[0]), attacks.parse(PGD)
    noisy = slope_at(Waist(Noisy(), torch.device("cpu")), attack, row, seed=0)
    assert noisy.spread > 1 and not noisy.uphill
    assert not slope_at(Waist(Features(cut=detached), torch.device("cpu")), attack, row, seed=0).uphill
    assert not slope_at(Waist(Features(cut=astray), torch.device("cpu")), attack, row, seed=0).uphill


@pytest.mark.parametrize(
    ("statuses", "verdict", "reasons"),
    [
        ({"a": "pass", "b": "pass", "c": "n/a"}, "believe", ("a", "b")),
        ({"a": "pass", "b": "pass", "c": "warn"}, "not enough", ("c",)),
        ({"a": "n/a", "b": "pass", "c": "pass"}, "not enough", ("a or A",)),
        ({"a": "n/a", "A": "pass", "b": "pass"}, "believe", ("A", "b")),
        ({"a": "pass", "b": "warn"}, "not enough", ("b",)),
        ({"a": "pass", "b": "pass", "c": "fail", "d": "warn"}, "do not believe", ("c",)),
    ],
)
def test_verdicts(statuses: dict[str, str], verdict: str, reasons: tuple[str, ...]) -> None:
    checks = [Finding(name, status, "") for name, status in statuses.items()]  # type: ignore[arg-type]
    told = verdict_on(checks, [["a", "A"], ["b"]])
    assert (told.verdict, told.reasons) == (verdict, reasons)


@pytest.mark.parametrize("spec", [PGD, L2, "apgd:eps=8/255,steps=10", "suite:eps=8/255,steps=5,queries=50"])
def test_a_working_attack_finds_every_region_that_random_search_misses(spec: str) -> None:
    tally = Tally.of(spec, outcomes(Features(), spec, rows=8))
    assert tally.missed == tally.unfit == tally.failed == 0 and tally.random <= 1
    assert tally.status == "pass" and f"finds it in {tally.found} of {tally.found} images" in str(tally)


@pytest.mark.parametrize("cut", [detached, astray])
def test_cut_and_misleading_gradients_find_nothing(cut: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tally = Tally.of(PGD, outcomes(Features(cut=cut), rows=8))
    assert tally.found == 0 and tally.missed >= 7
    assert tally.status == "fail"


def test_random_search_is_no_attack() -> None:
    tally = Tally.of(NOISE, outcomes(Features(), NOISE, rows=8))
    assert tally.found == 0 and tally.status == "fail"


def test_a_region_that_random_search_finds_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along one direction alone some of the points that are tried lie farther out than a single planted one."""
    monkeypatch.setattr(planted, "SURFACE", 1)
    tally = Tally.of(PGD, outcomes(Features(size=1), rows=8))
    assert tally.told < 5 and tally.random + tally.unfit > 3
    assert tally.status == "n/a" and "too few images" in str(tally)


def test_features_that_do_not_see_the_image_cannot_be_fitted() -> None:
    assert outcomes(Features(cut=torch.zeros_like)) == ["unfit"] * 6


def test_a_model_that_raises_fails_the_image_alone() -> None:
    class Raises(Features):
        def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            if bool(canvas[0].mean() > 0.5):
                raise ValueError("too bright")
            return super().features(canvas, questions)

    means = middle_canvases(6).flatten(1).mean(1)
    found = outcomes(Raises())
    assert [outcome == "failed" for outcome in found] == (means > 0.5).tolist() and len(set(found)) > 1


def test_an_image_has_the_same_outcome_in_any_company_and_batch() -> None:
    whole = outcomes(Features(size=3), rows=8)
    waist, asked = Waist(Features(size=3), torch.device("cpu")), list(enumerate(middle_canvases(8)))[::-1]
    attack, memory = attacks.parse(PGD), ShrinkingBatch(7)
    turned = [plant(waist, attack, (str(i), ABCD, canvas), seed=0, memory=memory) for i, canvas in asked]
    assert whole == turned[::-1] and len(set(whole)) > 1


def test_quantised_attacks_are_tested_on_grey_levels() -> None:
    assert set(outcomes(Features(), quantize=True)) <= {"found", "random"}


def test_the_separator_has_the_largest_margin() -> None:
    """Against the closed form: from the corner of a square to a point beyond it, the direction is the diagonal."""
    inner = np.array([[0.5, 0.5], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    readout = fit(inner, np.array([[3.0, 3.0]]))
    assert readout is not None
    assert readout.log_odds(inner).max() == pytest.approx(-planted.CLOSENESS)
    assert readout.log_odds(np.array([[3.0, 3.0]])) == pytest.approx([1 - planted.CLOSENESS])
    assert readout.weights[0] == pytest.approx(readout.weights[1])
    assert readout.weights @ np.array([2.0, 2.0]) == pytest.approx(1)  # the gap is that from (1, 1) to (3, 3)


def test_the_farthest_of_separable_surface_points_is_planted() -> None:
    inner = np.random.default_rng(0).normal(size=(50, 2))
    readout = fit(inner, np.array([[0.0, 0.0], [0.0, 9.0], [20.0, 0.0]]))
    assert readout is not None and abs(readout.weights[0]) > abs(readout.weights[1])
    assert fit(inner, np.array([[0.0, 0.0]])) is None and fit(np.zeros((3, 2)), np.zeros((1, 2))) is None


@pytest.mark.parametrize(
    ("found", "missed", "status"),
    [(16, 0, "pass"), (19, 1, "pass"), (15, 1, "warn"), (13, 3, "fail"), (0, 5, "fail"), (4, 0, "n/a"), (0, 0, "n/a")],
)
def test_statuses(found: int, missed: int, status: str) -> None:
    """13 of 16 is significantly below 95 %: the probability of at most 13 is 0.043. Of at most 15 it is 0.56."""
    tally = Tally(attack="x", found=found, missed=missed, random=1, unfit=0, failed=0)
    assert tally.status == status


def test_features_of_a_checkpoint_are_what_its_output_head_reads(
    waist: Callable[[str], Waist], canvases: torch.Tensor, questions: list[Question]
) -> None:
    """Times the rows of the head they are the very scores."""
    model = waist("qwen2_vl")
    network: Any = model.scorer
    x = canvases.clone().requires_grad_()
    features = model.features(x, questions)
    head = network.model.get_output_embeddings()
    logits = features @ head.weight[network.letters(4)].float().T
    for row, question, log_probs in zip(logits, questions, model.classify(questions)(canvases), strict=True):
        count = len(question.options)
        assert torch.allclose(row[:count].log_softmax(0), log_probs[:count], atol=1e-4)
    (gradient,) = torch.autograd.grad(features.square().sum(), x)
    assert bool(gradient.flatten(1).any(1).all())


def test_an_attack_on_a_real_architecture_finds_what_is_planted(
    waist: Callable[[str], Waist], canvases: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted, "INNER", 48)
    monkeypatch.setattr(planted, "SURFACE", 16)
    monkeypatch.setattr(planted, "TRIES", 24)
    rows = [(str(i), ABCD, canvas) for i, canvas in enumerate(canvases)]
    model, attack, memory = waist("qwen2_vl"), attacks.parse(PGD), ShrinkingBatch(32)
    told = [plant(model, attack, row, seed=0, memory=memory) for row in rows]
    assert set(told) <= {"found", "random"} and "found" in told


def test_a_model_without_features_is_refused_before_the_run(table: Path, tmp_path: Path) -> None:
    shared = ["--data", f"table:{table}", "--canvas", "16x16", "--out", tmp_path / "run", "--planted", 4]
    toy = ["--model", "python:safemed_eval.models.toy:brightness"]
    for arguments, said in [
        ([*toy, "--attack", "pgd"], "has no method 'features'"),
        ([*toy, "--attack", "noise"], "no attack of this run follows gradients"),
        ([*toy, "--attack", "pgd", "--smooth", "sigma=0.1,n=30"], "without noise"),
    ]:
        code, text = call("evaluate", *shared, *arguments)
        assert code == 2 and said in text
    code, text = call("models", "check", toy[1], "--attack", "pgd")
    assert code == 2 and "--planted" in text


class Shown(Features):
    """As a plug-in: features of canvases of any size."""

    def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        return super().features(torch.nn.functional.adaptive_avg_pool2d(canvas, SHAPE[1:]), questions)


class Astray(Shown):
    """Its gradient reaches the pixels, and leads another way."""

    def features(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        signs = torch.randn((3, 16, 18), generator=torch.Generator().manual_seed(5)).sign()
        told = super().features(canvas, questions).detach()
        return told + 1e-4 * (signs * canvas).sum((1, 2, 3))[:, None] * torch.arange(told.shape[1])


def test_a_run_stores_and_shows_the_test_of_its_attacks(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked: dict[str, Any] = {"attacks": ["fgsm:eps=8/255", PGD], "planted": 6, "out": out}
    data = se.load_data(f"table:{table}", canvas="16x18")
    run = se.evaluate(Shown(), data, **asked)
    stored = json.loads((out / "run.json").read_text())["planted"]
    assert [tally["attack"] for tally in stored] == ["fgsm:eps=8/255", PGD]
    counts = {key: value for key, value in stored[1].items() if key != "attack"}
    assert sum(counts.values()) == 6 and counts["missed"] == counts["failed"] == 0
    check = {check.name: check for check in run.summary.notes.checklist}[PLANTED]
    assert check.status == "pass" and PGD in check.detail and "fgsm" not in check.detail
    assert run.summary.to_json()["notes"]["planted"] == stored
    again = se.evaluate(Shown(), data, **asked)
    assert again.meta.planted == run.meta.planted
    with pytest.raises(RunError, match="planted"):
        se.evaluate(Shown(), data, **(asked | {"planted": 5}))


def test_a_run_whose_gradients_mislead_is_not_believed(table: Path) -> None:
    run = se.evaluate(Astray(), se.load_data(f"table:{table}", canvas="16x18"), attacks=[PGD], planted=8)
    notes = run.summary.notes
    assert notes.verdict is not None and notes.verdict.verdict == "do not believe"
    assert PLANTED in notes.verdict.reasons


@pytest.mark.parametrize(("model", "verdict"), [(Shown, "pass"), (Astray, "fail")])
def test_models_check_ends_in_a_verdict(model: type[Shown], verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = se.check_model(model(), canvas="16x18", planted=True, attack=PGD)
    assert found[-1].name == "can the attack be believed?" and found[-1].status == verdict
    assert {check.name: check.status for check in found}[PLANTED] == verdict


def test_models_check_says_what_is_missing() -> None:
    found = {
        f.name: f for f in se.check_model("python:safemed_eval.models.toy:brightness", canvas="16x16", planted=True)
    }
    assert found[PLANTED].status == "n/a" and "features" in found[PLANTED].detail
    assert found["can the attack be believed?"].status == "n/a"


def test_gradients_go_straight_through_a_denoiser_that_cuts_the_graph() -> None:
    def rounds(canvas: torch.Tensor) -> torch.Tensor:
        return (canvas.detach() * 15).round() / 15

    model, x = linear(), middle_canvases(2).requires_grad_()
    behind = Waist(model, torch.device("cpu"), rounds)
    scores = behind.classify([AB] * 2)(x)
    assert torch.equal(scores, Waist(model, torch.device("cpu")).classify([AB] * 2)(rounds(x)))
    (gradient,) = torch.autograd.grad((scores[:, 0] - scores[:, 1]).sum(), x)
    assert torch.allclose(gradient, model.weight.expand_as(gradient), atol=1e-5)


def pull_to_grey() -> Callable[[torch.Tensor], torch.Tensor]:
    """A denoiser, for a command."""
    return lambda canvas: 0.5 + (canvas - 0.5) / 2


def test_a_defended_model_is_attacked_through_itself_without_its_defence(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    toy = "python:safemed_eval.models.toy:brightness"
    data, attack = se.load_data(f"table:{table}", canvas="16x16"), f"transfer:from={toy},eps=8/255"
    with pytest.raises(SpecError, match="is the model that is judged"):
        se.evaluate(toy, data, attacks=[attack])
    behind = se.load_model(toy, denoiser="python:test_planted:pull_to_grey", device="cpu")
    run = se.evaluate(behind, data, attacks=[attack])
    assert run.summary.failed == 0 and {record.linf for record in run.answers.under(run.conditions[1])} != {0.0}
    smoothed = se.evaluate(toy, data, attacks=[attack], smooth="sigma=0.1,n=30")
    assert smoothed.summary.failed == 0
    advice = se.evaluate(behind, data, attacks=["pgd"]).summary.notes.checklist
    assert any("without its defence" in check.detail for check in advice)


def test_the_verdict_stands_in_terminal_page_and_json(table: Path, tmp_path: Path) -> None:
    toy = "python:safemed_eval.models.toy:brightness"
    asked = ["evaluate", "--model", toy, "--data", f"table:{table}", "--canvas", "16x16", "--attack", "pgd"]
    code, text = call(*asked, "--out", tmp_path / "run")
    assert code == 0 and "Verdict: not enough (open: " in text and PLANTED in text
    notes = json.loads(call(*asked, "--out", tmp_path / "run", "--json")[1])["notes"]
    assert notes["verdict"]["verdict"] == "not enough" and notes["planted"] == []
    write_page([Run.read(tmp_path / "run")], tmp_path / "page.html", title="one")
    assert "<b>Verdict</b>: not enough (open: " in (tmp_path / "page.html").read_text()
