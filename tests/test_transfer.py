"""transfer: searches on other models, several together, and on crops, against closed forms and its older self."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from test_cli import call
from toys import AB, ABCD, SHAPE, Net, generators, middle_canvases

import safemed_eval
from safemed_eval import attacks
from safemed_eval.attacks.transfer import AREA, STRETCH, Ensemble, Transfer, crop
from safemed_eval.core import Classify, Question
from safemed_eval.errors import SpecError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist

MODELS = """
import torch
from safemed_eval.models.toy import Linear

class Tilted:
    def __init__(self, seed, gain):
        self.seed, self.gain = seed, gain

    def scores(self, canvas, questions):
        weight = self.gain / 100 * torch.randn(canvas.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        return Linear(weight, bias=0.2).scores(canvas, questions)

def first(): return Tilted(1, 1.0)
def second(): return Tilted(2, 2.0)
def both(): return Tilted(3, 1.0)

class Votes:
    def vote(self, canvas, question): return (canvas.mean((1, 2, 3)) > 0.5).long()
"""


def bound(model: object, rows: int, question: Question = AB) -> Classify:
    return Waist(model, torch.device("cpu")).classify([question] * rows)


def tilted(seed: int, gain: float) -> Linear:
    return Linear(gain * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)), bias=40.0)


def searched(spec: str, classify: Classify, x: torch.Tensor) -> torch.Tensor:
    """The canvases of an attack on these models, gold being the first option."""
    labels = torch.zeros(len(x), dtype=torch.int64)
    return attacks.parse(spec)(classify, x, labels, generators(len(x))).canvas


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tilted_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


# ------------------------------------------------------------------------------------------------------ several models


def test_the_best_attack_on_linear_models_follows_the_sign_of_their_sum() -> None:
    """Gold is A, whose log-odds are the mean of w . x + b: each pixel moves by eps against the sum of the weights."""
    one, two, x, eps = tilted(1, 1.0), tilted(2, 1.7), middle_canvases(), 4 / 255
    together = Ensemble([bound(one, len(x)), bound(two, len(x))])
    best = x - eps * (one.weight + two.weight).sign()
    torch.testing.assert_close(searched("transfer:from=a+b", together, x), best, atol=1e-6, rtol=0)
    alone = searched("transfer:from=a", bound(one, len(x)), x)
    torch.testing.assert_close(alone, x - eps * one.weight.sign(), atol=1e-6, rtol=0)
    whole = Linear(one.weight + two.weight)
    drop = whole.margin(x) - whole.margin(searched("transfer:from=a+b,eps=0.3,norm=l2", together, x))
    assert 0.99 * 0.3 * whole.weight.norm() < drop.min() < drop.max() < (1 + 1e-6) * 0.3 * whole.weight.norm()


def test_an_ensemble_is_the_normalised_mean_of_log_probabilities() -> None:
    x, nets = middle_canvases(), [Net(seed=seed) for seed in range(3)]
    together = Ensemble([bound(net, len(x), ABCD) for net in nets])
    product = torch.stack([net.scores(x, None).softmax(1) for net in nets]).prod(0) ** (1 / 3)
    torch.testing.assert_close(together(x).exp(), product / product.sum(1, keepdim=True), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together.take([4, 1])(x[[4, 1]]), together(x)[[4, 1]])


def test_padded_options_of_an_ensemble_have_no_gradient() -> None:
    x, nets = middle_canvases(2).requires_grad_(), [Net(seed=seed) for seed in range(2)]
    members = [Waist(net, torch.device("cpu")).classify([ABCD, AB]) for net in nets]
    found = Ensemble(members)(x)
    assert found[1, 2:].eq(-torch.inf).all() and float(found[1, :2].exp().sum().detach()) == pytest.approx(1)
    (slope,) = torch.autograd.grad(found[:, 0].sum(), x)
    assert slope.isfinite().all() and (slope != 0).flatten(1).any(1).all()


# ----------------------------------------------------------------------------------------------------- as it always was


def test_one_surrogate_without_crops_is_pgd_on_it_to_the_bit() -> None:
    net, x = Net(), middle_canvases()
    for ball in ("eps=8/255", "eps=0.5,norm=l2"):
        transferred = searched(f"transfer:{ball},from=other,steps=7", bound(net, len(x), ABCD), x)
        plain = searched(f"pgd:{ball},steps=7,early_stop=no", bound(net, len(x), ABCD), x)
        assert torch.equal(transferred, plain)


def test_the_spec_of_one_surrogate_is_that_of_older_runs() -> None:
    attack = attacks.parse("transfer:from=builtin:sft")
    assert str(attack) == "transfer:eps=4/255,from=builtin:sft,steps=10"
    wanted = {"attack": "transfer", "eps": 4 / 255, "norm": "linf", "model": "builtin:sft", "steps": 10}
    assert attack.described == wanted and attack.surrogates == ("builtin:sft",)
    several = attacks.parse("transfer:crops=yes,from=a + b+c")
    assert str(several) == "transfer:eps=4/255,from=a + b+c,steps=10,crops=yes"
    assert several.surrogates == ("a", "b", "c") and several.described["crops"] is True


def test_a_folder_whose_name_has_a_plus_is_one_surrogate(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    assert Transfer(model=str(tmp_path / "a+b")).surrogates == (str(tmp_path / "a+b"),)
    assert Transfer(model=str(tmp_path / "c+d")).surrogates == (str(tmp_path / "c"), "d")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("transfer:from=a+a", "names a model twice"),
        ("transfer:from=a+", "a name is missing; several are written from=A\\+B"),
        ("transfer:from=a,crops=3", "neither yes nor no"),
    ],
)
def test_bad_specs_say_what_to_do(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        attacks.parse(spec)


# --------------------------------------------------------------------------------------------------------------- crops


def test_crops_are_parts_of_the_canvas_of_the_stated_sizes() -> None:
    """A ramp cut out of a ramp is one again: its slope and its middle tell what was cut, down and to the right."""
    height, width, rng = 40, 64, torch.Generator().manual_seed(0)
    down, right = torch.meshgrid(torch.arange(40.0), torch.arange(64.0), indexing="ij")
    ramp = torch.stack([down, right, torch.ones(40, 64)])
    areas, stretches = [], []
    for _ in range(300):
        cut = crop(ramp, rng)
        assert cut.shape == ramp.shape
        assert cut[0].min() >= 0 and cut[0].max() <= height - 1 and cut[1].max() <= width - 1
        assert torch.allclose(cut[2], torch.ones(40, 64))
        rows, columns = (float(cut[0, 30, 0] - cut[0, 10, 0]) * 2, float(cut[1, 0, 48] - cut[1, 0, 16]) * 2)
        assert (cut[0] - cut[0, :, :1]).abs().max() < 1e-3 and (cut[1] - cut[1, :1]).abs().max() < 1e-3
        areas.append(rows * columns / (height * width))
        stretches.append(columns / width / (rows / height))
    assert AREA[0] - 0.03 < min(areas) < AREA[0] + 0.05 and AREA[1] - 0.1 < max(areas) < AREA[1] + 0.03
    assert STRETCH[0] - 0.03 < min(stretches) < 0.85 and 1.2 < max(stretches) < STRETCH[1] + 0.05


def test_each_step_sees_another_crop_of_each_row_drawn_by_its_own_seed() -> None:
    class Watching(Net):
        def __init__(self) -> None:
            super().__init__()
            self.shown: list[torch.Tensor] = []

        def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
            self.shown += canvas.detach().unbind()
            return super().scores(canvas, questions)

    x, whole, alone = middle_canvases(2), Watching(), Watching()
    spec = "transfer:from=a,crops=yes,eps=1e-9,steps=3"
    searched(spec, bound(whole, 2, ABCD), x)
    generator = generators(2)[1]
    attacks.parse(spec)(bound(alone, 1, ABCD), x[1:], torch.zeros(1, dtype=torch.int64), [generator])
    seen = whole.shown[1::2]
    assert len(seen) == len(alone.shown) == 3
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(seen, alone.shown, strict=True))
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(seen, [x[1], *seen], strict=False))


def test_crops_lead_to_what_all_parts_of_an_image_share() -> None:
    """The surrogate shares a coarse pattern with the judged model, but not where the fine one lies: crops blur that."""
    plane = torch.nn.functional.interpolate(torch.randn((1, 3, 4, 4), generator=torch.Generator().manual_seed(4)), 32)
    fine = torch.randn((3, 32, 32), generator=torch.Generator().manual_seed(5))
    surrogate, judged = Linear(plane[0] + 2 * fine, bias=40.0), Linear(plane[0] + 2 * fine.roll(3, 2), bias=40.0)
    x = 0.3 + 0.4 * torch.rand((6, 3, 32, 32), generator=torch.Generator().manual_seed(6))
    plain, cropped = (
        judged.margin(x) - judged.margin(searched(f"transfer:from=a{crops}", bound(surrogate, len(x)), x))
        for crops in ("", ",steps=30,crops=yes")
    )
    assert cropped.mean() > plain.mean() > 0


# ---------------------------------------------------------------------------------------------------------------- runs


def test_a_run_with_two_surrogates_is_stored_resumed_and_refused_where_one_only_votes(models: Path) -> None:
    names = "python:tilted_models:first+python:tilted_models:second"
    shared = ["evaluate", "--model", "python:tilted_models:both", "--data", "phantom:images=3", "--out", models / "run"]
    specs = ["--attack", f"transfer:from={names},crops=yes", "--attack", "transfer:from=python:tilted_models:first"]
    code, text = call(*shared, *specs)
    assert code == 0, text
    run = safemed_eval.Run.read(models / "run")
    two, one = (run.spec.attacks[name] for name in run.conditions[1:])
    assert len(two["surrogates"]) == 2 and two["surrogates"][0] == one["surrogate"]  # type: ignore[typeddict-item]
    searched = [record for record in run.records if record.attack != "clean"]
    assert len(searched) == 2 * len(run.records) / 3 and all(one.steps == 10 and not one.error for one in searched)
    assert call(*shared, *specs)[0] == 0
    code, text = call(*shared[:-1], models / "b", "--attack", "transfer:from=python:tilted_models:Votes+builtin:sft")
    assert code == 2 and "python:tilted_models:Votes only votes" in text
    code, text = call(*shared[:-1], models / "c", "--attack", "transfer:from=builtin:sft+python:tilted_models:both")
    assert code == 2 and "is the model that is judged" in text
