"""Kinds of noise against closed-form truth: draws, radii, false certificates, and planted errors that must be found."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as sps
from test_cli import TOY, call

from safemed_eval import stats
from safemed_eval.core import Question
from safemed_eval.errors import SpecError
from safemed_eval.models import resolve
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.runs.spec import CertifySpec
from safemed_eval.runs.work.falsify import Falsifier
from safemed_eval.runs.work.shown import Shown
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Falsification, Float32, Gaussian, Ladder, Noise, Sequential, Smoothing, View, copies
from safemed_eval.smoothing import certify as certification
from safemed_eval.smoothing.certify import certify, certify_gold, count_votes, view_of
from safemed_eval.smoothing.copies import noisy_copies
from safemed_eval.smoothing.noise import names, parse
from safemed_eval.smoothing.noise._lattice import SCALE, to_lattice
from safemed_eval.smoothing.noise.brightness import Brightness
from safemed_eval.smoothing.noise.uniform import Uniform
from safemed_eval.threat import L1Ball

AB = Question(text="Which?", options=("A", "B"))

DRAWN = [
    (Gaussian(0.25), [-330242, 541984, 141474, -348457], 57452, 200021539),
    (Uniform(0.25), [-125985, -94990, 191271, -67280], 289880, 486188429),
]
"""Lattice steps as 0.2.0 drew them first: of four copies at one place, of the last at its last place, and their sum."""


@pytest.mark.parametrize(("noise", "firsts", "last", "total"), DRAWN, ids=["gaussian", "uniform"])
def test_noise_stays_what_it_was(noise: Noise, firsts: list[int], last: int, total: int) -> None:
    """Votes are stored, and runs go on with other versions and on other machines: no draw may change."""
    streams = partial(generator, torch.device("cpu"), 0, "certify", "a")
    found = torch.cat([batch.clone() for batch in noisy_copies(torch.zeros(3, 40, 300), noise, 40, 16, streams)])
    steps = (found.double() * SCALE).round().long()
    assert steps[:4, 0, 0, 0].tolist() == firsts
    assert steps[39, 2, 39, 299] == last and steps.sum() == total


def _truths() -> Any:
    place = Path(__file__).parents[1] / "reports" / "certificates" / "truths.py"
    spec = importlib.util.spec_from_file_location("reports_certificates_truths", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


truths = _truths()
KINDS = [*truths.SIGMA]
PIXELS = ["gaussian", "float32", "uniform"]


def streams(*parts: str | int) -> Callable[..., torch.Generator]:
    return partial(generator, "cpu", *parts)


def test_every_kind_has_a_truth_here() -> None:
    assert set(names()) - {"patch"} == set(KINDS), "patches have tests of their own"


# ------------------------------------------------------------------------------------------------------ spec strings


@pytest.mark.parametrize(
    ("text", "sigma", "why"),
    [
        ("gausian", 0.25, "unknown noise 'gausian'; did you mean 'gaussian'"),
        ("gaussian", None, "--sigma: write --sigma 0.25, say: it is the standard deviation of the noise"),
        ("gamma", None, "--noise gamma: write --sigma 0.25, say: it is the standard deviation of ln gamma"),
        ("patch", 0.25, "has no --sigma"),
        ("gaussian:sigma=1", 0.25, "sigma is an option of its own"),
        ("gaussian", 2.0, "sigma=2 is above 1.5"),
        ("gaussian", 25.0, "grey levels are written"),
        ("gamma", 3.0, "sigma is the standard deviation of ln gamma"),
        ("contrast:grey=2", 0.3, "grey must lie between 0 and 1"),
        ("contrast:gray=0.5", 0.3, "unknown option 'gray'; did you mean 'grey'"),
        ("uniform", 0.0, "sigma must be above 0"),
        ("brightness", 1e-4, "less than one grey level"),
    ],
)
def test_bad_noise_is_refused(text: str, sigma: float | None, why: str) -> None:
    with pytest.raises(SpecError, match=why.replace("(", r"\(")):
        parse(text, sigma)


@pytest.mark.parametrize("text", ["gaussian", "uniform", "gamma", "contrast", "contrast:grey=0.25", "float32"])
def test_spec_strings_are_canonical(text: str) -> None:
    assert str(parse(text, 0.25)) == text
    assert str(parse("contrast:grey=0.50", 0.25)) == "contrast"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("sigma", [0.0, -0.25, math.nan, 30.0])
def test_no_kind_takes_a_sigma_out_of_range(name: str, sigma: float) -> None:
    with pytest.raises(ValueError, match="sigma"):
        replace(parse(name, 0.25), sigma=sigma)  # type: ignore[type-var, call-arg]


def test_radii_in_words_are_rounded_inward() -> None:
    assert parse("gamma", 0.3).words(0.345) == "any gamma between 0.71 and 1.41"
    assert parse("contrast", 0.3).words(0.345).startswith("any contrast between 0.71 and 1.41: a window width between")
    assert parse("contrast:grey=0.2", 0.3).words(0.345) == "any contrast between 0.71 and 1.41"
    assert "12.3 % of its width" in parse("brightness", 0.3).words(0.12399)
    assert Gaussian(0.25).words(0.3) is None
    assert parse("brightness", 0.25).words_on_window(0.125, 40, 400) == "a centre between -10 and 90"
    assert parse("brightness", 0.25).words_on_window(0.1031695, 40, 400) == "a centre between -1.2 and 81.2"
    assert parse("contrast", 0.25).words_on_window(0.125, 40, 400) == "a width between 353 and 453.2"
    assert parse("contrast:grey=0.2", 0.25).words_on_window(0.125, 40, 400) is None


# ------------------------------------------------------------------------------------------------------ floating point


@pytest.mark.parametrize("kind", [Float32, Gaussian])
def test_a_model_that_reads_low_bits_is_certified_falsely_in_float32_only(kind: type[Any]) -> None:
    """Black, and two grey levels: float32 noise on black shows that it is black, with a certificate that reaches on."""
    noise, black, spec = kind(0.25), torch.zeros(3, 16, 16), Smoothing(sigma=0.25, n0=50, n=1000)
    grey = torch.full_like(black, 2 / 255)
    distance = float((grey.double() - black.double()).norm())
    vote = Waist(truths.LowBits(), torch.device("cpu")).vote(AB)
    certificate = certify(vote, black, replace(spec, noise=str(noise)), rng=streams(0), batch=64)
    assert certificate.prediction == 0 and certificate.radius is not None and certificate.radius > distance
    there = count_votes(vote, grey, noise, 1000, 64, streams("there"))[0]
    assert certificate.p_lower is not None
    claimed = noise.claim(certificate.p_lower, certificate.radius, distance, view_of(black))
    upper = stats.clopper_pearson_upper(there, 1000, 1e-6)
    assert (upper < claimed) == (kind is Float32)
    assert (there == 0) == (kind is Float32)


@pytest.mark.parametrize("name", ["gaussian", "uniform"])
def test_rounding_commutes_with_steps_of_the_lattice(name: str) -> None:
    """Copies of x + s under z - s are those of x under z, bit for bit: copies are functions of the exact sum."""
    noise, rng = parse(name, 0.25), torch.Generator().manual_seed(3)
    x = torch.randint(0, 256, (3, 8, 8), generator=rng).float() / 255
    moved = torch.randint(0, 256, (3, 8, 8), generator=rng).float() / 255
    drawn = noise.draw(x, 64, rng)
    assert torch.equal(drawn, drawn.round()) and float(drawn.abs().max()) < 2**23
    assert torch.equal(noise.apply(x, drawn), noise.apply(moved, drawn + to_lattice(x) - to_lattice(moved)))
    exact = (to_lattice(x).double() + drawn.double()) / SCALE
    assert torch.equal(noise.apply(x, drawn), exact.float())


@pytest.mark.parametrize("sigma", [1 / 255, 0.25, 1.5])
def test_lattice_noise_is_normal(sigma: float) -> None:
    canvas, noise = torch.zeros(3, 32, 32), Gaussian(sigma)
    numbers = noise.draw(canvas, 100, generator("cpu", sigma.hex())).flatten().numpy() / (SCALE * sigma)
    assert sps.kstest(numbers, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / math.sqrt(len(numbers))


def test_lattice_noise_is_uniform() -> None:
    canvas, noise = torch.zeros(3, 32, 32), parse("uniform", 0.25)
    drawn = noise.apply(canvas, noise.draw(canvas, 100, generator("cpu", "uniform"))).flatten().numpy()
    half = math.sqrt(3) * 0.25
    assert sps.kstest(drawn, "uniform", args=(-half, 2 * half)).pvalue > 1e-3
    assert float(drawn.std()) == pytest.approx(0.25, rel=0.01) and np.abs(drawn).max() <= half


def test_the_terms_of_the_bound_on_the_sampler() -> None:
    """E|dN / du| of Box and Muller's two uniform numbers, integrated, and of a ziggurat's position in its layer."""
    radius, angle = np.linspace(0, 8.6, 20_001)[1:], np.linspace(0, 2 * np.pi, 2001)[:-1]
    density = radius * np.exp(-(radius**2) / 2)
    by_angle = 2 * np.pi * np.trapezoid(radius * density, radius) * np.abs(np.sin(angle)).mean()
    by_radius = np.trapezoid(np.exp(radius**2 / 2) / radius * density, radius) * np.abs(np.cos(angle)).mean()
    assert by_angle == pytest.approx(5.0, abs=0.02) and by_radius == pytest.approx(5.5, abs=0.03)
    assert by_angle + by_radius + 15 < 32 and 2 * 3.66 + 3 < 32
    view = View(height=384, width=384)
    assert Gaussian(0.25).slack(view) == pytest.approx(442_368 * 32 * 2**-53 * 4096 * 255 * 0.25)
    assert 0 < Gaussian(0.25).slack(view) < 5e-4, "a few tenths of alpha's order at the default canvas"
    assert Gaussian(0.25).slack(None) == 0


def test_what_the_sampler_misses_is_subtracted() -> None:
    budget, view = Smoothing(sigma=0.25, n0=10, n=1000), View(height=384, width=384)
    alone, there = (certification.read_votes((10, 0, 0), (1000, 0, 0), budget, place) for place in (None, view))
    assert alone.p_lower is not None and there.p_lower is not None and there.radius is not None
    assert there.p_lower == alone.p_lower - Gaussian(0.25).slack(view)
    assert there.radius == pytest.approx(0.25 * sps.norm.ppf(there.p_lower)) and there.radius == budget.ceiling_on(view)
    ladder = Sequential(sigma=0.25, radii={"1s": 0.25}, n=1000)
    assert ladder.evidence(view)[0].p0 == ladder.evidence()[0].p0 + Gaussian(0.25).slack(view)


# --------------------------------------------------------------------------------------------------------- closed form


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("p", [0.6, 0.9, 0.995])
def test_probabilities_are_those_of_the_truth(name: str, p: float) -> None:
    """At the image p, and one half at exactly the radius, reached by the worst change."""
    toy, n = truths.truth(name, p), 4000
    noise = toy.noise
    if noise.measure == "parameter":
        sign = 1 if name == "gamma" else -1
        edge = noise.apply(toy.canvas, torch.full((1, 1, 1, 1), sign * toy.radius))[0]
    else:
        edge = toy.canvas.clone()
        edge[0, 0, 0] -= toy.radius
    for canvas, wanted in ((toy.canvas, p), (edge, 0.5)):
        votes = count_votes(toy.model.vote(AB), canvas, noise, n, 100, streams(name, str(p), str(wanted)))[0]
        assert sps.binomtest(votes, n, wanted).pvalue > 1e-4
    assert noise.probability_needed(toy.radius) == pytest.approx(p)
    assert noise.probability_left(p, toy.radius, toy.radius) == pytest.approx(0.5)
    assert noise.radius(0.5) is None and noise.probability_needed(0.0) == 0.5


@pytest.mark.parametrize("name", KINDS)
def test_certificates_are_false_no_more_often_than_alpha_says(name: str) -> None:
    """A fast part of reports/certificates: 400 of each, fixed and sequential, at alpha 0.1."""
    toy, alpha, count = truths.truth(name, 0.9), 0.1, 400
    vote, sigma = toy.model.vote(AB), truths.SIGMA[name]
    fixed = Smoothing(noise=name, sigma=sigma, n0=5, n=50, alpha=alpha)
    ladder = Ladder(Sequential(noise=name, sigma=sigma, radii={"r": toy.radius}, n=200, alpha=alpha))
    false = [0, 0]
    for number in range(count):
        radius = certify(vote, toy.canvas, fixed, rng=streams(number), batch=64).radius
        false[0] += radius is not None and radius > toy.radius
        asked = certify_gold(vote, toy.canvas, ladder, gold=0, rng=streams(number), batch=64)
        false[1] += asked.radius is not None
    allowed = sps.binom.ppf(1 - 1e-4, count, alpha)
    assert max(false) <= allowed and false[0] > 0, "and not for want of certificates"


@pytest.mark.parametrize("name", [kind for kind in KINDS if kind not in PIXELS])
def test_changes_of_a_parameter_add_up(name: str) -> None:
    noise = parse(name, 0.5 if name != "brightness" else 0.2)
    canvas = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    s, t = torch.full((1, 1, 1, 1), 0.13), torch.full((1, 1, 1, 1), -0.29)
    twice = noise.apply(noise.apply(canvas, s)[0], t)
    assert torch.allclose(twice, noise.apply(canvas, s + t), atol=1e-6)
    assert not torch.allclose(twice, canvas[None], atol=1e-2)
    assert torch.equal(noise.apply(canvas, torch.zeros(1, 1, 1, 1))[0], canvas)


@pytest.mark.parametrize("name", [kind for kind in KINDS if kind not in PIXELS])
def test_no_parameter_within_the_radius_contradicts(name: str) -> None:
    """A grid over the parameter, on a model that looks at many pixels at once."""
    noise, rng = parse(name, truths.SIGMA[name]), torch.Generator().manual_seed(1)
    canvas = torch.rand(3, 8, 8, generator=rng) * 0.6 + 0.2
    weight = torch.randn(3, 8, 8, generator=rng)

    class Wavy:
        def scores(self, x: torch.Tensor, questions: object) -> torch.Tensor:
            margin = torch.sin(3 * (x * weight).flatten(1).sum(1)) + 0.7
            return torch.stack([margin, -margin], dim=1)

    vote = Waist(Wavy(), torch.device("cpu")).vote(AB)
    budget = Smoothing(noise=name, sigma=truths.SIGMA[name], n0=50, n=2000)
    certificate = certify(vote, canvas, budget, rng=streams(name), batch=500)
    assert certificate.radius is not None and certificate.prediction is not None
    for t in np.linspace(-0.999, 0.999, 21) * certificate.radius:
        moved = noise.apply(canvas, torch.full((1, 1, 1, 1), float(t)))[0]
        votes = count_votes(vote, moved, noise, 1000, 500, streams(name, repr(t)))[certificate.prediction]
        assert stats.clopper_pearson_upper(votes, 1000, 1e-6) >= 0.5


# --------------------------------------------------------------------------------------------------------- falsify


SPEC = Falsification(shares=(0.0, 0.5, 0.9), steps=8, m=16, n=1000)


def refuted(name: str, p: float = 0.97, side: int = 4) -> list[Any]:
    """What --falsify refutes of a few certificates of a toy."""
    kept: list[Any] = []
    toy = truths.truth(name, p, side)
    budget = Smoothing(noise=name, sigma=truths.SIGMA[name], n0=20, n=400)
    for number in range(4):
        certificate = certify(toy.model.vote(AB), toy.canvas, budget, rng=streams(number), batch=64)
        falsifier = Falsifier(
            model=toy.model, spec=SPEC, noise=toy.noise, seed=number, batch=500, keep=lambda *what: kept.append(what)
        )
        if certificate.radius is not None:
            falsifier(f"i{number}", Shown(canvas=toy.canvas, view=view_of(toy.canvas)), AB, certificate)
    return kept


@pytest.mark.parametrize("name", KINDS)
def test_sound_certificates_survive_attacks(name: str) -> None:
    assert refuted(name) == []


def half_of_sigma(canvas: torch.Tensor, full: Noise, *rest: Any) -> Iterator[torch.Tensor]:
    return copies.noisy_copies(canvas, replace(full, sigma=full.sigma / 2), *rest)  # type: ignore[type-var, attr-defined]


def shared(*arguments: Any) -> Iterator[torch.Tensor]:
    """One draw for the whole batch."""
    for batch in copies.noisy_copies(*arguments):
        yield batch[:1].expand_as(batch)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("planted", [half_of_sigma, shared])
def test_unsound_certificates_are_found(
    name: str, planted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certification, "noisy_copies", planted)
    assert refuted(name, p=0.9)


class Step:
    """Answers A where two neighbouring values differ by a twentieth at least, or all is white."""

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        step = (canvas[:, 0, 0, 0] - canvas[:, 0, 0, 1]).abs() - 0.05
        margin = 40 * torch.maximum(step, canvas.flatten(1).mean(1) - 0.97)
        return torch.stack([margin, -margin], dim=1)


@pytest.mark.parametrize("clipped", [False, True])
def test_clipping_in_between_is_found(clipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright pixels that differ: a brightness that clips them to white makes them equal, and none undoes it."""
    if clipped:
        monkeypatch.setattr(Brightness, "apply", lambda self, canvas, drawn: (canvas + drawn).clamp(0, 1))
    canvas, model = torch.full((3, 1, 2), 0.75), Waist(Step(), torch.device("cpu"))
    canvas[:, :, 1] = 0.85
    budget = Smoothing(noise="brightness", sigma=0.2, n0=20, n=1000)
    certificate = certify(model.vote(AB), canvas, budget, rng=streams(0), batch=64)
    kept: list[Any] = []
    spec = Falsification(shares=(0.7,), steps=8, m=16, n=1000)
    falsifier = Falsifier(
        model=model, spec=spec, noise=budget.kind, seed=0, batch=500, keep=lambda *what: kept.append(what)
    )
    assert certificate.radius is not None and certificate.prediction == 0
    falsifier("i", Shown(canvas=canvas, view=view_of(canvas)), AB, certificate)
    assert bool(kept) == clipped


