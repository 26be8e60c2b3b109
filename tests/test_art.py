"""The bridge to ART: against ART called directly, against closed forms, and against its own promises."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import AB, ABCD, SHAPE, Net, generators, grid_canvases, linear, middle_canvases, run
from typer.testing import CliRunner

import safemed_eval
from safemed_eval import attacks
from safemed_eval.cli import app
from safemed_eval.core import Classify, Question
from safemed_eval.errors import ModelOutputError, SpecError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.smoothing import Smoothing, read_votes

CPU = torch.device("cpu")
SQUARE = "art:SquareAttack,eps=12/255,max_iter=40"
HOP = "art:HopSkipJump,eps=1.5,norm=l2,max_iter=2,init_eval=10,max_eval=20"
APGD = "art:AutoProjectedGradientDescent,eps=8/255,max_iter=8,nb_random_init=1,loss_type=cross_entropy"


def answers(net: object, x: torch.Tensor, question: Question = ABCD) -> torch.Tensor:
    return Waist(net, CPU).classify([question] * len(x))(x).argmax(1)


class Counting(Net):
    """Counts the rows of each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        self.batches.append(len(canvas))
        return super().scores(canvas, questions)


# ----------------------------------------------------------------------------------------------------------- estimator


def test_art_sees_log_probabilities_and_their_gradients() -> None:
    net, x = Net(), middle_canvases(3)
    classifier = safemed_eval.to_art(Waist(net, CPU), ABCD, canvas_size=(8, 9))
    assert (classifier.nb_classes, classifier.input_shape) == (4, SHAPE)
    log_probs = net.scores(x, None).log_softmax(1)
    np.testing.assert_allclose(classifier.predict(x.numpy()), log_probs, atol=1e-6)
    assert safemed_eval.to_art(Waist(net, CPU), AB, canvas_size=(8, 9)).predict(x.numpy()).shape == (3, 2)
    pixels, labels = x.clone().requires_grad_(), torch.tensor([0, 1, 2])
    loss = torch.nn.functional.cross_entropy(net.scores(pixels, None), labels)
    (gradient,) = torch.autograd.grad(loss, pixels)
    np.testing.assert_allclose(classifier.loss_gradient(x.numpy(), np.eye(4)[labels]), gradient, atol=1e-6)


def test_images_of_another_size_than_the_canvas_are_refused() -> None:
    net, x = Net(), middle_canvases(2).numpy()
    classifier = safemed_eval.to_art(Waist(net, CPU), ABCD)
    assert classifier.input_shape == (3, 384, 384)
    with pytest.raises(SpecError, match=r"shape \(3, 8, 9\) for a canvas of \(3, 384, 384\); say canvas_size"):
        classifier.predict(x)
    with pytest.raises(SpecError, match="canvas_size"):
        classifier.loss_gradient(x, np.eye(4)[:2])


def test_training_mode_and_weights_of_the_model_stay_as_they_are() -> None:
    net = Net()
    net.module.requires_grad_(True).eval()
    x = middle_canvases(2)
    labels = answers(net, x)
    classifier = safemed_eval.to_art(Waist(net, CPU), ABCD, canvas_size=(8, 9))
    classifier.model.train()
    classifier.loss_gradient(x.numpy(), np.eye(4)[labels])
    run(APGD, net, x, labels)
    assert not any(part.training for part in net.module.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in net.module.parameters())


def test_the_model_is_not_asked_about_what_is_no_image() -> None:
    net, x = Counting(), middle_canvases(3).numpy()
    x[1, 0, 2, 3] = np.nan
    classifier = safemed_eval.to_art(Waist(net, CPU), ABCD, canvas_size=(8, 9))
    found = classifier.predict(x)
    assert np.isnan(found).all(1).tolist() == [False, True, False] and net.batches == [2]
    assert np.isnan(classifier.predict(x[[1]])).all() and net.batches == [2]


