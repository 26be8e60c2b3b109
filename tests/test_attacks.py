"""Attacks against closed forms on the linear toy, against ART, and against their own promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from toys import (
    AB,
    ABCD,
    SHAPE,
    Net,
    WritingLinear,
    WritingNet,
    generators,
    grid_canvases,
    linear,
    middle_canvases,
    run,
)

from safemed_eval import attacks, plugins
from safemed_eval.attacks._common.ascent import Goal
from safemed_eval.attacks.apgd import checkpoints
from safemed_eval.core import Question
from safemed_eval.errors import ModelOutputError, SpecError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.threat import Threat

Height = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Shade(attacks.BallAttack):
    """Darkens every pixel by eps: an attack of another package."""

    facts = attacks.Facts(strength=1, aims_at=None, example="shade:eps=4/255")
    times: int = 1

    def search(self, problem: attacks.Problem) -> attacks.Attacked:
        darker = (problem.canvas - self.threat.eps).clamp(0, 1)
        return attacks.Attacked(canvas=problem.on_grid(darker, self.threat), steps=[self.times] * len(problem))


def plug_in(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    points = {name: EntryPoint(name, value, "safemed_eval.attacks") for name, value in values.items()}
    monkeypatch.setattr(plugins, "plugins", lambda group: points if group == "attacks" else {})


def test_an_attack_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, dusk="test_attacks:Shade")
    assert "dusk" in attacks.names() and "dusk (a plug-in)" in attacks.help_text()
    (attack,) = attacks.parse_all(["Dusk:EPS=8/255"])
    assert isinstance(attack, Shade) and str(attack) == "dusk:eps=8/255" == attack.stream
    assert attack.described == {"attack": "dusk", "eps": 8 / 255, "norm": "linf", "times": 1}
    x = grid_canvases(3)
    found = run("dusk:eps=8/255", Net(), x, torch.zeros(3, dtype=torch.int64), quantize=True)
    assert torch.allclose(found.canvas, (x - 8 / 255).clamp(0, 1), atol=1e-6)
    facts = attacks.facts_of(str(attack), attack.described)
    assert (facts.strength, facts.aims_at, facts.eps, facts.family) == (1, None, 8 / 255, "dusk")
    with pytest.raises(SpecError, match="unknown option 'time'; did you mean 'times'"):
        attacks.parse("dusk:time=2")


def test_an_entry_point_that_is_no_attack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, path="pathlib:Path", gone="no_such_module:Attack")
    with pytest.raises(SpecError, match="plug-in path is not a subclass"):
        attacks.parse("path")
    with pytest.raises(SpecError, match=r"plug-in gone .*cannot be imported: ModuleNotFoundError"):
        attacks.parse("gone")
    assert attacks.facts_of("gone:eps=1/255", {"eps": 1 / 255}).strength is None


def test_a_built_in_attack_keeps_its_name_where_an_entry_point_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, climb="safemed_eval.attacks.pgd:PGD")
    assert str(attacks.parse("climb:eps=8/255")) == str(attacks.parse("pgd:eps=8/255")) == "pgd:eps=8/255,steps=10"


@pytest.mark.parametrize(
    ("spec", "share"),
    [
        ("fgsm:eps=4/255", 1),
        ("fgsm:eps=0.3,norm=l2", 1),
        ("fgsm:eps=4/255,loss=margin", 1),
        ("pgd:eps=4/255", 0.99),
        ("pgd:eps=4/255,loss=margin,start=zero", 1),
        ("pgd:eps=4/255,loss=pm,start=zero", 1),
        ("pgd:eps=0.3,norm=l2", 0.99),
        ("pgd:eps=0.3,norm=l2,steps=40", 0.99),
        ("pgd:eps=0.3,norm=l2,start=zero,early_stop=no", 1),
        ("apgd:eps=4/255,steps=10", 1),
        ("apgd:eps=4/255,steps=10,loss=dlr", 1),
        ("apgd:eps=4/255,steps=10,loss=pm", 1),
        ("apgd:eps=0.3,norm=l2,steps=10", 0.99),
        ("suite:eps=4/255,steps=10,queries=3", 1),
        ("suite:eps=0.3,norm=l2,steps=10,queries=3", 0.99),
        ("transfer:eps=4/255,from=itself", 0.99),
        ("transfer:eps=0.3,norm=l2,from=itself", 0.99),
        ("adaptive:eps=4/255", 0.99),
        ("adaptive:eps=0.3,norm=l2", 0.99),
    ],
)
def test_attacks_reach_the_closed_form_optimum(spec: str, share: float) -> None:
    """The best L-infinity attack lowers the margin by eps ||w||_1, the best L2 attack by eps ||w||_2."""
    toy, x = linear(WritingLinear), middle_canvases()
    toy.bias = 40.0  # every row answers A by a mile: nothing stops early
    attacked = run(spec, toy, x, torch.zeros(len(x), dtype=torch.int64), AB).canvas
    drop = toy.margin(x) - toy.margin(attacked)
    best = toy.best_drop(attacks.parse(spec).threat)
    assert drop.max() <= best * (1 + 1e-5)
    assert drop.min() >= best * (share - 1e-5)


@pytest.mark.parametrize("norm", ["inf", 2])
@pytest.mark.parametrize("steps", [1, 7])
def test_agrees_with_art(norm: str | int, steps: int) -> None:
    """Without random start and early stop, FGSM and PGD are ART's, step by step."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    net, x = Net(), middle_canvases()
    labels = net.scores(x, None).argmax(1)
    eps = 0.05 if norm == "inf" else 0.5
    estimator = PyTorchClassifier(
        torch.nn.Sequential(_Centre(), net.module, _Scale()),
        torch.nn.CrossEntropyLoss(),
        SHAPE,
        4,
        clip_values=(0.0, 1.0),
    )
    ours_norm = "linf" if norm == "inf" else "l2"
    if steps == 1:
        art = FastGradientMethod(estimator, norm=norm, eps=eps)
        spec = f"fgsm:eps={eps},norm={ours_norm},early_stop=no"
    else:
        settings = {"eps": eps, "eps_step": eps / 4, "max_iter": steps, "num_random_init": 0, "verbose": False}
        art = ProjectedGradientDescent(estimator, norm=norm, **settings)
        spec = f"pgd:eps={eps},norm={ours_norm},steps={steps},step=0.25,start=zero,early_stop=no"
    theirs = art.generate(x.numpy(), np.eye(4)[labels.numpy()])
    ours = run(spec, net, x, labels).canvas
    assert np.abs(theirs - x.numpy()).max() > 0.9 * eps / (1 if norm == "inf" else 20)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-6)


