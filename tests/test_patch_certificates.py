"""Certificates against patches: the count of bands, brute force over every patch, attacks, and planted unsoundness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from toys import AB, ABCD, Net, middle_canvases

from safemed_eval import attacks
from safemed_eval.core import Certificate, Question
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.runs.record import PatchShot
from safemed_eval.runs.work import falsify_patch
from safemed_eval.runs.work.falsify_patch import PatchFalsifier
from safemed_eval.runs.work.shown import Shown
from safemed_eval.smoothing import NO_ANSWER, Exhaustive, Patch, PatchSearch, View, bands, read_bands
from safemed_eval.smoothing.bands import ablated, banded_copies, certify_bands
from safemed_eval.smoothing.certify import view_of
from safemed_eval.smoothing.votes import selected

GREY = (0.5, 0.5, 0.5)
CPU = torch.device("cpu")


def waist(model: Any) -> Waist:
    return Waist(model, CPU)


# -------------------------------------------------------------------------------------------------------------- bands


@pytest.mark.parametrize(
    ("width", "stride", "band"), [(12, 1, 3), (12, 3, 5), (12, 4, 1), (10, 3, 4), (7, 2, 3), (11, 4, 9), (9, 9, 4)]
)
def test_bands_met_are_those_that_share_a_column(width: int, stride: int, band: int) -> None:
    """Sets of columns, one by one; and the closed form where it holds."""
    patch = Patch(band=band, stride=stride)
    shown = [{(start + step) % width for step in range(band)} for start in range(0, width, stride)]
    for size in range(width + 1):
        places = [{*range(left, left + size)} for left in range(width - size + 1)]
        most = max(sum(bool(place & columns) for columns in shown) for place in places)
        assert patch.met(size, width) == most, size
        if width % stride == 0 and 1 <= size <= width - stride:
            assert most == min(len(shown), math.ceil((size + band - 1) / stride))


def test_a_copy_shows_its_band_and_nothing_else() -> None:
    canvas = torch.rand((3, 2, 8), generator=torch.Generator().manual_seed(0))
    fill = (0.1, 0.2, 0.3)
    inside, around = ablated(canvas, [2, 6], 3, fill)
    for copy, shown in ((inside, [2, 3, 4]), (around, [6, 7, 0])):
        hidden = [column for column in range(8) if column not in shown]
        assert torch.equal(copy[:, :, shown], canvas[:, :, shown])
        assert torch.equal(copy[:, :, hidden], torch.tensor(fill).view(3, 1, 1).expand(3, 2, 5))
    point = canvas.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(ablated(point, [6], 3, fill).sum(), point)
    assert torch.equal(slope[0, 0], torch.tensor([1.0, 0, 0, 0, 0, 0, 1, 1]))


# -------------------------------------------------------------------------------------------------------- brute force

LEVELS = (0.0, 1.0)
WIDTH = 7


class Codebook:
    """Votes by a random table for what the columns show: 0, 1 or the fill; class K is "no answer"."""

    def __init__(self, seed: int, classes: int, bias: float) -> None:
        rng = np.random.default_rng(seed)
        favoured = rng.integers(classes)
        table = np.where(rng.random(3**WIDTH) < bias, favoured, rng.integers(classes, size=3**WIDTH))
        self._table = torch.tensor(table)

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        digits = (2 * canvas[:, 0, 0]).round().long() % 3
        return self._table[(digits * 3 ** torch.arange(WIDTH)).sum(1)]


def votes_of(model: Any, canvas: torch.Tensor, patch: Patch, question: Question = AB) -> tuple[int, ...]:
    starts = patch.starts(canvas.shape[2])
    return waist(model).vote(question).count(banded_copies(canvas, starts, patch.band, GREY, 64))


def patched(canvas: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """The canvas under every patch of this size on the levels of `Codebook`, which sees the first row only."""
    for left in range(WIDTH - size + 1):
        for values in product(LEVELS, repeat=size):
            moved = canvas.clone()
            moved[:, 0, left : left + size] = torch.tensor(values)
            yield moved


def turned(model: Any, canvas: torch.Tensor, patch: Patch, size: int) -> bool:
    """Tell whether some patch of this size turns the majority."""
    own = selected(votes_of(model, canvas, patch))
    return any(selected(votes_of(model, moved, patch)) != own for moved in patched(canvas, size))


def ensemble(patch: Patch, count: int = 60) -> Iterator[tuple[Codebook, torch.Tensor, Certificate]]:
    for seed in range(count):
        model = Codebook(seed, classes=3, bias=(0.55, 0.7, 0.85)[seed % 3])
        row = torch.tensor(LEVELS)[torch.randint(2, (WIDTH,), generator=torch.Generator().manual_seed(seed))]
        canvas = row.expand(3, 2, WIDTH).clone()
        yield model, canvas, certify_bands(waist(model).vote(AB), canvas, patch, fill=GREY, batch=5)


def test_no_patch_of_the_certified_size_turns_the_majority() -> None:
    """Every patch of every content at every place, for 240 random models; larger patches do turn some of them."""
    sizes, larger = [], 0
    for patch in (Patch(band=band, stride=stride) for band, stride in ((1, 1), (2, 1), (2, 2), (3, 1))):
        for model, canvas, found in ensemble(patch):
            if found.radius is None:
                assert found.abstained == NO_ANSWER and selected(found.votes or ()) == 2
                continue
            size = int(found.radius)
            sizes.append(size)
            assert not turned(model, canvas, patch, size)
            larger += turned(model, canvas, patch, size + 1)
    assert [sizes.count(size) >= 5 for size in (0, 1, 2)] == [True] * 3 and larger > 5


class Loud:
    """Votes `rival` where a column is white, else `own`; of two options, and "no answer"."""

    def __init__(self, own: int, rival: int) -> None:
        self.own, self.rival = own, rival

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        return torch.where((canvas == 1).flatten(1).any(1), self.rival, self.own)


@pytest.mark.parametrize(("band", "stride", "width"), [(2, 1, 12), (3, 1, 12), (4, 2, 16), (3, 1, 13), (5, 3, 20)])
@pytest.mark.parametrize(("own", "rival"), [(0, 1), (1, 0), (0, 2)])
def test_the_size_is_the_largest_where_a_patch_turns_every_band_it_meets(
    own: int, rival: int, band: int, stride: int, width: int
) -> None:
    """A white patch wins all the bands that it meets: the majority holds up to the certified size, and no further.

    Where own and rival then have equally many votes, the first of them wins.
    """
    patch, model, canvas = Patch(band=band, stride=stride), Loud(own, rival), torch.zeros(3, 2, width)
    found = certify_bands(waist(model).vote(AB), canvas, patch, fill=GREY, batch=64)
    assert found.prediction == own and found.p_lower == 1 and found.radius is not None

    def holds(size: int) -> bool:
        for left in range(width - size + 1):
            moved = canvas.clone()
            moved[:, :, left : left + size] = 1
            if selected(votes_of(model, moved, patch)) != own:
                return False
        return True

    size = int(found.radius)
    assert size >= 1 and holds(size) and not holds(size + 1)


def test_a_tie_is_the_first_class_s() -> None:
    """12 bands of 2 columns: a pixel turns 2 of them. 8 against 4 is a tie then, 7 against 5 is lost."""
    patch, view = Patch(band=2, stride=1), View(height=2, width=12)
    radii = {
        votes: read_bands(votes, patch, view).radius
        for votes in ((8, 4, 0), (4, 8, 0), (9, 3, 0), (3, 9, 0), (7, 5, 0), (6, 6, 0))
    }
    assert radii == {(8, 4, 0): 1, (4, 8, 0): 0, (9, 3, 0): 2, (3, 9, 0): 1, (7, 5, 0): 0, (6, 6, 0): 0}
    assert read_bands((6, 6, 0), patch, view).prediction == 0
    assert read_bands((8, 0, 4), patch, view).radius == 1, "'no answer' is a class like the others"
    none = read_bands((3, 3, 6), patch, view)
    assert (none.prediction, none.radius, none.abstained) == (None, None, NO_ANSWER)


def test_the_ceiling_is_the_radius_of_unanimous_votes() -> None:
    view = View(height=384, width=384)
    budget = Exhaustive(noise="patch:size=32,band=48,stride=4")
    assert budget.draws(384) == 96
    assert budget.ceiling_on(view) == read_bands((96, 0, 0, 0, 0), budget.kind, view).radius == 145
    assert (math.ceil((145 + 47) / 4), math.ceil((146 + 47) / 4)) == (48, 49)


def test_votes_do_not_depend_on_the_batch_size() -> None:
    net, canvas, patch = waist(Net()), middle_canvases()[0], Patch(band=3, stride=1)
    found = [certify_bands(net.vote(ABCD), canvas, patch, fill=GREY, batch=batch) for batch in (1, 4, 100)]
    assert found[0] == found[1] == found[2]
    assert sum(found[0].votes or ()) == 9


# ------------------------------------------------------------------------------------------------------------ attacks


class MeanOfBands:
    """The mean probabilities over all bands, as `attacks` see a model."""

    def __init__(self, net: Waist, patch: Patch, rows: int) -> None:
        self.net, self.patch, self.rows = net, patch, rows

    def __call__(self, canvas: torch.Tensor) -> torch.Tensor:
        starts = self.patch.starts(canvas.shape[3])
        classify = self.net.classify([ABCD] * len(starts))
        rows = [classify(ablated(row, starts, self.patch.band, GREY)).exp().mean(0).log() for row in canvas]
        return torch.stack(rows)

    def take(self, rows: Any) -> MeanOfBands:
        return MeanOfBands(self.net, self.patch, len(rows))


def test_the_patch_attack_on_the_majority_never_breaks_a_certificate() -> None:
    """The attack of `evaluate`, with the patch as large as certified, and larger, where it does break some."""
    patch, canvases = Patch(band=2, stride=1), middle_canvases(12)
    tried = {"certified": 0, "larger": 0}
    broken = dict(tried)
    for seed in range(4):
        net = waist(Net(seed=seed))
        for canvas in canvases:
            found = certify_bands(net.vote(ABCD), canvas, patch, fill=GREY, batch=16)
            for name, size in (("certified", int(found.radius or 0)), ("larger", 7)):
                if not size:
                    continue
                attack = attacks.parse(f"patch:size={size},positions=3,steps=8")
                label, rng = torch.tensor([found.prediction]), torch.Generator().manual_seed(seed)
                moved = attack(MeanOfBands(net, patch, 1), canvas[None], label, [rng]).canvas[0]
                after = certify_bands(net.vote(ABCD), moved, patch, fill=GREY, batch=16)
                tried[name] += 1
                broken[name] += after.prediction != found.prediction
    assert tried["certified"] > 15 and broken["certified"] == 0
    assert broken["larger"] > 0


# -------------------------------------------------------------------------------------------------------- falsify

SHAPE = (3, 2, 12)


def close(margin: float) -> tuple[Linear, torch.Tensor]:
    """Whatever the band shows, the margin of A is this; a single dark column turns a band where it is below 3."""
    model = Linear(torch.ones(SHAPE))
    canvas = torch.full(SHAPE, 0.5)
    model.bias = margin - float(model.margin(canvas[None]))
    return model, canvas


def attacked(
    model: Any, canvas: torch.Tensor, patch: Patch, found: Certificate | None = None
) -> tuple[tuple[PatchShot, ...], list[Any], Certificate]:
    kept: list[Any] = []
    judged = waist(model)
    found = found or certify_bands(judged.vote(AB), canvas, patch, fill=judged.fill, batch=5)
    falsifier = PatchFalsifier(
        model=judged,
        spec=PatchSearch(positions=6, steps=4),
        patch=patch,
        seed=0,
        batch=5,
        keep=lambda *what: kept.append(what),
    )
    return falsifier("i", Shown(canvas=canvas, view=view_of(canvas)), AB, found), kept, found


PATCH = Patch(band=2, stride=1)


@pytest.mark.parametrize(("margin", "left"), [(0.5, (6, 6, 0)), (2.0, (6, 6, 0)), (4.0, (8, 4, 0)), (7.0, (12, 0, 0))])
def test_sound_certificates_survive(margin: float, left: tuple[int, ...]) -> None:
    """The search turns each of the 5 + 2 - 1 bands that it meets, where a dark column, or two, can do that."""
    shots, kept, found = attacked(*close(margin), PATCH)
    assert not kept and found.votes == (12, 0, 0) and found.radius == 5
    assert [shot.size for shot in shots] == [0] + [5] * 6 and shots[0].votes == (12, 0, 0)
    assert {shot.votes for shot in shots[1:]} == {left}
    assert all(shot.unexplained == 0 for shot in shots)


def test_too_few_bands_counted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Patch.met
    monkeypatch.setattr(Patch, "met", lambda self, size, width: true(self, size, width) // 2)
    shots, kept, found = attacked(*close(0.5), PATCH)
    assert found.radius is not None and found.radius > 5 and kept
    assert all(shot.refutes(found.votes or ()) for shot in shots[1:])
    assert torch.equal(kept[0][2] != close(0.5)[1], (kept[0][2] != 0.5)) and kept[0][:2] == ("i", 1.0)


def leaking(canvas: torch.Tensor, starts: Any, band: int, fill: Any) -> torch.Tensor:
    """As if the fill were the image's own mean."""
    shown = ablated(torch.ones_like(canvas), starts, band, (0.0, 0.0, 0.0)).bool()
    return canvas.where(shown, canvas.mean())