def test_few_rows_at_a_time_and_fewer_where_memory_is_short() -> None:
    class Small(Counting):
        def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
            if len(canvas) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().scores(canvas, questions)

    plenty, short, x = Counting(), Small(), torch.rand((50, *SHAPE))
    wanted = safemed_eval.to_art(Waist(plenty, CPU), ABCD, canvas_size=(8, 9)).predict(x.numpy())
    found = safemed_eval.to_art(Waist(short, CPU), ABCD, canvas_size=(8, 9)).predict(x.numpy())
    assert max(plenty.batches) == 16 and max(short.batches) == 4
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_art_smooths_the_same_function_as_we_do() -> None:
    """The same noise, much of it outside [0, 1], gives the same counts and the same certificates."""
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    model, n, spec = Waist(Net(), CPU), 300, Smoothing(sigma=0.5, n0=300, n=300)
    classifier = safemed_eval.to_art(model, ABCD, canvas_size=(8, 9))
    smoothed = PyTorchRandomizedSmoothing(
        classifier.model, torch.nn.CrossEntropyLoss(), SHAPE, 4, clip_values=(0.0, 1.0), device_type="cpu",
        scale=spec.sigma, sample_size=n, alpha=spec.alpha,
    )  # fmt: skip
    for seed, image in enumerate(grid_canvases(8)):
        np.random.seed(seed)
        copies = [image + torch.from_numpy(np.random.normal(0, 0.5, (n, *SHAPE)).astype(np.float32)) for _ in range(2)]
        votes0, votes = (model.vote(ABCD).count([noisy]) for noisy in copies)
        assert votes0 != model.vote(ABCD).count([copies[0].clamp(0, 1)]), "this image would not show a clamp"
        np.random.seed(seed)
        assert (*smoothed._prediction_counts(image.numpy(), n=n), 0) == votes0
        np.random.seed(seed)
        (answer,), (radius,) = smoothed.certify(image.numpy()[None], n=n)
        ours = read_votes(votes0, votes, spec)
        assert (answer, radius) == ((ours.prediction, pytest.approx(ours.radius)) if ours.radius else (-1, 0))


# -------------------------------------------------------------------------------------------------------------- attacks


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.3)])
def test_arts_pgd_through_the_bridge_is_arts_pgd(norm: str, eps: float) -> None:
    from art.attacks.evasion import ProjectedGradientDescent

    net, x = Net(), middle_canvases()
    labels = answers(net, x)
    spec = f"art:ProjectedGradientDescent,eps={eps},norm={norm},eps_step={eps / 4},max_iter=7"
    ours = run(spec, net, x, labels)
    classifier = safemed_eval.to_art(Waist(net, CPU), ABCD, canvas_size=(8, 9))
    order = np.inf if norm == "linf" else 2
    art = ProjectedGradientDescent(classifier, norm=order, eps=eps, eps_step=eps / 4, max_iter=7, verbose=False)
    theirs = art.generate(x.numpy(), np.eye(4)[labels.numpy()])
    assert (answers(net, ours.canvas) != labels).any()
    np.testing.assert_allclose(ours.canvas, theirs, atol=1e-6)


def test_a_linear_model_falls_as_far_as_it_can() -> None:
    """The best L-infinity attack lowers the margin by eps ||w||_1; a step of ART's FGSM is that."""
    toy, x = linear(), middle_canvases()
    toy.bias = 40.0
    labels = torch.zeros(len(x), dtype=torch.int64)
    best = toy.best_drop(attacks.parse("art:FastGradientMethod,eps=4/255").threat)
    for spec, share in (
        ("art:FastGradientMethod,eps=4/255", 1),
        ("art:ProjectedGradientDescent,eps=4/255,max_iter=8,num_random_init=1", 0.99),
        ("art:SquareAttack,eps=4/255,max_iter=200", 0.4),
    ):
        drop = toy.margin(x) - toy.margin(run(spec, toy, x, labels, AB).canvas)
        assert best * (share - 1e-5) <= drop.min() <= drop.max() <= best * (1 + 1e-5)


@pytest.mark.parametrize("spec", [SQUARE, HOP, APGD])
def test_attacks_beat_the_random_control(spec: str) -> None:
    net, x = Net(), middle_canvases(12)
    labels = answers(net, x)
    threat = attacks.parse(spec).threat
    control = run(f"noise:eps={threat.eps},norm={threat.norm}", net, x, labels)
    right = [int((answers(net, found.canvas) == labels).sum()) for found in (run(spec, net, x, labels), control)]
    assert right[0] < right[1]


def test_only_what_lies_in_the_ball_counts() -> None:
    """HopSkipJump knows no eps: what it finds far outside the ball is moved into it, and there the answer holds."""
    net, x = Net(), middle_canvases(4)
    labels = answers(net, x)
    far, near = (run(HOP.replace("1.5", eps), net, x, labels).canvas for eps in ("99", "0.05"))
    assert (answers(net, far) != labels).all()
    assert (answers(net, near) == labels).all()
    assert float((near - x).flatten(1).norm(dim=1).max()) == pytest.approx(0.05, abs=1e-6)