class _Centre(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - 0.5


class _Scale(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x


ALL = [
    "clean",
    "noise:eps=8/255",
    "noise:eps=2,norm=l2",
    "fgsm:eps=8/255",
    "fgsm:eps=2,norm=l2",
    "pgd:eps=8/255",
    "pgd:eps=2,norm=l2,restarts=2",
    "pgd:eps=8/255,target=random",
    "pgd:eps=1",
    "apgd:eps=8/255,steps=12",
    "apgd:eps=2,norm=l2,steps=8,restarts=2,loss=dlr",
    "apgd:eps=8/255,steps=8,target=least-likely,loss=dlr",
    "transfer:eps=8/255,from=other,steps=4",
    "transfer:eps=8/255,from=other,steps=4,crops=yes",
    "suite:eps=8/255,steps=6,queries=12",
    "adaptive:eps=8/255,steps=4,refresh=2",
    "adaptive:eps=2,norm=l2,steps=3",
    "art:SquareAttack,eps=8/255,max_iter=10",
    "art:HopSkipJump,eps=1,norm=l2,max_iter=1,init_eval=5,max_eval=10",
    "art:AutoProjectedGradientDescent,eps=8/255,max_iter=5,nb_random_init=1",
    "patch:size=6,steps=10,positions=3",
    "patch:size=6,steps=10,positions=2,placement=random",
    "overlay:kind=finding,size=5",
    "corrupt:kind=noise,severity=4",
    "corrupt:kind=motion,severity=5",
    "corrupt:kind=jpeg,severity=3",
    "corrupt:kind=defocus_blur,severity=2,set=medmnist-c",
    "corrupt:kind=bubble,severity=5,set=medmnist-c",
    "prompt:kind=wrong-hint",
]
UNSEARCHED = ("noise", "overlay", "corrupt", "prompt")
GRADIENT = [spec for spec in ALL if spec not in ("clean", "pgd:eps=1") and not spec.startswith(UNSEARCHED)]


def test_no_attack_is_left_out() -> None:
    """Those that are fitted on other items first have tests of their own, in test_universal."""
    fitted = {
        name for name in attacks.names() if attacks.parse_all([attacks.facts_of(name, {}).example or name])[0].fits
    }
    assert {spec.partition(":")[0] for spec in ALL} | fitted == set(attacks.names()) and fitted == {"universal"}


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("spec", ALL)
def test_every_attack_keeps_its_promises(spec: str, quantize: bool) -> None:
    """Inside the ball and [0, 1], on the grid if asked, same seed same bits, the same in a batch as alone."""
    net, x = WritingNet(), grid_canvases()
    labels = net.scores(x, None).argmax(1)
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    first = run(spec, net, x, labels, quantize=quantize)
    again = run(spec, net, x, labels, quantize=quantize)
    threat = attacks.parse(spec).threat
    assert torch.equal(first.canvas, again.canvas)
    assert float(threat.size(first.canvas - x).max()) <= threat.eps + 1e-6
    assert first.canvas.min() >= 0 and first.canvas.max() <= 1
    if quantize:
        grey = first.canvas.double() * 255
        assert (grey - grey.round()).abs().max() < 1e-4
    for name, value in net.module.state_dict().items():
        assert torch.equal(value, before[name])
    alone = attacks.parse(spec)(
        Waist(net, torch.device("cpu")).classify([ABCD]),
        x[4:5],
        labels[4:5],
        generators()[4:5],
        quantize=quantize,
        questions=[ABCD],
        modalities=["Microscopy"],
    )
    torch.testing.assert_close(alone.canvas[0], first.canvas[4], atol=2e-6, rtol=0)
    assert alone.steps[0] == first.steps[4]


@pytest.mark.parametrize("spec", GRADIENT)
def test_every_search_beats_the_random_control(spec: str) -> None:
    net, x = WritingNet(), middle_canvases(60)
    labels = net.scores(x, None).argmax(1)
    ball = attacks.parse(spec).threat
    noise = f"noise:eps={ball.eps},norm={ball.norm}"
    assert survivors(spec, net, x, labels) < survivors(noise, net, x, labels)


def test_quantized_attacks_lose_little() -> None:
    net, x = Net(), grid_canvases()
    labels = net.scores(x, None).argmax(1)
    for spec in ("fgsm:eps=8/255,early_stop=no", "pgd:eps=3,norm=l2,early_stop=no"):
        loss = []
        for quantize in (False, True):
            attacked = run(spec, net, x, labels, quantize=quantize).canvas
            loss.append(-net.scores(attacked, None).log_softmax(1).gather(1, labels[:, None]).mean())
        assert loss[1] > 0.95 * loss[0]


def test_quantized_steps_hit_the_bound_exactly() -> None:
    """eps = 4/255 is four whole grey levels: float rounding must not cost one."""
    x = grid_canvases()
    toy = linear()
    attacked = run("fgsm:eps=4/255,early_stop=no", toy, x, torch.zeros(len(x), dtype=torch.int64), AB, quantize=True)
    levels = ((attacked.canvas - x).abs() * 255).round()
    free = (x > 5 / 255) & (x < 250 / 255)
    assert levels[free].unique().tolist() == [4.0]


def test_early_stop_counts_steps_and_never_leaves_a_flip_behind() -> None:
    net, x = Net(), middle_canvases(40)
    labels = net.scores(x, None).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # wrong from the start
    found = run("pgd:eps=8/255,steps=20,step=0.1", net, x, labels)
    wrong = net.scores(found.canvas, None).argmax(1) != labels
    assert found.steps[0] == 0 and torch.equal(found.canvas[0], x[0])
    assert all(steps == 20 for steps, flipped in zip(found.steps, wrong, strict=True) if not flipped)
    assert np.mean(wrong.numpy()) > 0 and any(0 < steps < 20 for steps in found.steps)
    plain = run("pgd:eps=8/255,steps=20,step=0.1,early_stop=no", net, x, labels).canvas
    assert (net.scores(plain, None).argmax(1) != labels).sum() <= wrong.sum()


def test_stronger_attacks_are_stronger() -> None:
    net, x = Net(), middle_canvases(60)
    labels = net.scores(x, None).argmax(1)

    def accuracy(spec: str) -> float:
        return float((net.scores(run(spec, net, x, labels).canvas, None).argmax(1) == labels).float().mean())

    chain = ["noise:eps=6/255", "fgsm:eps=6/255", "pgd:eps=6/255", "pgd:eps=6/255,steps=40,restarts=3"]
    found = [accuracy(spec) for spec in chain]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[2]
    assert accuracy("pgd:eps=1") == 0


def test_targets() -> None:
    """A targeted attack raises its target, chosen among the wrong options on the clean image."""
    net, x = Net(), middle_canvases(12)
    scores = net.scores(x, None)
    labels = scores.argmax(1)
    for how in ("runner-up", "least-likely", "random"):
        found = run(f"pgd:eps=0.2,target={how}", net, x, labels)
        assert found.targets is not None
        targets = torch.tensor(found.targets)
        assert (targets != labels).all()
        moved = net.scores(found.canvas, None).log_softmax(1) - scores.log_softmax(1)
        assert (moved.gather(1, targets[:, None]) > 0).all()
        if how == "runner-up":
            assert torch.equal(targets, scores.scatter(1, labels[:, None], -torch.inf).argmax(1))
        if how == "least-likely":
            assert torch.equal(targets, scores.argmin(1))


def test_padded_options_are_never_targets_nor_answers() -> None:
    net, x = Net(), middle_canvases(8)
    asked = [AB if row % 2 else ABCD for row in range(8)]
    classify = Waist(net, torch.device("cpu")).classify(asked)
    labels = classify(x).argmax(1)
    assert (labels[1::2] < 2).all()
    for how in ("runner-up", "least-likely", "random"):
        found = attacks.parse(f"pgd:eps=0.1,target={how}")(classify, x, labels, generators(8))
        assert found.targets is not None and all(target < 2 for target in found.targets[1::2])
    margin = attacks.parse("pgd:eps=0.1,loss=margin")(classify, x, labels, generators(8))
    assert classify(margin.canvas).isfinite().sum(1).tolist() == [4, 2] * 4


def test_an_attack_that_leaves_its_ball_is_stopped() -> None:
    threat = Threat(norm="linf", eps=0.1)
    x = middle_canvases(1)
    with pytest.raises(RuntimeError, match="left its ball"):
        threat.check(x, x + 0.2)
    with pytest.raises(RuntimeError, match=r"left \[0, 1\]"):
        Threat(norm="linf", eps=2.0).check(x, x + 1)
    with pytest.raises(RuntimeError, match="left its ball"):
        threat.check(x, x * torch.nan)


def test_an_attack_that_forgets_the_grid_is_stopped() -> None:
    x = grid_canvases(1)
    with pytest.raises(RuntimeError, match="left the 8-bit grey levels"):
        Threat(norm="linf", eps=0.1).check(x, (x + 0.4 / 255).clamp(0, 1), on_grid=True)


@pytest.mark.parametrize("spec", ["noise:eps=0.5,norm=l2", "fgsm:eps=0.5,norm=l2,early_stop=no"])
def test_l2_lengths_are_exact_on_large_canvases(spec: str) -> None:
    """Summed in float32, the length of 6.75 million pixels is off by more than the ball's tolerance."""
    x = torch.full((1, 3, 1500, 1500), 0.5)
    toy = Linear(torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)) / 1000)
    found = run(spec, toy, x, torch.zeros(1, dtype=torch.int64), AB).canvas
    assert float((found - x).double().norm()) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.0)])
