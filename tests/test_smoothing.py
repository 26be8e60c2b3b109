"""Certificates against closed-form truth, and the noise against its promises."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as sps
from torch.utils._python_dispatch import TorchDispatchMode

from safemed_eval.core import Question
from safemed_eval.errors import ModelOutputError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Float32, Gaussian, Smoothing, read_votes
from safemed_eval.smoothing.certify import certify, count_votes
from safemed_eval.smoothing.copies import CHUNK, noisy_copies

AB = Question(text="Which?", options=("A", "B"))
SHAPE = (3, 4, 4)


def rng(seed: int, purpose: str, chunk: int) -> torch.Generator:
    return generator("cpu", seed, purpose, chunk)


def all_copies(n: int, batch: int, seed: int = 0) -> torch.Tensor:
    source = functools.partial(rng, seed, "test")
    copies = noisy_copies(torch.full(SHAPE, 0.5), Gaussian(0.25), n, batch, source)
    return torch.cat([batch_of_copies.clone() for batch_of_copies in copies])


@pytest.mark.parametrize("batch", [1, 7, CHUNK, 100])
def test_noise_does_not_depend_on_the_batch(batch: int) -> None:
    assert torch.equal(all_copies(100, batch), all_copies(100, 64))


def test_memory_does_not_grow_with_the_number_of_draws() -> None:
    source = functools.partial(rng, 0, "test")
    places = {copies.data_ptr() for copies in noisy_copies(torch.zeros(SHAPE), Gaussian(0.25), 5000, 10, source)}
    assert len(places) == 1


def test_fewer_draws_are_the_first_of_more() -> None:
    assert torch.equal(all_copies(37, 8), all_copies(100, 64)[:37])


def test_further_draws_are_those_of_a_longer_run() -> None:
    """Whole chunks can be left out; within one the draws would be others."""
    source, x = functools.partial(rng, 0, "test"), torch.full(SHAPE, 0.5)
    rest = [batch.clone() for batch in noisy_copies(x, Gaussian(0.25), 20, 8, source, first=2 * CHUNK)]
    assert torch.equal(torch.cat(rest), all_copies(100, 64)[2 * CHUNK :][:20])
    for first in (1, CHUNK - 1, CHUNK + 1):
        with pytest.raises(ValueError, match=f"first must be a multiple of {CHUNK}, got {first}"):
            next(noisy_copies(x, Gaussian(0.25), 20, 8, source, first=first))


def test_noise_is_gaussian_and_independent() -> None:
    noise = (all_copies(4000, 64) - 0.5) / 0.25
    assert sps.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    corr = np.corrcoef(noise.flatten(1).numpy())
    assert np.abs(corr - np.eye(len(corr))).mean() < 1 / np.sqrt(noise[0].numel())
    assert not torch.equal(all_copies(10, 10, seed=0), all_copies(10, 10, seed=1))
    assert torch.unique(noise, dim=0).shape[0] == 4000, "no draw is ever repeated"


def toy(margin: float) -> tuple[Waist, torch.Tensor, float]:
    """A linear model, a canvas of that margin, and the true smoothed radius."""
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    model = Linear(weight, bias=0.0)
    canvas = torch.full(SHAPE, 0.5)
    model.bias = margin - float(model.margin(canvas[None]))
    return Waist(model, torch.device("cpu")), canvas, float(model.radius(canvas[None]))


def test_certificates_are_sound_on_a_model_with_known_radius() -> None:
    """Over many seeds a certificate exceeds the true radius at most alpha of the time, and comes close to it."""
    model, canvas, true_radius = toy(1.0)
    smoothing = Smoothing(sigma=0.3, n0=20, n=200, alpha=0.05)
    radii = []
    for seed in range(1000):
        found = certify(model.vote(AB), canvas, smoothing, rng=functools.partial(rng, seed), batch=300)
        assert found.prediction in (0, None)
        radii.append(found.radius or 0.0)
    false = sum(radius > true_radius for radius in radii)
    assert false <= sps.binom.ppf(0.999, len(radii), smoothing.alpha)
    assert false > 0, "with alpha = 0.05 a bound this exact must fail now and then, or it wastes samples"
    assert np.median(radii) > 0.6 * true_radius


def test_coverage_is_exact_for_every_p() -> None:
    """P(radius > truth) summed over all vote counts is at most alpha, for p on both sides of one half."""
    smoothing = Smoothing(sigma=0.5, n0=1, n=60, alpha=0.01)
    radii = [read_votes((1, 0, 0), (k, 60 - k, 0), smoothing).radius or 0.0 for k in range(61)]
    for p in np.linspace(0.02, 0.98, 97):
        truth = max(0.0, 0.5 * sps.norm.ppf(p))
        mass = sps.binom.pmf(np.arange(61), 60, p)
        assert mass[np.array(radii) > truth].sum() <= 0.01 * (1 + 1e-9)


def test_selection_and_estimation_use_different_noise() -> None:
    """Reused selection votes would make the bound false: the class would be chosen on the votes that bound it."""
    model, canvas, _ = toy(0.0)
    found = [
        certify(model.vote(AB), canvas, Smoothing(sigma=0.3, n0=50, n=50), rng=functools.partial(rng, s), batch=64)
        for s in range(60)
    ]
    pairs = np.array([(c.votes0[0], c.votes[0]) for c in found])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.4
    assert (pairs[:, 0] != pairs[:, 1]).any()


def test_reading_votes() -> None:
    smoothing = Smoothing(sigma=0.25, n0=10, n=1000, alpha=0.001)
    unanimous = read_votes((0, 10, 0), (0, 1000, 0), smoothing)
    assert unanimous.prediction == 1
    assert unanimous.radius == pytest.approx(smoothing.ceiling)
    split = read_votes((6, 4, 0), (510, 490, 0), smoothing)
    assert (split.prediction, split.radius, split.abstained) == (None, None, "p_lower <= 1/2")
    silent = read_votes((0, 1, 9), (0, 0, 1000), smoothing)
    assert (silent.prediction, silent.radius, silent.abstained) == (None, None, "no answer won")
    assert read_votes((5, 5, 0), (1000, 0, 0), smoothing).prediction == 0
    # The class comes from the selection votes alone, whatever the estimation votes say.
    assert read_votes((9, 1, 0), (0, 1000, 0), smoothing).abstained == "p_lower <= 1/2"


def test_votes_do_not_depend_on_the_batch() -> None:
    model, canvas, _ = toy(0.2)
    smoothing = Smoothing(sigma=0.3, n0=10, n=333)
    found = [
        certify(model.vote(AB), canvas, smoothing, rng=functools.partial(rng, 5), batch=batch)
        for batch in (1, 50, 1000)
    ]
    assert found[0] == found[1] == found[2]
    assert sum(found[0].votes0) == 10 and sum(found[0].votes) == 333


def test_votes_agree_with_cohens_loop() -> None:
    """The counts of a plain transcription of the sampling loop, on the same noise."""
    model, canvas, _ = toy(0.2)
    source = functools.partial(rng, 5, "estimate")
    counts = count_votes(model.vote(AB), canvas, Float32(0.3), 64, 16, source)
    plain = [0, 0, 0]
    for chunk in range(4):
        for noise in torch.randn((CHUNK, *SHAPE), generator=source(chunk)):
            plain[int(model.vote(AB)((canvas + 0.3 * noise)[None]))] += 1
    assert list(counts) == plain


class Broken:
    """Returns what it is told to."""

    def __init__(self, value: float) -> None:
        self.value = value

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        scores = torch.zeros(len(canvas), 2)
        scores[len(canvas) // 2, 0] = self.value
        return scores


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_logits_raise_instead_of_voting(value: float) -> None:
    vote = Waist(Broken(value), torch.device("cpu")).vote(AB)
    with pytest.raises(ModelOutputError, match="NaN or infinite scores for 2 of 16 rows"):
        certify(vote, torch.zeros(SHAPE), Smoothing(sigma=0.1, n0=16, n=100), rng=functools.partial(rng, 0), batch=8)
    with pytest.raises(ModelOutputError, match="NaN or infinite scores for 1 of 8 rows"):
        vote(torch.zeros((8, *SHAPE)))


class _Waits(TorchDispatchMode):
    """Counts the calls that must wait for a device to know a number."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_counting_votes_waits_for_the_device_no_more_for_more_of_them() -> None:
    model, canvas, _ = toy(0.2)
    found = []
    for n in (64, 640):
        with _Waits() as waits:
            count_votes(model.vote(AB), canvas, Gaussian(0.3), n, 16, functools.partial(rng, 5, "estimate"))
        found.append(waits.count)
    with _Waits() as waits:
        model.vote(AB)(canvas[None])
    assert found[0] == found[1] and waits.count > 0, "a vote that is asked for by itself is checked at once"