def test_a_step_is_a_third_of_eps_unless_it_is_given() -> None:
    x = middle_canvases()
    for spec, step in (("eps=3/255", 1 / 255), ("eps=3/255,eps_step=2/255", 2 / 255)):
        toy, labels = linear(), torch.zeros(len(x), dtype=torch.int64)
        toy.bias = 40.0
        moved = run(f"art:ProjectedGradientDescent,{spec},max_iter=1", toy, x, labels, AB).canvas - x
        assert moved.abs().numpy() == pytest.approx(np.full(x.shape, step), abs=1e-6)


@pytest.mark.parametrize("spec", [SQUARE, HOP, APGD])
def test_rows_with_fewer_options_are_attacked_as_if_alone(spec: str) -> None:
    net, x = Net(), middle_canvases(4)
    classify = Waist(net, CPU).classify([ABCD, AB, ABCD, AB])
    labels = classify(x).argmax(1)
    together = attacks.parse(spec)(classify, x, labels, generators(4))
    for row in range(4):
        alone = attacks.parse(spec)(classify.take([row]), x[[row]], labels[[row]], [generators(4)[row]])
        assert torch.equal(alone.canvas[0], together.canvas[row]) and alone.steps == [together.steps[row]]


class Padded:
    """A classifier that answers with an option too many, as the contract allows."""

    def __init__(self, classify: Classify) -> None:
        self.classify = classify

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(self.classify(canvas), (0, 1), value=-torch.inf)

    def take(self, rows: Sequence[int]) -> Classify:
        return Padded(self.classify.take(rows))


def test_padded_options_are_hidden_from_art() -> None:
    """DeepFool looks for the nearest of all other options: one at -inf would lead it astray."""
    from safemed_eval.attacks.art.estimator import estimator

    net, x = Net(), middle_canvases(4)
    classify = Waist(net, CPU).classify([ABCD, AB, ABCD, AB])
    labels = classify(x).argmax(1)
    attack = attacks.parse("art:DeepFool,eps=1,norm=l2,max_iter=5")
    plain, padded = (attack(one, x, labels, generators(4)) for one in (classify, Padded(classify)))
    assert (classify(plain.canvas).argmax(1) != labels).all()
    assert torch.equal(padded.canvas, plain.canvas) and padded.steps == plain.steps
    narrow = estimator(Padded(classify.take([1, 3])), 2, (8, 9), CPU)
    assert narrow.predict(x.numpy()).shape == (4, 2)


def test_rows_that_are_wrong_at_once_stay_as_they_are_and_queries_are_counted() -> None:
    net, x = Counting(), middle_canvases(6)
    labels = answers(net, x)
    labels[:2] = (labels[:2] + 1) % 4
    for spec in (SQUARE, HOP, APGD):
        net.batches.clear()
        found = run(spec, net, x, labels)
        assert torch.equal(found.canvas[:2], x[:2]) and found.steps[:2] == [0, 0]
        assert min(found.steps[2:]) > 0 and sum(found.steps) == sum(net.batches) - len(x)


def test_black_box_attacks_need_no_gradient() -> None:
    class Blind(Net):
        def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
            return super().scores(canvas, questions).detach()

    net, x = Blind(), middle_canvases(4)
    labels = answers(net, x)
    for spec, needs in ((SQUARE, ("scores",)), (HOP, ("votes",))):
        assert attacks.parse(spec).needs == needs
        assert (answers(net, run(spec, net, x, labels).canvas) != labels).any()
    for spec in (APGD, "art:DeepFool", "art:AutoAttack"):
        assert attacks.parse(spec).needs == ("scores", "gradients")
    with pytest.raises(ModelOutputError, match="the model raised"):
        run(APGD, net, x, labels)


def test_global_generators_are_left_as_they_were() -> None:
    def states() -> list[object]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[union-attr]

    net, x = Net(), middle_canvases(2)
    before, made_by_numpy = states(), np.random.RandomState
    first = run(HOP, net, x, answers(net, x))
    assert states() == before and np.random.RandomState is made_by_numpy
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert torch.equal(run(HOP, net, x, answers(net, x)).canvas, first.canvas)