def test_samples_fill_the_ball(norm: str, eps: float) -> None:
    threat = Threat(norm=norm, eps=eps)  # type: ignore[arg-type]
    x = torch.full((400, 1, 1, 2), 0.5)
    size = threat.size(threat.sample(x, generators(400)) - x)
    # In two dimensions the share of a ball's volume within r is (r / eps)^2.
    assert size.max() <= eps + 1e-6
    assert float((size < eps / 2).double().mean()) == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("clean", "clean"),
        ("fgsm:eps=4/255", "fgsm:eps=4/255"),
        ("fgsm", "fgsm:eps=4/255"),
        ("pgd", "pgd:eps=4/255,steps=10"),
        ("pgd:eps=0.0156862745,step=1/3", "pgd:eps=0.0156862745,steps=10,step=0.3333333333333333"),
        (" pgd : eps = 4/255 , steps = 10 ", "pgd:eps=4/255,steps=10"),
        ("pgd:steps=20,eps=0.5,norm=l2,early_stop=no", "pgd:eps=0.5,norm=l2,steps=20,early_stop=no"),
        ("noise:eps=1", "noise:eps=1"),
    ],
)
def test_specs_have_one_spelling(spec: str, canonical: str) -> None:
    attack = attacks.parse(spec)
    assert str(attack) == canonical
    assert attacks.parse(str(attack)) == attack


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pdg:eps=4/255", "did you mean 'pgd'"),
        ("pgd:esp=4/255", "did you mean 'eps'"),
        ("pgd:norm=l2", "norm=l2 needs eps"),
        ("pgd:eps=4", "4/255"),
        ("pgd:eps=4/0", "not a number"),
        ("pgd:eps=nan", "not a number"),
        ("pgd:eps=-1/255", "above 0"),
        ("pgd:eps=4/255,steps=2.5", "not a whole number"),
        ("pgd:eps=4/255,steps=0", "at least 1"),
        ("pgd:eps=4/255,step=2.1", "fraction of eps"),
        ("pgd:eps=4/255,norm=l1", "not a choice"),
        ("pgd:eps=4/255,eps=8/255", "given twice"),
        ("pgd:eps", "not key=value"),
        ("pgd:eps=4/255,early_stop=maybe", "neither yes nor no"),
        ("pgd:eps=4/255,start=zero,restarts=3", "repeat each other"),
        ("clean:eps=1", "takes no options"),
    ],
)
def test_bad_specs_say_what_to_do(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attacks.parse(spec)


# ------------------------------------------------ what a referee's mutants asked for


@pytest.mark.parametrize(
    "spec", ["fgsm:eps=8/255", "pgd:eps=8/255", "pgd:eps=2,norm=l2", "pgd:eps=8/255,early_stop=no"]
)
def test_a_gradient_that_is_not_finite_is_no_robustness(spec: str) -> None:
    """Scores are finite, but the square root of 0 has a gradient of NaN, whose sign is 0."""

    class Root(Linear):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            return super().scores(canvas, questions) + (canvas[:, :, 0] * 0).sum((1, 2)).sqrt()[:, None]

    with pytest.raises(ModelOutputError, match="gradient is not finite for 6 of 6 rows"):
        run(spec, Root(linear().weight, bias=40.0), middle_canvases(), torch.zeros(6, dtype=torch.int64), AB)


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("spec", ["fgsm:eps={},norm=l2", "pgd:eps={},norm=l2,steps=3", "noise:eps={},norm=l2"])
@pytest.mark.parametrize("eps", [0.1, 64 / 255, 0.5, 2.0])
def test_l2_balls_hold_on_flat_images(spec: str, eps: float, quantize: bool) -> None:
    """All pixels are equal and all move alike: rounding errors add up."""

    class Mean:
        def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
            mean = canvas.mean((1, 2, 3)) - 1
            return torch.stack([9 - mean, mean], 1)

    for level in (64, 128, 201):
        x = torch.full((2, 3, 96, 96), level / 255)
        found = run(spec.format(eps), Mean(), x, torch.zeros(2, dtype=torch.int64), AB, quantize=quantize)
        moved = found.canvas.double() - x.double()
        moved = (moved * 255).round() / 255 if quantize else moved
        length = float(moved.flatten(1).norm(dim=1).max())
        assert length <= eps * (1 + 1e-6)
        assert quantize or length >= eps * (1 - 3e-4), "little of it is given away"


class Bumps:
    """Answers B where pixel 0 lies near 0.55; its gradient leads elsewhere from below 0.5."""

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        p = canvas[:, 0, 0, 0]
        bump = 3 * torch.exp(-(((p - 0.55) / 0.01) ** 2)) - 1 + torch.relu(0.5 - p)
        return torch.stack([-bump, bump], 1)


@pytest.mark.parametrize("search", ["pgd:eps=0.08,steps=5,step=0.1", "apgd:eps=0.08,steps=5"])
def test_restarts_help_and_never_harm(search: str) -> None:
    x = torch.full((40, *SHAPE), 0.5)
    labels = torch.zeros(40, dtype=torch.int64)
    classify = Waist(Bumps(), torch.device("cpu")).classify([AB] * 40)

    def flips(restarts: int) -> torch.Tensor:
        return classify(run(f"{search},restarts={restarts}", Bumps(), x, labels, AB).canvas).argmax(1) == 1

    one, ten = flips(1), flips(10)
    assert 0 < one.sum() < ten.sum()
    assert bool((ten | ~one).all()), "what one start flips, ten starts flip"


def test_a_restart_that_ends_lower_is_not_kept() -> None:
    """Without early stop, of two restarts the point with the higher goal is returned."""
    net, x = Net(), middle_canvases(20)
    labels = Waist(net, torch.device("cpu")).classify([ABCD] * 20)(x).argmax(1)
    spec = "pgd:eps=30/255,steps=2,step=1,early_stop=no"
    classify = Waist(net, torch.device("cpu")).classify([ABCD] * 20)

    def loss(found: attacks.Attacked) -> torch.Tensor:
        return -classify(found.canvas).gather(1, labels[:, None])[:, 0]

    one, five = (loss(run(f"{spec},restarts={restarts}", net, x, labels)) for restarts in (1, 5))
    assert bool((five >= one - 1e-6).all()) and bool((five > one + 1e-6).any())


class Crossing:
    """Log-probabilities hang on pixel 0: at 0.5 three rivals together outweigh gold, which still wins; at 0.6 one of
    them wins, and all of them together weigh less than before."""

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        t = ((canvas[:, 0, 0, 0] - 0.5) * 10).clamp(0, 1)
        gold = torch.log(0.3 * (1 - t) + 0.49 * t)
        first = torch.log(0.24 * (1 - t) + 0.5 * t)
        other = torch.log(0.23 * (1 - t) + 0.005 * t)
        return torch.stack([gold, first, other, other], 1)


def test_a_flip_counts_more_than_a_higher_loss() -> None:
    """The cross-entropy falls towards the flip: a flip that is met must be kept nevertheless."""
    x = torch.full((30, *SHAPE), 0.55)
    classify = Waist(Crossing(), torch.device("cpu")).classify([ABCD] * 30)
    at = {value: classify(torch.full((30, *SHAPE), value))[0] for value in (0.5, 0.6)}
    assert at[0.5].argmax() == 0 and at[0.6].argmax() == 1
    assert at[0.5][0] < at[0.6][0], "the loss is higher where the answer is right"
    labels = torch.zeros(30, dtype=torch.int64)
    found = run("pgd:eps=0.05,steps=4,step=0.4", Crossing(), x, labels)
    began_near = classify(run("noise:eps=0.05", Crossing(), x, labels).canvas).argmax(1) == 1
    flipped = classify(found.canvas).argmax(1) == 1
    assert 0 < began_near.sum() < 30
    assert flipped.sum() >= began_near.sum() > 0


def test_the_margin_loss_heeds_one_rival_only() -> None:
    """Where margin and cross-entropy point in opposite directions, margin finds the flip and ce does not."""
    x, labels = torch.full((4, *SHAPE), 0.55), torch.zeros(4, dtype=torch.int64)
    classify = Waist(Crossing(), torch.device("cpu")).classify([ABCD] * 4)
    spec = "pgd:eps=0.05,steps=10,start=zero,loss="
    assert classify(run(f"{spec}margin", Crossing(), x, labels).canvas).argmax(1).eq(1).all()
    assert classify(run(f"{spec}ce", Crossing(), x, labels).canvas).argmax(1).eq(0).all()


@pytest.mark.parametrize("target", ["least-likely", "random", "runner-up"])
def test_a_targeted_attack_never_mends_an_answer(target: str) -> None:
    """Rows that are answered wrongly at once stay as they are."""
    net, x = Net(), middle_canvases(60)
    classify = Waist(net, torch.device("cpu")).classify([ABCD] * 60)
    clean = classify(x).argmax(1)
    labels = (clean + torch.arange(60) % 4) % 4
    found = run(f"pgd:eps=60/255,target={target}", net, x, labels)
    wrong = clean != labels
    assert bool((classify(found.canvas).argmax(1)[wrong] != labels[wrong]).all())
    assert torch.equal(found.canvas[wrong], x[wrong])


def test_a_row_stops_only_when_it_is_sure() -> None:
    """In half precision another batch may judge otherwise: the answer must have changed by more than that."""
    net, x = Net(), grid_canvases(40)
    classify = Waist(net, torch.device("cpu")).classify([ABCD] * 40)
    labels = classify(x).argmax(1)
    found = run("pgd:eps=8/255,steps=60,step=0.02,start=zero", net, x, labels)
    stopped = torch.tensor([steps < 60 for steps in found.steps])
    log_probs = classify(found.canvas)
    gold = log_probs.gather(1, labels[:, None])[:, 0]
    assert stopped.any()
    assert bool((log_probs.amax(1) - gold > 0.049)[stopped].all())


def test_snapping_spends_the_room_on_what_was_cut_most() -> None:
    """Against cutting alone, and against the same number of pixels chosen otherwise."""
    x0 = grid_canvases(1)
    x = (x0 + 0.02 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    threat = Threat(norm="l2", eps=float((x - x0).norm()) * 0.97)
    x = threat.project(x0, x)
    snapped = threat.snap(x0, x)
    delta, grey = ((x - x0).double() * 255).flatten(), ((snapped - x0).double() * 255).round().flatten()
    out = grey != delta.trunc()
    lost = (delta - delta.trunc()).abs()
    assert out.any() and not out.all()
    assert lost[out].min() >= lost[~out].max() - 1e-3


# ---------------------------------------------------------------------------------------------------------------- apgd


def test_step_sizes_are_judged_when_the_paper_says() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(checkpoints(10)) == [3, 5, 6, 7, 8, 9, 10]


class Exact:
    """A wavy network in float64, so sure of A that nothing flips it: searches run to their end, and ties are rare."""

    def __init__(self) -> None:
        net = Net()
        with torch.no_grad():
            net.module[1].weight *= 4  # type: ignore[operator, union-attr]
        self._logits = net.module.double()

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        sure = torch.tensor([40.0, 0, 0, 0], dtype=torch.float64)
        return (3 * self._logits(canvas - 0.5) + sure).log_softmax(1)

    def take(self, rows: Sequence[int]) -> Exact:
        return self


def algorithm_1(height: Height, threat: Threat, x0: torch.Tensor, start: torch.Tensor, steps: int) -> torch.Tensor:
    """APGD for one image, line by line as Croce and Hein 2020 print it; without its return of the highest point."""

    def slope(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        return threat.direction(torch.autograd.grad(height(x), x)[0])

    def f(x: torch.Tensor) -> float:
        return float(height(x))

    w, shares = [0], [0.0, 0.22]
    while shares[-1] < 1:
        w.append(int(np.ceil(round(shares[-1] * steps, 9))))
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    eta, alpha, rho = 2 * threat.eps, 0.75, 0.75
    points = [start, threat.project(x0, start + eta * slope(start))]
    top, tops, halved, rose = max(points, key=f), [f(start)], False, f(points[1]) > f(points[0])
    rises = int(rose)
    for k in range(1, steps):
        z = threat.project(x0, points[k] + eta * slope(points[k]))
        new = threat.project(x0, points[k] + alpha * (z - points[k]) + (1 - alpha) * (points[k] - points[k - 1]))
        rises += f(new) > f(points[k])
        top = max(top, new, key=f)
        if k + 1 in w:
            few = rises < rho * (k + 1 - w[w.index(k + 1) - 1])
            stuck = not halved and f(top) == tops[-1]
            halved, rises = few or stuck, 0
            tops.append(f(top))
            if halved:
                eta, new = eta / 2, top
        points.append(new)
    return top


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.6)])
def test_apgd_is_the_published_algorithm(norm: str, eps: float) -> None:
    """Steps have momentum, are halved, and go on from the highest point; of five images that end up elsewhere."""
    classify, gold = Exact(), torch.zeros(5, dtype=torch.int64)
    spec, x = attacks.parse(f"apgd:eps={eps},norm={norm},steps=30"), middle_canvases(5).double()
    starts = spec.threat.sample(x, generators(5))
    ours = spec(classify, x, gold, generators(5)).canvas

    def height(point: torch.Tensor) -> torch.Tensor:
        return Goal(loss="ce", gold=gold)(classify(point), torch.arange(1))[0].sum()

    theirs = [algorithm_1(height, spec.threat, *pair, 30) for pair in zip(x.split(1), starts.split(1), strict=True)]
    torch.testing.assert_close(ours, torch.cat(theirs), atol=1e-7, rtol=0)