class Silent:
    """Votes only; has no answer for dark images."""

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        return torch.where(canvas.mean((1, 2, 3)) > 0.5, 0, len(question.options))


def test_no_answer_is_a_class_that_can_win() -> None:
    smoothing = Smoothing(sigma=0.1, n0=20, n=100)
    vote = Waist(Silent(), torch.device("cpu")).vote(AB)
    run = functools.partial(certify, vote, smoothing=smoothing, rng=functools.partial(rng, 0), batch=32)
    assert run(canvas=torch.full(SHAPE, 0.1)).abstained == "no answer won"
    assert run(canvas=torch.full(SHAPE, 0.9)).prediction == 0


def test_options_are_checked() -> None:
    for bad in ({"sigma": 0.0}, {"sigma": float("nan")}, {"n": 0}, {"n0": 0}, {"alpha": 1.0}, {"n": 5, "alpha": 0.001}):
        with pytest.raises(ValueError):
            Smoothing(**{"sigma": 0.25, **bad})


def test_a_noise_knows_its_radius_and_what_a_radius_takes() -> None:
    noise = Gaussian(0.25)
    for radius in (0.1, 0.25, 0.6):
        assert noise.radius(noise.probability_needed(radius)) == pytest.approx(radius)
        left = noise.probability_left(noise.probability_needed(radius), radius, 2 * radius)
        assert left == pytest.approx(1 - noise.probability_needed(radius))
    assert noise.radius(0.5) is None and noise.probability_needed(0.0) == 0.5
    assert noise.radius(0.001 ** (1 / 1000)) == pytest.approx(Smoothing(sigma=0.25, n=1000, alpha=0.001).ceiling)
    canvas = torch.zeros(3, 100, 100)
    drawn = noise.apply(canvas, noise.draw(canvas, 4, torch.Generator().manual_seed(0)))
    assert float(drawn.std()) == pytest.approx(0.25, rel=0.02)
    for sigma in (0.0, 1e-3, 25.0):
        with pytest.raises(ValueError, match="sigma"):
            Gaussian(sigma)
