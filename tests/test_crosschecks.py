"""The same numbers by other people's code, and what must hold whatever the votes are."""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import answers
from scipy import stats as sps
from statsmodels.stats.proportion import proportion_confint
from synthetic import certified, failed, numbers, write_run
from test_pipeline import CHOSEN, CPU, evaluation, items, without_seconds
from torture.models import Quarters

from safemed_eval import stats
from safemed_eval.core import Item, Question
from safemed_eval.models.waist import Waist
from safemed_eval.runs.work.certify import Counted
from safemed_eval.runs.work.units import Certificates, Part
from safemed_eval.seeds import generator
from safemed_eval.smoothing import (
    Falsification,
    Gaussian,
    Ladder,
    Sequential,
    Smoothing,
    Voting,
    budget_of,
    read_draws,
    read_votes,
    read_wrong,
)
from safemed_eval.smoothing.certify import count_votes

# ------------------------------------------------------------------------------------------------- other people's code


def test_bounds_are_those_that_r_prints() -> None:
    """R's help of binom.test: binom.test(682, 682 + 243, p = 3/4) has the interval 0.7076683 0.7654066."""
    low, high = stats.clopper_pearson_lower(682, 925, 0.025), stats.clopper_pearson_upper(682, 925, 0.025)
    assert (round(low, 7), round(high, 7)) == (0.7076683, 0.7654066)