def wavy(rows: int = 200, seed: int = 5) -> tuple[Net, torch.Tensor, torch.Tensor]:
    """A network whose loss is not concave in the ball, and what it answers."""
    net = Net(seed=seed - 5)
    with torch.no_grad():
        net.module[1].weight *= 4  # type: ignore[operator, union-attr]
    x = torch.rand((rows, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return net, x, net.scores(x, None).argmax(1)


def survivors(spec: str, net: Net, x: torch.Tensor, labels: torch.Tensor) -> float:
    attacked = run(spec, net, x, labels).canvas
    return float((net.scores(attacked, None).argmax(1) == labels).float().mean())


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.012), ("l2", 0.18)])
def test_apgd_is_at_least_as_strong_as_pgd(norm: str, eps: float) -> None:
    net, x, labels = wavy()
    plain, auto = (survivors(f"{name}:eps={eps},norm={norm},steps=20", net, x, labels) for name in ("pgd", "apgd"))
    assert 0.1 < auto <= plain + 0.005 < 0.9


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_apgd_is_as_strong_as_arts(seed: int) -> None:
    """Robust accuracy at most 1 point above that of ART's AutoProjectedGradientDescent, at the same budget."""
    from art.attacks.evasion import AutoProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    net, x, labels = wavy(seed=seed)
    estimator = PyTorchClassifier(
        torch.nn.Sequential(_Centre(), net.module, _Scale()),
        torch.nn.CrossEntropyLoss(),
        SHAPE,
        4,
        clip_values=(0.0, 1.0),
    )
    art = AutoProjectedGradientDescent(
        estimator, eps=0.012, eps_step=0.024, max_iter=20, nb_random_init=1, batch_size=len(x), verbose=False
    )
    theirs = estimator.predict(art.generate(x.numpy(), np.eye(4)[labels.numpy()])).argmax(1)
    robust = float((theirs == labels.numpy()).mean())
    assert 0.1 < robust < 0.9
    assert survivors("apgd:eps=0.012,steps=20", net, x, labels) <= robust + 0.01