def wider(canvas: torch.Tensor, starts: Any, band: int, fill: Any) -> torch.Tensor:
    """As if bands overlapped by more than is counted."""
    return ablated(canvas, starts, band + 2, fill)


@pytest.mark.parametrize("planted", [leaking, wider])
def test_copies_that_show_more_than_their_band_are_found(
    planted: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (bands, falsify_patch):
        monkeypatch.setattr(module, "ablated", planted)
    shots, kept, _ = attacked(*close(0.5), PATCH)
    assert kept and any(shot.unexplained for shot in shots)


class Fickle:
    """Answers differently each time that it is asked."""

    calls = 0

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        self.calls += 1
        sign = 1 if self.calls < 4 else -1
        return sign * torch.stack([canvas.sum((1, 2, 3)), -canvas.sum((1, 2, 3))], 1)


def test_a_model_that_answers_at_random_is_found_when_votes_are_counted_again() -> None:
    shots, kept, found = attacked(Fickle(), torch.full(SHAPE, 0.5), PATCH)
    assert shots[0].size == 0 and shots[0].votes != found.votes
    assert kept[0][:2] == ("i", 0.0)


class Sided:
    """A where the left half of the columns is brighter than the right one, after ablation; else B."""

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        margin = (canvas[..., :6] - canvas[..., 6:]).sum((1, 2, 3))
        return torch.stack([margin, -margin], 1)


def test_without_a_certified_size_votes_are_only_counted_again() -> None:
    canvas = torch.full(SHAPE, 0.75)
    shots, kept, found = attacked(Sided(), canvas, PATCH)
    assert found.radius == 0 and len(shots) == 1 and shots[0].votes == found.votes and not kept