def test_a_gradient_that_is_not_finite_is_no_robustness() -> None:
    class Root(Linear):
        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            return super().scores(canvas, questions) + (canvas[:, :, 0] * 0).sum((1, 2)).sqrt()[:, None]

    labels = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ModelOutputError, match="gradient is not finite"):
        run("art:FastGradientMethod", Root(linear().weight, bias=40.0), middle_canvases(), labels, AB)


# --------------------------------------------------------------------------------------------- attacks by decision


class Voting:
    """Votes for the likeliest option of a network, and counts the rows."""

    def __init__(self, net: object, none: int | None = None) -> None:
        self.net, self.none, self.rows = net, none, 0

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        self.rows += len(canvas)
        votes = self.net.scores(canvas, [question])[:, : len(question.options)].argmax(1)  # type: ignore[attr-defined]
        return votes if self.none is None else votes.where(votes != self.none, len(question.options))


class Penning:
    """Writes what a voter votes for, and a text without an answer for "no answer"."""

    def __init__(self, voter: Voting) -> None:
        self.voter = voter

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        votes = [int(self.voter.vote(row[None], q)) for row, q in zip(canvas, questions, strict=True)]
        return [f"{q.letters} "[vote] for vote, q in zip(votes, questions, strict=True)]


DECIDING = [
    HOP,
    "art:BoundaryAttack,eps=1,norm=l2,max_iter=3,init_size=20",
    "art:SignOPTAttack,eps=1,norm=l2,max_iter=2,num_trial=5,k=5",
    "art:SpatialTransformation,eps=0.2,max_translation=20,num_translations=3",
]


@pytest.mark.parametrize("spec", DECIDING)
def test_an_attack_by_decision_sees_no_more_of_a_network_than_its_votes(spec: str) -> None:
    """The same decisions and seeds give the same canvases, with scores, with votes alone, and with texts alone."""
    net, x = Net(), middle_canvases(4)
    few = ABCD if "SignOPT" in spec else AB  # ART refuses it scores of two options
    questions, attack = [ABCD, few, ABCD, few], attacks.parse(spec)
    labels = Waist(net, CPU).classify(questions)(x).argmax(1)
    labels[3] = 1 - labels[3] % 2
    scored, voted, written = (
        attack(Waist(model, CPU).classify(questions), x, labels, generators(4))
        for model in (net, Voting(net), Penning(Voting(net)))
    )
    assert attack.needs == ("votes",) and torch.equal(scored.canvas[3], x[3])
    assert not torch.equal(scored.canvas, x)
    for other in (voted, written):
        torch.testing.assert_close(other.canvas, scored.canvas, atol=1e-6, rtol=0)
        assert other.steps == scored.steps


def test_all_other_attacks_without_gradients_need_scores() -> None:
    """They move otherwise where they are shown votes in place of scores."""
    from safemed_eval.attacks.art.methods import BY_DECISION, methods, uses_gradients

    assert {*BY_DECISION} == {attacks.parse(spec).method for spec in DECIDING}  # type: ignore[attr-defined]
    others = [name for name in methods() if not (uses_gradients(name) or name in BY_DECISION)]
    assert others == ["PixelAttack", "SquareAttack", "ThresholdAttack", "ZooAttack"]
    assert all(attacks.parse(f"art:{name}").needs == ("scores",) for name in others)


def test_no_answer_is_an_answer_other_than_gold() -> None:
    """A voter that says nothing beyond the plane falls as one that says B there; its own no answer is left alone."""
    toy, x = linear(), middle_canvases()
    labels = answers(toy, x, AB)
    found = [run(HOP, model, x, labels, AB) for model in (Voting(toy), Voting(toy, none=1), Penning(Voting(toy, 1)))]
    fallen = labels == 0
    assert fallen.any() and (~fallen).any()
    for silent in found[1:]:
        assert torch.equal(silent.canvas[fallen], found[0].canvas[fallen])
        assert torch.equal(silent.canvas[~fallen], x[~fallen])
        assert all(steps == 0 for steps, fell in zip(silent.steps, fallen.tolist(), strict=True) if not fell)


def test_a_voting_linear_model_falls_near_its_plane() -> None:
    """HopSkipJump lands beyond the plane, no nearer than |margin| / ||w||_2, and not much farther."""
    toy, x = linear(), middle_canvases(4)
    labels = answers(toy, x, AB)
    voter = Voting(toy)
    found = run("art:HopSkipJump,eps=99,norm=l2,max_iter=20,init_eval=50", voter, x, labels, AB)
    far = (found.canvas - x).double().flatten(1).norm(dim=1) / toy.radius(x)
    assert (answers(toy, found.canvas, AB) != labels).all()
    assert far.min() >= 1 and far.max() < 1.5, far
    assert voter.rows == sum(found.steps) + len(x)