def test_the_difference_of_logits_ratio_by_hand() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0], [3.0, 2.0, -torch.inf, -torch.inf]])
    rows, gold = torch.arange(2), torch.tensor([0, 1])
    value, _, _ = Goal(loss="dlr", gold=gold)(scores, rows)
    assert value.tolist() == [-0.5, 1.0], "-(3 - 2) / (3 - 1); two options have no third: the margin"
    value, _, _ = Goal(loss="dlr", gold=gold, targets=torch.tensor([2, 0]))(scores, rows)
    assert value.tolist() == [pytest.approx(-2 / 2.5), 1.0], "(1 - 3) / (3 - (1 + 0) / 2); two options: the margin"
    scaled, _, _ = Goal(loss="dlr", gold=gold)(7 * scores[:1], rows[:1])
    assert scaled.tolist() == [-0.5], "blind to the scale of the logits"


def test_the_probability_margin_by_hand() -> None:
    """2 artanh(p_rival - p_gold), and of two options the lead in log-probability."""
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.8, 0.2, 0.0, 0.0]])
    rows, gold = torch.arange(2), torch.tensor([0, 1])
    value, _, _ = Goal(loss="pm", gold=gold)(p.log(), rows)
    assert value.tolist() == pytest.approx([2 * np.arctanh(0.3 - 0.5), np.log(4)])
    value, _, done = Goal(loss="pm", gold=gold, targets=torch.tensor([2, 0]))(p.log(), rows)
    assert value.tolist() == pytest.approx([2 * np.arctanh(0.15 - 0.5), np.log(4)])
    assert done.tolist() == [False, True]