def test_projection_onto_an_l1_ball() -> None:
    """Against a plain search for the threshold, and the best step: everything on one value."""
    rng = torch.Generator().manual_seed(0)
    x0, x = torch.rand(4, 3, 5, 5, generator=rng), torch.rand(4, 3, 5, 5, generator=rng)
    ball = L1Ball(norm="l2", eps=1.5, box=False)
    inside = ball.project(x0, x)
    for row in range(4):
        delta = (x[row] - x0[row]).double()
        low, high = 0.0, float(delta.abs().max())
        for _ in range(80):
            middle = (low + high) / 2
            shrunk = (delta.abs() - middle).clamp_min(0)
            low, high = (middle, high) if float(shrunk.sum()) > 1.5 else (low, middle)
        wanted = delta.sign() * (delta.abs() - high).clamp_min(0)
        assert torch.allclose((inside[row] - x0[row]).double(), wanted, atol=1e-6)
    assert torch.equal(ball.project(x0, x0 + 1e-4), x0 + 1e-4), "inside already"
    ball.check(x0, inside)


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sampling"), [*[(name, "fixed") for name in KINDS], ("uniform", "sequential"), ("gamma", "sequential")]
)
def test_from_command_to_report(name: str, sampling: str, tmp_path: Path, table: Path) -> None:
    """Each kind is certified, resumed, shown, reported on and compared with itself."""
    asked = ["certify", "--model", TOY, "--data", f"table:{table}", "--canvas", "8x8", "--limit", 4, "--noise", name]
    asked += ["--sigma", truths.SIGMA[name], "--n", 200, "--sampling", sampling, "--falsify", "--out", tmp_path / "a"]
    code, text = call(*asked)
    assert code == 0 and f"noise {name}" in text, text
    assert call(*asked)[0] == 0, "resumed"
    code, text = call("report", tmp_path / "a", "--out", tmp_path / "report")
    assert code == 0, text
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    code, text = call("compare", tmp_path / "a", tmp_path / "b")
    assert code in (0, 3), text


