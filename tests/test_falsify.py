"""Certificates under attack: sound ones survive, planted unsoundness is found, and chance is allowed for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats as sps
from synthetic import SMOOTHING, certified, write_run
from test_cli import TOY, call
from toys import shown

from safemed_eval import data, stats
from safemed_eval.core import Certificate, Question
from safemed_eval.errors import RunError
from safemed_eval.models.toy import Brightness, Linear
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.report.findings.falsified import falsified_of
from safemed_eval.report.page import write_page
from safemed_eval.runs.work.falsify import Falsifier
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Falsification, Float32, Gaussian, Smoothing, copies
from safemed_eval.smoothing import certify as certification
from safemed_eval.smoothing.certify import certify
from safemed_eval.smoothing.noise._normal import Normal

AB = Question(text="Which?", options=("A", "B"))
SHAPE = (3, 4, 4)
SIGMA = 0.3
WEIGHT = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
LENGTH = float(WEIGHT.norm())
SPEC = Falsification(steps=4, m=4, n=400)


def toy(distance: float) -> tuple[Waist, torch.Tensor]:
    """A linear model, and a canvas at that L2 distance from its boundary."""
    model, canvas = Linear(WEIGHT), torch.full(SHAPE, 0.5)
    model.bias = distance * LENGTH - float(model.margin(canvas[None]))
    return Waist(model, torch.device("cpu")), canvas


def certified_at(model: Waist, canvas: torch.Tensor, seed: int = 0) -> Certificate:
    smoothing = Smoothing(sigma=SIGMA, n0=20, n=300)
    return certify(model.vote(AB), canvas, smoothing, rng=partial(generator, "cpu", seed), batch=64)


def falsifier_of(model: Waist, *, seed: int = 0, batch: int = 64, kept: list[Any] | None = None) -> Falsifier:
    seen: list[Any] = [] if kept is None else kept
    return Falsifier(
        model=model,
        spec=SPEC,
        noise=Gaussian(SIGMA),
        seed=seed,
        batch=batch,
        keep=lambda *what: seen.append(what),
    )


def refuted(distances: list[float]) -> list[Any]:
    """What refutes the certificates at these distances."""
    kept: list[Any] = []
    for number, distance in enumerate(distances):
        model, canvas = toy(distance)
        found = certified_at(model, canvas, number)
        if found.radius is not None:
            falsifier_of(model, kept=kept)(f"i{number}", shown(canvas), AB, found)
    return kept


DISTANCES = list(np.linspace(0.2, 2.5, 40) * SIGMA)


def test_sound_certificates_survive() -> None:
    assert len({item for item, _, _ in refuted(DISTANCES)}) <= stats.false_certificates_at_most(40, 0.001, 0.001) == 1


def after_normalisation(*arguments: Any) -> Iterator[torch.Tensor]:
    """As if noise of sigma were added to pixels that a standard deviation of 0.5 has been divided out of."""
    canvas = arguments[0]
    for noisy in copies.noisy_copies(*arguments):
        yield canvas + 0.5 * (noisy - canvas)


def broadcast(*arguments: Any) -> Iterator[torch.Tensor]:
    """One draw for the whole batch."""
    for noisy in copies.noisy_copies(*arguments):
        yield noisy[:1].expand_as(noisy)


def half_of_sigma(canvas: torch.Tensor, full: Normal, *rest: Any) -> Iterator[torch.Tensor]:
    return copies.noisy_copies(canvas, replace(full, sigma=full.sigma / 2), *rest)


@pytest.mark.parametrize("planted", [after_normalisation, broadcast, half_of_sigma])
def test_planted_unsoundness_is_found(planted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certification, "noisy_copies", planted)
    kept = refuted(DISTANCES)
    assert len({item for item, _, _ in kept}) > stats.false_certificates_at_most(40, 0.001, 0.001)
    item, share, canvas = kept[0]
    assert item.startswith("i") and share in SPEC.shares and canvas.shape == SHAPE


def test_a_radius_that_is_too_wide_is_found_by_the_search_only() -> None:
    model, canvas = toy(SIGMA)
    found = certified_at(model, canvas)
    assert found.radius is not None
    wide = replace(found, radius=3 * found.radius)
    kept: list[Any] = []
    falsifier_of(model, kept=kept)("i", shown(canvas), AB, wide)
    assert {0.9, 0.99} <= {share for _, share, _ in kept} <= {0.5, 0.9, 0.99}


def test_the_search_reaches_the_worst_point_and_leaves_the_box() -> None:
    """On a linear model the margin falls by length ||w||_2 at most; from black that is only reached below 0."""
    model, _ = toy(SIGMA)
    canvas = torch.zeros(SHAPE)
    model.scorer.bias = SIGMA * LENGTH
    certificate = certified_at(model, canvas)
    found = falsifier_of(model)("i", shown(canvas), AB, certificate)
    assert certificate.radius is not None
    for one in found[1:]:
        assert one.length == pytest.approx(one.share * certificate.radius, rel=1e-4), "cut to whole lattice steps"
        truth = sps.norm.cdf(1 - one.length / SIGMA)
        assert abs(one.votes / SPEC.n - truth) < 4 * np.sqrt(truth * (1 - truth) / SPEC.n) + 0.01


def test_nothing_is_searched_within_no_radius() -> None:
    model, canvas = toy(0.5 * SIGMA)
    image, moved, distance = falsifier_of(model)._search("i", shown(canvas), AB, 0, 1.0, 0.0)
    assert distance == 0 and torch.equal(image, canvas) and torch.equal(moved, canvas)


def test_the_same_seed_finds_the_same() -> None:
    model, canvas = toy(SIGMA)
    found = certified_at(model, canvas)
    outcomes = [
        falsifier_of(model, seed=seed, batch=batch)("i", shown(canvas), AB, found)
        for seed, batch in ((0, 64), (0, 7), (1, 64))
    ]
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert [one.share for one in outcomes[0]] == list(SPEC.shares)


def test_what_is_left_of_a_bound() -> None:
    """At the certified radius itself exactly one half is left."""
    for p_lower in (0.55, 0.9, 0.999):
        radius = stats.certified_radius(p_lower, SIGMA)
        assert radius is not None
        assert stats.certified_lower(p_lower, radius, SIGMA, radius) == pytest.approx(0.5)
        assert stats.certified_lower(p_lower, radius, SIGMA, 0.0) == pytest.approx(p_lower)
    assert stats.certified_lower(sps.norm.cdf(2.0), 0.4, 0.2, 0.1) == pytest.approx(sps.norm.cdf(1.5))
    assert stats.certified_lower(0.6, 9.0, 0.2, 1.0) == 0.5, "a radius says one half, whatever p_lower says"


def test_reused_selection_votes_are_found_by_coverage() -> None:
    """Where both options are equally likely, every certificate is false: votes that chose one must not bound it."""
    model, canvas = toy(0.0)
    smoothing = Smoothing(noise="float32", sigma=SIGMA, n0=100, n=100, alpha=0.1)

    def false_ones(purpose_of: Callable[[str], str]) -> int:
        found = (
            certify(
                model.vote(AB),
                canvas,
                smoothing,
                rng=lambda purpose, chunk, seed=seed: generator("cpu", seed, purpose_of(purpose), chunk),
                batch=100,
            )
            for seed in range(600)
        )
        return sum(one.radius is not None for one in found)

    allowed = stats.false_certificates_at_most(600, smoothing.alpha, 0.001)
    assert 0 < false_ones(lambda purpose: purpose) <= allowed < false_ones(lambda purpose: "select")


def test_the_command_fails_where_certificates_are_false_and_each_can_be_replayed(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey images, whose margin of 4 is about one standard deviation of the noise."""
    for number in range(8):
        Image.new("RGB", (8, 8), (176 + number,) * 3).save(table.parent / f"{number}.png")
    shared = ["certify", "--model", TOY, "--data", f"table:{table}", "--canvas", "8x8", "--limit", 3, "--falsify"]
    shared += ["--noise", "float32", "--sigma", 3, "--n", 300]
    code, text = call(*shared, "--out", tmp_path / "sound")
    assert code == 0 and "certificates were attacked within their radius: 0 proved false" in text
    assert not (tmp_path / "sound" / "falsified").exists()
    monkeypatch.setattr(certification, "noisy_copies", half_of_sigma)
    code, text = call(*shared, "--out", tmp_path / "false")
    assert code == 1 and "More certificates are false than chance explains" in text
    assert f"{tmp_path / 'false'}/falsified" in text
    (refuted,) = [json.loads(call(*shared, "--json", "--out", tmp_path / "false")[1])["notes"]["falsified"]]
    canvases = list((tmp_path / "false" / "falsified").rglob("*.npy"))
    assert len(canvases) == len(refuted["refuted"]) > refuted["allowed"]
    one = refuted["refuted"][0]
    assert f"{one['votes']} of 1000 votes" in text and f"distance {one['length']:.6g}" in text
    (file,) = [file for file in canvases if file.parent.name == f"at_{one['share']:g}" and one["item"] in file.name]
    item = next(item for item in data.load(f"table:{table}").items if item.id == one["item"])
    found = Falsifier(
        model=Waist(Brightness(), torch.device("cpu")),
        spec=Falsification(shares=(one["share"],)),
        noise=Float32(3.0),
        seed=0,
        batch=16,
        keep=lambda *_: None,
    )._votes(item.id, torch.from_numpy(np.load(file)), item.question, one["share"])
    assert found[one["prediction"]] == one["votes"]