@pytest.mark.parametrize("sure", [1.0, 25.0])
def test_the_probability_margin_points_where_the_source_does(sure: float) -> None:
    """Along the gradient of p_rival - p_gold, computed in float64; also where that is lost in float32."""
    scores = torch.tensor([[2.0, 1.0, 0.5, -1.0], [0.3, 0.1, 0.2, 1.0]]) * sure
    rows, gold = torch.arange(2), torch.tensor([0, 3])

    def direction(scores: torch.Tensor, *, plain: bool) -> torch.Tensor:
        scores = scores.clone().requires_grad_()
        log_probs = scores.log_softmax(1)
        if plain:
            p = log_probs.exp()
            value = p.scatter(1, gold[:, None], 0).amax(1) - p.gather(1, gold[:, None])[:, 0]
        else:
            value, _, _ = Goal(loss="pm", gold=gold)(log_probs, rows)
        (slope,) = torch.autograd.grad(value.sum(), scores)
        return (slope / slope.norm(dim=1, keepdim=True)).double()

    torch.testing.assert_close(
        direction(scores, plain=False), direction(scores.double(), plain=True), atol=1e-4, rtol=0
    )


class _Counting(Net):
    """Notes how many rows it is shown together, where a gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[int] = []

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        if canvas.requires_grad:
            self.shown.append(len(canvas))
        return super().scores(canvas, questions)


@pytest.mark.parametrize(
    "spec",
    [
        "pgd:eps=0.03,steps=8,restarts=3",
        "pgd:eps=0.6,norm=l2,steps=5,target=random",
        "pgd:eps=0.03,steps=4,early_stop=no,restarts=2",
        "fgsm:eps=0.03",
    ],
)
def test_rows_that_leave_make_room_for_others(spec: str) -> None:
    """More rows than are shown together end as they do alone, and no place in the batch stays empty before the end."""
    x, net = middle_canvases(23), _Counting()
    labels = net.scores(x, None).argmax(1)
    labels[5] = (labels[5] + 1) % 4
    attack = attacks.parse(spec)
    assert attack.refills
    few = Waist(net, torch.device("cpu")).classify([ABCD] * len(x), at_once=4)
    found = attack(few, x, labels, generators(len(x)))
    shown, net.shown = net.shown, []
    alone = [run_row(attack, net, x, labels, row) for row in range(len(x))]
    torch.testing.assert_close(found.canvas, torch.cat([one.canvas for one in alone]), atol=1e-6, rtol=0)
    assert found.steps == [one.steps[0] for one in alone]
    assert found.targets == (None if alone[0].targets is None else [one.targets[0] for one in alone if one.targets])
    assert max(shown) == 4 and sum(shown) == sum(net.shown)
    assert len(shown) - sum(shown) / 4 <= getattr(attack, "steps", 1) * getattr(attack, "restarts", 1)


def run_row(attack: attacks.Attack, net: Net, x: torch.Tensor, labels: torch.Tensor, row: int) -> attacks.Attacked:
    classify = Waist(net, torch.device("cpu")).classify([ABCD])
    return attack(classify, x[row : row + 1], labels[row : row + 1], [generators(len(x))[row]])


def test_only_what_asks_for_gradients_says_so() -> None:
    asking = {spec: attacks.parse(spec).needs for spec in ("clean", "noise", "fgsm", "pgd", "apgd", "suite")}
    both = ("scores", "gradients")
    assert asking == {"clean": (), "noise": (), "fgsm": both, "pgd": both, "apgd": both, "suite": both}


def test_defaults_are_those_that_help_shows() -> None:
    apgd, pgd = attacks.parse("apgd"), attacks.parse("pgd")
    assert (apgd.steps, apgd.restarts, pgd.steps, pgd.restarts) == (100, 1, 10, 1)  # type: ignore[attr-defined]
    sizes = [attacks.parse(f"pgd:eps=1,norm={norm},steps={steps}").step_size for norm, steps in (("l2", 20), ("l2", 3))]  # type: ignore[attr-defined]
    assert sizes == [4 / 20, 1.0]
    assert attacks.parse("pgd:eps=1,steps=20").step_size == 2.5 / 20  # type: ignore[attr-defined]
    for spec in ("fgsm", "pgd"):
        assert attacks.parse(spec).early_stop and not attacks.parse(spec).on_smoothed.early_stop  # type: ignore[attr-defined]


def test_noise_takes_no_step() -> None:
    assert run("noise", Net(), middle_canvases(3), torch.zeros(3, dtype=torch.int64)).steps == [0, 0, 0]


def test_apgd_moves_with_the_momentum_of_the_paper() -> None:
    """In a bowl whose bottom is the clean image each step of 2 eps leads to the opposite corner of the ball."""
    x0, shown = torch.full((1, *SHAPE), 0.5), []

    class Bowl:
        def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
            shown.append(canvas.detach().clone())
            height = 10 + ((canvas - 0.5) ** 2).flatten(1).sum(1)
            return torch.stack([height, torch.zeros_like(height)], dim=1)

    run("apgd:eps=0.1,steps=20", Bowl(), x0, torch.zeros(1, dtype=torch.int64), AB)
    start, first, second = shown[1:4]
    corner = x0 - 0.1 * (start - x0).sign()
    assert torch.allclose(first, corner, atol=1e-6)
    opposite = 1 - corner
    assert torch.allclose(second, first + 0.75 * (opposite - first) + 0.25 * (first - start), atol=1e-6)


def test_what_falls_at_the_last_step_is_not_started_again() -> None:
    net, x = Net(), middle_canvases(40)
    labels = net.scores(x, None).argmax(1)
    one, three = (run(f"apgd:eps=2/255,steps=1,restarts={restarts}", net, x, labels) for restarts in (1, 3))
    scores = net.scores(one.canvas, None)
    fell = scores.amax(1) - scores.gather(1, labels[:, None])[:, 0] > 0.05
    assert 0 < fell.sum() < 40 and {one.steps[row] for row in fell.nonzero().flatten()} == {1}
    assert torch.equal(three.canvas[fell], one.canvas[fell])
    assert {three.steps[row] for row in fell.nonzero().flatten()} == {1} and max(three.steps) == 3


@pytest.mark.parametrize("target", ["runner-up", "least-likely", "random"])
def test_targets_of_many_rows_are_those_of_few(target: str) -> None:
    """Questions with two and with four options, two at a time, make batches of different widths."""
    net, x = Net(), middle_canvases(6)
    questions = [AB, AB, ABCD, ABCD, AB, ABCD]
    labels, spec = torch.zeros(6, dtype=torch.int64), attacks.parse(f"pgd:eps=8/255,steps=2,target={target}")
    waist = Waist(net, torch.device("cpu"))
    found = [spec(waist.classify(questions, at_once=few), x, labels, generators(6)).targets for few in (2, 6)]
    assert found[0] == found[1]
    for question, option in zip(questions, found[0], strict=True):
        assert 0 < option < len(question.options)


def test_facts_come_from_what_a_run_folder_stores() -> None:
    def of(spec: str) -> attacks.Facts:
        return attacks.facts_of(spec, attacks.parse(spec).described)

    roles = {
        spec: of(spec).role for spec in ("clean", "noise", "pgd", "transfer:from=x", "corrupt:kind=blur,severity=2")
    }
    assert list(roles.values()) == ["clean", "control", "attack", "attack", "corruption"]
    assert attacks.facts_of("official", {}).role == attacks.facts_of("circular", {}).role == "clean"
    strengths = [
        of(spec).strength for spec in ("noise", "fgsm", "pgd", "apgd", "suite", "adaptive", "pgd:target=random")
    ]
    assert strengths == [0, 1, 2, 2, 3, None, None]
    small, large = of("pgd:eps=1/255,steps=3"), of("pgd:eps=0.5,norm=l2,steps=3")
    assert small.family == large.family == "pgd:steps=3" and (small.norm, large.norm) == ("linf", "l2")
    assert (small.eps, large.eps, of("clean").eps) == (1 / 255, 0.5, None)
    assert of("corrupt:kind=blur,severity=2").kind == "blur" and of("corrupt:kind=blur,severity=2").severity == 2
    assert of("transfer:from=x").black_box and not of("transfer:from=x").should_flip and not of("pgd").black_box
    assert of("art:SquareAttack").black_box and not of("art:FastGradientMethod").black_box
    assert of("adaptive").aims_at == "text" and of("pgd").aims_at == "letter" and of("noise").aims_at is None
    unknown = attacks.facts_of("uninstalled:eps=1/255", {"attack": "uninstalled", "eps": 1 / 255})
    assert (unknown.role, unknown.strength, unknown.black_box, unknown.aims_at) == ("attack", None, False, "letter")


def test_every_attack_has_an_example_that_parses() -> None:
    for name in attacks.names():
        example = attacks.facts_of(name, {}).example
        assert name == "clean" or (attacks.parse_all([example]) and example.partition(":")[0] == name)
        assert example in attacks.help_text()
    assert [attacks.name_of(strength=strength) for strength in (1, 2, 3)] == ["fgsm", "pgd", "suite"]
    assert attacks.name_of(role="control") == "noise" and attacks.example_of(on_surrogate=True).startswith("transfer:")