def test_art_sees_a_voter_as_one_hot_vectors_with_a_class_for_no_answer() -> None:
    toy, x = linear(), middle_canvases()
    classifier = safemed_eval.to_art(Waist(Voting(toy, none=1), CPU), ABCD, canvas_size=(8, 9))
    assert classifier.nb_classes == 5
    wanted = np.eye(5)[torch.where(answers(toy, x) == 0, 0, 4)]
    np.testing.assert_array_equal(classifier.predict(x.numpy()), wanted)
    with pytest.raises(ModelOutputError, match="does not require grad"):
        classifier.loss_gradient(x.numpy(), wanted)


def test_a_model_that_only_votes_is_evaluated_under_hopskipjump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever falls is recorded as its fresh vote; the same run on its scoring twin falls on the same items."""
    (tmp_path / "twins.py").write_text(
        "from safemed_eval.models.toy import Brightness\n"
        "class Votes:\n    def vote(self, x, q): return Brightness().scores(x, [q]).argmax(1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = "art:HopSkipJump,eps=3,norm=l2,init_eval=5,max_eval=5,max_iter=2"
    found = []
    for name in ("twins:Votes", "twins:Brightness"):
        ran = safemed_eval.evaluate(f"python:{name}", "phantom:images=4", attacks=[spec])
        found.append([(one.item, one.attack, one.prediction, one.l2, one.steps, one.error) for one in ran.records])
    assert found[0] == found[1] and any(steps for *_, steps, _ in found[0])


@pytest.mark.parametrize("size", [(40, 9), (8, 9), (10, 40), (64, 64)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_works_on_canvases_where_arts_own_fails(norm: str, size: tuple[int, int]) -> None:
    """Its squares do not fit into narrow ones, and in L2 it divides by zero where squares meet nothing changed yet."""
    x = torch.full((1, 3, *size), 0.5)
    toy = Linear(torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)))
    toy.bias = 40 - float(toy.margin(x))
    found = run(f"art:SquareAttack,eps=0.1,norm={norm},max_iter=60", toy, x, torch.zeros(1, dtype=torch.int64), AB)
    assert toy.margin(found.canvas) < toy.margin(x)


FEW = {
    "AutoAttack": None,  # minutes: it has no number of steps
    "CarliniL0Method": "max_iter=1,binary_search_steps=1,max_halving=1,max_doubling=1,warm_start=no",
    "CarliniL2Method": "max_iter=1,binary_search_steps=1",
    "ElasticNet": "max_iter=1,binary_search_steps=1",
    "HopSkipJump": "max_iter=1,init_eval=5,max_eval=5",
    "PixelAttack": None,
    "ShadowAttack": "nb_steps=2,batch_size=2",
    "SignOPTAttack": "max_iter=1,num_trial=2,k=2",
    "SpatialTransformation": "max_translation=20,num_translations=2",
    "ThresholdAttack": None,  # needs a package of its own
}


def test_every_attack_that_is_offered_runs_and_is_judged_inside_its_ball_and_box() -> None:
    """NewtonFool and ShadowAttack look for it outside of [0, 1]."""
    from safemed_eval.attacks.art.methods import methods

    x = grid_canvases(1)[..., :8]
    toy = Linear(linear().weight[..., :8], bias=0.1)
    label = answers(toy, x, ABCD)
    for name in methods():
        few = FEW.get(name, "" if name == "FastGradientMethod" else "max_iter=1")
        if name == "SaliencyMapMethod":
            few = "theta=0.1"
        if few is not None:
            found = run(f"art:{name},eps=8/255,{few}", toy, x, label)
            assert found.steps[0] > 0, name
            assert found.canvas.min() >= 0 and found.canvas.max() <= 1, name
            assert (found.canvas - x).abs().max() <= 8 / 255 + 1e-6, name


# ---------------------------------------------------------------------------------------------------------------- specs


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("art:Square", "art:SquareAttack,eps=4/255"),
        ("art:squareattack, max_iter=300, eps=8/255", "art:SquareAttack,eps=8/255,max_iter=300"),
        ("art:CarliniL2,eps=1,norm=l2", "art:CarliniL2Method,eps=1,norm=l2"),
        ("art:SquareAttack,p_init=0.5,max_iter=100", "art:SquareAttack,eps=4/255,p_init=0.5"),
        ("art:ProjectedGradientDescent,eps=0.3,eps_step=0.1", "art:ProjectedGradientDescent,eps=0.3"),
        (
            "art:ProjectedGradientDescent,random_eps=on,decay=1/2",
            "art:ProjectedGradientDescent,eps=4/255,decay=0.5,random_eps=yes",
        ),
        (
            "art:AutoProjectedGradientDescent,loss_type=cross_entropy",
            "art:AutoProjectedGradientDescent,eps=4/255,loss_type=cross_entropy",
        ),
    ],
)
def test_specs_have_one_spelling(spec: str, canonical: str) -> None:
    attack = attacks.parse(spec)
    assert str(attack) == canonical
    assert attacks.parse(canonical) == attack and attacks.parse_all([spec, canonical]) == [attack]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("art", "needs a method first"),
        ("art:eps=4/255", "needs a method first"),
        ("art:Squar", "did you mean 'Square'"),
        ("art:AdversarialPatch", "no attack of ART's that fits here"),
        ("art:ProjectedGradientDescentTensorFlowV2", "no attack of ART's that fits here"),
        ("art:Square,eps=8/255,maxiter=3", "art:SquareAttack: unknown option 'maxiter'; did you mean 'max_iter'"),
        ("art:Square,verbose=yes", "unknown option 'verbose'"),
        ("art:BoundaryAttack,targeted=yes", "unknown option 'targeted'"),
        ("art:Square,max_iter=2.5", "max_iter: '2.5' is not a whole number"),
        ("art:Square,max_iter=0", "max_iter has to be"),
        ("art:AutoProjectedGradientDescent,loss_type=ce", "loss_type has an invalid value"),
        ("art:Square,norm=l2", "norm=l2 needs eps"),
        ("art:BasicIterativeMethod,norm=l2,eps=1", "has an eps for norm=linf only"),
        ("art:Square,HopSkipJump", "not key=value"),
        ("pgd:Square", "'Square' is not key=value"),
    ],
)
def test_bad_specs_say_what_to_do(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attacks.parse(spec)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net(), middle_canvases(1)
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(SpecError, match=r"art:ThresholdAttack: .*cma.*; install it"):
        run("art:ThresholdAttack", net, x, answers(net, x))
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    for ask in (
        lambda: attacks.parse("art:Square"),
        lambda: safemed_eval.to_art(Waist(net, CPU), AB, canvas_size=(8, 9)),
    ):
        with pytest.raises(SpecError, match="pip install 'adversarial-robustness-toolbox"):
            ask()


def test_what_art_cannot_do_for_an_item_is_told_as_arts_fault() -> None:
    net, x = Net(), middle_canvases(1)
    with pytest.raises(ModelOutputError, match=r"ART's ZooAttack raised ValueError at zoo.py"):
        run("art:ZooAttack,max_iter=1", net, x, answers(net, x))


@pytest.mark.slow
def test_evaluate_records_what_art_found(tmp_path: Path) -> None:
    square, hop = "art:SquareAttack,eps=16/255,max_iter=5", "art:HopSkipJump,eps=2,norm=l2,max_iter=1,max_eval=5"
    command = ["evaluate", "--model", "builtin:sft", "--data", "phantom", "--limit", "4", "--attack", square]
    outcome = CliRunner().invoke(app, [*command, "--attack", f"{hop},init_eval=5", "--out", str(tmp_path / "run")])
    assert outcome.exit_code == 0, outcome.output
    spec = json.loads((tmp_path / "run" / "run.json").read_text())["spec"]
    asked = {"attack": "art", "method": "SquareAttack", "eps": 16 / 255, "norm": "linf", "options": {"max_iter": 5}}
    assert spec["attacks"][square] == asked | {"needs_gradients": False}
    records = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert len(records) == 4 * 3 and not any(record["error"] for record in records)
    right = {record["item"] for record in records if record["attack"] == "clean" and record["correct"]}
    searched = [record for record in records if record["attack"] != "clean"]
    assert all((record["steps"] > 0) == (record["item"] in right) for record in searched)
    assert all(record["linf"] <= 16 / 255 + 1e-6 for record in searched if record["attack"] == square)