def falsified(votes: list[int]) -> list[dict[str, Any]]:
    return [{"share": 0.5, "length": 0.05, "votes": count} for count in votes]


def test_a_report_refutes_what_the_votes_refute(tmp_path: Path) -> None:
    """p_lower is about 0.95 and 0.9 at 0.05 from the image: 500 of 1,000 votes there refute it, 900 do not."""
    spec = {"falsify": vars(Falsification(shares=(0.5,)))}
    records = [certified(number, 970) | {"falsified": falsified([900])} for number in range(30)]
    records[3] |= {"falsified": falsified([500])}
    records[4] = certified(4, 500) | {"falsified": None}
    found = falsified_of(Run.read(write_run(tmp_path / "a", records, "certify", spec=spec)))
    assert found is not None
    assert (found.certificates, found.items, found.allowed, found.sound) == (29, 1, 1, True)
    (one,) = found.refuted
    assert (one.item, one.share, one.votes, one.n) == ("i3", 0.5, 500, 1000)
    assert one.upper < one.claimed < one.p_lower
    for number in (7, 8):
        records[number] |= {"falsified": falsified([500])}
    two = falsified_of(Run.read(write_run(tmp_path / "b", records, "certify", spec=spec)))
    assert two is not None and (two.items, two.sound) == (3, False)
    assert falsified_of(Run.read(write_run(tmp_path / "c", [certified(0, 970)], "certify"))) is None
    assert SMOOTHING.alpha == 0.001