@functools.cache
def arts_certify(alpha: float) -> object:
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    return PyTorchRandomizedSmoothing(
        model=torch.nn.Identity(), loss=None, input_shape=(3,), nb_classes=3, sample_size=100, scale=0.25, alpha=alpha
    )


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize(
    ("votes0", "votes"),
    [
        ((90, 10, 0), (930, 70, 0)),
        ((10, 90, 0), (70, 930, 0)),
        ((0, 100, 0), (0, 1000, 0)),
        ((60, 40, 0), (560, 440, 0)),
        ((60, 40, 0), (500, 500, 0)),
        ((90, 10, 0), (10, 990, 0)),
    ],
)
def test_certificates_are_those_of_art_and_statsmodels(
    votes0: tuple[int, ...], votes: tuple[int, ...], alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = read_votes(votes0, votes, Smoothing(sigma=0.25, n0=100, n=1000, alpha=alpha))
    theirs = arts_certify(alpha)
    counts = iter([np.array(votes0), np.array(votes)])
    monkeypatch.setattr(theirs, "_prediction_counts", lambda *_, **__: next(counts))
    (prediction,), (radius,) = theirs.certify(np.zeros((1, 3), dtype=np.float32), n=1000)  # type: ignore[attr-defined]
    assert (ours.prediction, ours.radius or 0.0) == (None if prediction == -1 else prediction, pytest.approx(radius))
    low = proportion_confint(votes[int(np.argmax(votes0))], 1000, 2 * alpha, "beta")[0]
    assert ours.p_lower == pytest.approx(low, abs=1e-12)
    assert ours.radius == (pytest.approx(0.25 * sps.norm.ppf(low)) if low > 0.5 else None)


def test_certified_accuracy_is_a_line_of_pandas(tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = Random(0)
    records = [
        certified(
            i, rng.choice([500, 600, 920, 990, 1000]), chosen=rng.choice([0, 1, 1, 1]), modality=rng.choice("ABC")
        )
        for i in range(60)
    ] + [failed(60, modality="A")]
    out = write_run(tmp_path_factory.mktemp("run") / "run", records, "certify")
    points = {"0": 0.0, "0.1": 0.1, "0.4": 0.4, "0.6": 0.6}
    summary, frame = numbers(out, points), pd.read_json(out / "records.jsonl", lines=True)
    for name, radius in points.items():
        holds = frame["correct"] & (frame["radius"] >= radius)
        assert summary.overall["certified"][name]["certified_accuracy"] == pytest.approx(holds.mean())
        for modality, share in holds.groupby(frame["modality"]).mean().items():
            assert summary.by_modality[modality]["certified"][name]["certified_accuracy"] == pytest.approx(share)
    assert summary.overall["average_radius"] == pytest.approx(
        frame["radius"].where(frame["correct"], 0).fillna(0).mean()
    )


def test_what_is_asked_of_certificates_has_its_limits() -> None:
    for most in ({"n": 10**8}, {"n0": 10**8}):
        assert Smoothing(**{"sigma": 0.25, **most}).ceiling
        with pytest.raises(ValueError, match="between 1 and 100,000,000"):
            Smoothing(**{"sigma": 0.25, **{name: value + 1 for name, value in most.items()}})
    assert Voting(sigma=0.25, n=10**8, m=10**4).n == 10**8
    for beyond in ({"n": 10**8 + 1}, {"m": 10**4 + 1}, {"m": 0}):
        with pytest.raises(ValueError, match="m between 1 and 10,000"):
            Voting(**{"sigma": 0.25, **beyond})
    assert Sequential(sigma=0.25, radii={"1s": 0.25}).n == Smoothing(sigma=0.25).n == 1000
    for spec in ({}, {"sampling": "other", "smoothing": {}}):
        with pytest.raises(ValueError, match="sampling cannot be"):
            budget_of(spec)


def test_what_is_asked_of_a_falsification_has_its_limits() -> None:
    least = {"shares": (0.0,), "steps": 1, "m": 1, "n": 1}
    assert Falsification(**least).alpha == 1e-6
    for beyond in ({"shares": (0.5, 1.0)}, {"shares": (-0.1,)}, {"steps": 0}, {"alpha": 0.0}, {"alpha": 1.0}):
        with pytest.raises(ValueError, match="shares must lie in"):
            Falsification(**least | beyond)
    for beyond in ({"m": 0}, {"n": 0}, {"m": 10**4 + 1}, {"n": 10**8 + 1}):
        with pytest.raises(ValueError, match="m between 1 and 10,000"):
            Falsification(**least | beyond)


def test_a_wrong_selection_says_whether_it_was_an_answer() -> None:
    assert read_wrong((9, 1, 0), 0) is None
    other, silent = read_wrong((1, 9, 0), 0), read_wrong((1, 0, 9), 0)
    assert other is not None and silent is not None
    assert (other.abstained, silent.abstained) == ("wrong answer selected", "no answer won")
    assert other.radius is None and other.votes0 == (1, 9, 0)


# ----------------------------------------------------------------------------------------------- whatever the votes are

counts = st.integers(1, 4).flatmap(lambda k: st.lists(st.integers(0, 300), min_size=k + 1, max_size=k + 1))


@given(votes0=counts, data=st.data(), alpha=st.floats(1e-5, 0.4))
def test_certificates_are_monotone(votes0: list[int], data: st.DataObject, alpha: float) -> None:
    """A vote more for the winner, or a laxer alpha, never makes a radius smaller; no radius beats the ceiling."""
    votes = data.draw(st.lists(st.integers(0, 300), min_size=len(votes0), max_size=len(votes0)))
    n = sum(votes)
    if not n or 2 * alpha ** (1 / n) <= 1:
        return
    read = functools.partial(read_votes, tuple(votes0))
    spec = Smoothing(sigma=0.25, n0=max(1, sum(votes0)), n=n, alpha=alpha)
    found = read(tuple(votes), spec)
    assert (found.radius or 0.0) <= spec.ceiling * (1 + 1e-12)
    assert (found.radius is None) == (found.prediction is None) == (found.abstained is not None)
    stricter = alpha / 2
    if 2 * stricter ** (1 / n) > 1:
        assert (read(tuple(votes), Smoothing(sigma=0.25, n0=1, n=n, alpha=stricter)).radius or 0.0) <= (
            found.radius or 0.0
        )
    winner = votes0.index(max(votes0))
    loser = data.draw(st.sampled_from(range(len(votes))))
    if loser != winner and votes[loser]:
        more = [v + (c == winner) - (c == loser) for c, v in enumerate(votes)]
        assert (read(tuple(more), spec).radius or 0.0) >= (found.radius or 0.0)
    if winner == len(votes) - 1:
        assert found.radius is None, "no answer is never certified"


LADDER = Ladder(Sequential(sigma=0.25, radii={"0": 0.0, "a": 0.1, "b": 0.25, "c": 0.4}, n=600, alpha=0.01))


@settings(max_examples=25)
@given(p=st.floats(0.3, 1.0), seed=st.integers(0, 2**32 - 1), cuts=st.sets(st.integers(1, 200), min_size=1, max_size=5))
def test_certified_radii_nest_and_do_not_depend_on_how_draws_come(p: float, seed: int, cuts: set[int]) -> None:
    draws = np.random.default_rng(seed).choice(4, 600, p=[(1 - p) / 2, p, (1 - p) / 3, (1 - p) / 6])
    found = LADDER.follow([draws], 1, 4)
    flags = list(found.certified.values())
    assert flags == sorted(flags, reverse=True), "each radius with all smaller ones"
    assert found.radius == (list(LADDER.spec.ladder.values())[sum(flags) - 1] if any(flags) else None)
    assert LADDER.follow(np.split(draws, sorted(cuts)), 1, 4) == found
    assert (read_draws(found.draws, found.stopped_at, 4) == draws[: found.stopped_at]).all()
    assert LADDER.read_again(found, 1, 4) == found
    stricter = Ladder(Sequential(sigma=0.25, radii=dict(LADDER.spec.radii), n=600, alpha=0.001))
    stricter = stricter.read_again(found, 1, 4)
    assert sum(stricter.certified.values()) <= sum(flags)


@settings(max_examples=25)
@given(n=st.integers(1, 80), batch=st.integers(1, 40), first=st.integers(0, 3), seed=st.integers(0, 9))
def test_votes_sum_to_the_draws_and_parts_to_the_whole(n: int, batch: int, first: int, seed: int) -> None:
    vote = Waist(Quarters(), CPU).vote(Question(text="?", options=("A", "B", "C")))
    count = functools.partial(count_votes, vote, torch.full((3, 4, 4), 0.5), Gaussian(0.3))
    streams = functools.partial(generator, "cpu", seed)
    skipped = 16 * first
    whole, start = count(skipped + n, batch, streams), count(skipped, 16, streams) if skipped else (0, 0, 0, 0)
    rest = count(n, batch, streams, first=skipped)
    assert sum(whole) == skipped + n and sum(rest) == n
    assert tuple(a + b for a, b in zip(start, rest, strict=True)) == whole


@settings(max_examples=25)
@given(order=st.randoms(), lost=st.none() | st.integers(0, 50))
def test_parts_may_come_in_any_order(order: Random, lost: int | None) -> None:
    """Two items in parts: the votes are those of the whole; an item with a lost part is one error."""
    asked = [
        Item(id=f"i{i}", question=Question(text="?", options=("A", "B")), label=0, image="", root=Path())
        for i in range(2)
    ]
    smoothing = Smoothing(sigma=0.3, n0=40, n=7000)
    made = Certificates(items=asked, smoothing=smoothing, batch=24, done=lambda item: False, split=True)
    units = [unit for unit in made.units() if isinstance(unit, Part)]
    order.shuffle(units)
    results = [(unit, Counted(votes=(unit.n - 1, 1, 0), error=None, batch=24, seconds=0.5)) for unit in units]
    if lost is not None:
        gone = results[lost % len(results)][0]
        results = [(unit, unit.failed("gone") if unit is gone else counted) for unit, counted in results]
    found = {one.item: one.to_json() for records in made.records(iter(results)) for one in records}
    assert len(found) == 2
    for one in found.values():
        if lost is not None and one["item"] == gone.item.id:
            assert (one["error"], one["votes"], one["radius"]) == ("gone", None, None)
        else:
            assert (one["votes0"], one["votes"]) == ([39, 1, 0], [7000 - 4, 4, 0])


def test_a_run_may_be_cut_anywhere(table: Path) -> None:
    """Any set of records may be there already: the rest completes them to those of a whole run."""
    whole = [one for group in answers(evaluation(Quarters()), items(table), CHOSEN) for one in group]
    key = {(one["item"], one["attack"]): one for one in without_seconds(whole)}
    shuffler = Random(0)
    for _ in range(5):
        there = set(shuffler.sample(sorted(key), shuffler.randrange(1, len(key))))
        rest = answers(evaluation(Quarters()), items(table), CHOSEN, done=lambda i, c, there=there: (i, c) in there)
        found = {(one["item"], one["attack"]): one for group in rest for one in without_seconds(group)}
        assert found == {name: one for name, one in key.items() if name not in there}