def test_runs_of_different_noise_are_not_compared(tmp_path: Path, table: Path) -> None:
    for noise in ("gaussian", "float32"):
        asked = ["certify", "--model", TOY, "--data", f"table:{table}", "--canvas", "8x8", "--limit", 4]
        call(*asked, "--noise", noise, "--sigma", 0.25, "--n", 60, "--out", tmp_path / noise)
    code, text = call("compare", tmp_path / "gaussian", tmp_path / "float32")
    assert code == 2 and "noise" in text


# ------------------------------------------------------------------------------------------------- reports/certificates

MEASURED = Path(__file__).parents[1] / "reports" / "certificates"
RUNS = [f"{model}-{kind}" for model in ("sft", "at-grpo") for kind in (*KINDS, "sequential", "patch", "file")]


@pytest.mark.parametrize("name", [name for name in RUNS if not name.endswith("float32")])
def test_what_the_shipped_checkpoints_certify_is_of_them(name: str) -> None:
    """Reading recomputes every certificate from its votes."""
    run = Run.read(MEASURED / name)
    model, _, kind = name.rpartition("-")
    assert run.spec.model == resolve(f"builtin:{model}").identity and not run.unfinished and not run.failed
    assert isinstance(run.spec, CertifySpec)
    own = "gaussian" if kind in ("sequential", "file") else kind
    assert run.budget.noise.partition(":")[0] == own and (run.spec.domain == "file") == (kind == "file")