def test_what_cannot_be_refuted_is_told(tmp_path: Path) -> None:
    """Whoever has all votes has the ceiling's radius. One less is below it."""
    spec = {"falsify": vars(Falsification(shares=(0.5,)))}
    for unanimous, words in ((0, None), (2, "2 of the 5 certificates stand"), (5, "All 5 certificates stand")):
        records = [certified(i, 1000 if i < unanimous else 999) | {"falsified": falsified([990])} for i in range(5)]
        run = Run.read(write_run(tmp_path / str(unanimous), records, "certify", spec=spec))
        found = falsified_of(run)
        assert found is not None and (found.certificates, found.at_ceiling) == (5, unanimous)
        assert (found.remark is None) if words is None else found.remark is not None and found.remark.startswith(words)
        write_page([run], tmp_path / "page.html", title="x")
        assert ("their survival does not show" in (tmp_path / "page.html").read_text()) == bool(unanimous)


def test_no_radius_below_the_true_one_is_refuted_however_it_was_made() -> None:
    """The sentence itself: far from the boundary a radius that is 3 times too wide survives, near it it does not."""
    for distance, survives in ((12 * SIGMA, True), (1.5 * SIGMA, False)):
        model, canvas = toy(distance)
        found = certified_at(model, canvas)
        kept: list[Any] = []
        assert found.radius is not None
        falsifier_of(model, kept=kept)("i", shown(canvas), AB, replace(found, radius=3 * found.radius))
        assert (not kept) == survives


def test_the_terminal_says_what_cannot_be_refuted(table: Path, tmp_path: Path) -> None:
    asked = ["certify", "--model", TOY, "--data", f"table:{table}", "--canvas", "8x8", "--limit", 3, "--falsify"]
    asked += ["--sigma", 0.02, "--n0", 10, "--n", 50, "--out", tmp_path / "run"]
    code, text = call(*asked)
    told = json.loads(call(*asked, "--json")[1])["notes"]["falsified"]
    assert told["at_ceiling"] == told["certificates"] > 0
    assert code == 0 and f"All {told['certificates']} certificates stand at the ceiling" in text


@pytest.mark.parametrize("broken", [None, [{"share": 0.5}], [{"share": 0.5, "length": 0.05, "votes": 1001}], "x"])
def test_an_edited_outcome_is_refused(broken: Any, tmp_path: Path) -> None:
    spec = {"falsify": vars(Falsification())}
    out = write_run(tmp_path / "a", [certified(0, 970) | {"falsified": broken}], "certify", spec=spec)
    with pytest.raises(RunError, match="falsified"):
        Run.read(out)
    assert json.loads((out / "run.json").read_text())["spec"]["falsify"]["n"] == 1000
