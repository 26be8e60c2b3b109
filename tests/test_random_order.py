"""Certificates over random orders of the options: free of letters, and the same votes however they are drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import draw_table
from running import certificates
from scipy.stats import chisquare
from synthetic import certified, write_run
from test_cli import _records, call, shared, summary_of
from test_order import Always
from test_pipeline import items
from toys import shown

import safemed_eval as se
from safemed_eval.core import Certificate, Question
from safemed_eval.data import Canvas
from safemed_eval.errors import SpecError
from safemed_eval.models.toy import Linear
from safemed_eval.models.waist import Waist
from safemed_eval.report import Run
from safemed_eval.runs import read_meta
from safemed_eval.runs.work import units
from safemed_eval.runs.work.certify import Certification, _order
from safemed_eval.runs.work.falsify import Falsifier, _Reordered
from safemed_eval.seeds import generator, order_of
from safemed_eval.smoothing import Budget, DonorVote, Falsification, Gaussian, Ladder, Sequential, Smoothing
from safemed_eval.smoothing.certify import certify, certify_gold, count_votes

__all__ = ["shared"]  # fixtures
CPU = torch.device("cpu")
ABCD = Question(text="?", options=("a lung", "a liver", "an eye", "a hand"))
SHAPE = (3, 4, 4)
CANVAS = 0.3 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))
NOISE = Gaussian(0.5)
orders = partial(_order, 4, 0, "i")


class Content:
    """Scores what the options say against the image, and those in the first place a little higher."""

    def __init__(self, letter: float = 0.0) -> None:
        self.letter = letter

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        first = torch.tensor([self.letter, 0.0, 0.0, 0.0])
        rows = [
            torch.stack([(_weight(text, canvas.shape[1:]) * row).sum() for text in question.options])
            for row, question in zip(canvas, questions, strict=True)
        ]
        return torch.stack(rows) + first[: len(rows[0])]


def _weight(text: str, shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(sum(map(ord, text))))


class Voting:
    """The same answers from a model that only votes."""

    def __init__(self, letter: float = 0.0) -> None:
        self._content = Content(letter)

    def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
        return self._content.scores(canvas, [question] * len(canvas)).argmax(1)


class Writing(Voting):
    """The same answers from a model that writes."""

    vote = property()  # type: ignore[assignment]

    def write(self, canvas: torch.Tensor, questions: Sequence[Question]) -> list[str]:
        places = self._content.scores(canvas, questions).argmax(1).tolist()
        return [question.letters[place] for place, question in zip(places, questions, strict=True)]


KINDS = [Content, Voting, Writing]


def rng(purpose: str, chunk: int) -> torch.Generator:
    return generator("cpu", 0, purpose, chunk)


def counted(model: object, n: int, batch: int, *, drawn: bool = True, first: int = 0) -> tuple[int, ...]:
    order = partial(orders, "estimate") if drawn else None
    vote = Waist(model, CPU).vote(ABCD)
    return count_votes(vote, CANVAS, NOISE, n, batch, partial(rng, "estimate"), first=first, order=order)


def made(model: object, canvas: torch.Tensor = CANVAS, **asked: Any) -> Certificate:
    budget = Smoothing(sigma=0.5, n0=40, n=400)
    return certify(Waist(model, CPU).vote(ABCD), canvas, budget, rng=rng, batch=64, **asked)


# -------------------------------------------------------------------------------------------------------------- votes


def test_orders_are_uniform_and_independent_of_each_other() -> None:
    """All 24 orders, and all pairs of orders of successive copies and of the same copy's other purpose."""
    drawn = [tuple(orders("estimate", copy)) for copy in range(24 * 24 * 10)]
    number = {order: index for index, order in enumerate(permutations(range(4)))}
    assert chisquare([Counter(drawn)[order] for order in number]).pvalue > 0.001
    select = [tuple(orders("select", copy)) for copy in range(len(drawn))]
    for pairs in (pairwise(drawn), zip(drawn, select, strict=True)):
        counts = Counter(24 * number[one] + number[other] for one, other in pairs)
        assert chisquare([counts[pair] for pair in range(24 * 24)]).pvalue > 0.001


@pytest.mark.parametrize("place", [0, 2])
def test_a_model_that_looks_at_letters_only_votes_uniformly_and_loses_its_certificate(place: int) -> None:
    fixed = made(Always(place))
    assert fixed.prediction == place and fixed.radius == pytest.approx(
        Smoothing(sigma=0.5, n0=40, n=400).ceiling, rel=1e-5
    )
    free = made(Always(place), orders=orders)
    assert (free.prediction, free.radius) == (None, None)
    *options, silent = counted(Always(place), 4000, 100)
    assert silent == 0 and chisquare(options).pvalue > 0.001


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_reads_the_options_keeps_its_votes(kind: type[Any]) -> None:
    plain = counted(kind(), 300, 64, drawn=False)
    assert counted(kind(), 300, 64) == plain and sum(count > 20 for count in plain) > 1
    assert made(kind(), orders=orders) == made(kind())


@pytest.mark.parametrize("kind", KINDS)
def test_votes_are_those_of_each_copy_asked_by_itself(kind: type[Any]) -> None:
    """A plain loop: reorder by hand, ask for one row, and look up which option stands in the place that won."""
    wanted = [0] * 5
    for chunk in range(6):
        noisy = NOISE.apply(CANVAS, NOISE.draw(CANVAS, 16, rng("estimate", chunk)))
        for row in range(16):
            order = orders("estimate", 16 * chunk + row)
            asked = Question(text="?", options=tuple(ABCD.options[option] for option in order))
            place = int(Content(letter=4.0).scores(noisy[row : row + 1], [asked])[0].argmax())
            wanted[order[place]] += 1
    assert list(counted(kind(4.0), 96, 64)) == list(counted(kind(4.0), 96, 7)) == wanted
    assert wanted != list(counted(kind(4.0), 96, 64, drawn=False)), "this model would not show an order"


def test_no_answer_stays_no_answer() -> None:
    class Silent:
        def vote(self, canvas: torch.Tensor, question: Question) -> torch.Tensor:
            return torch.full((len(canvas),), 4)

    assert counted(Silent(), 50, 7) == (0, 0, 0, 0, 50)


def test_sequential_votes_use_the_orders_of_the_estimation_whatever_the_batch() -> None:
    ladder = Ladder(Sequential(sigma=0.5, radii={"0.5s": 0.25}, n=400))
    found = [
        certify_gold(Waist(model, CPU).vote(ABCD), CANVAS, ladder, gold=0, rng=rng, batch=batch, orders=orders)
        for model in (Always(0), Content(4.0))
        for batch in (7, 64)
    ]
    assert found[0] == found[1] and found[2] == found[3]
    assert found[0].radius is None and found[0].successes == counted(Always(0), found[0].stopped_at, 16)[0]
    fixed = certify_gold(Waist(Always(0), CPU).vote(ABCD), CANVAS, ladder, gold=0, rng=rng, batch=64)
    assert fixed.radius == 0.25


def test_a_question_in_another_order_has_the_same_certificate_in_distribution() -> None:
    """The share of each option depends on what it says, not on where the data put it."""
    turned = ABCD.reordered((2, 0, 3, 1))
    shares = []
    for question in (ABCD, turned):
        vote = Waist(Content(4.0), CPU).vote(question)
        votes = count_votes(vote, CANVAS, NOISE, 2000, 200, partial(rng, "x"), order=partial(orders, "x"))
        shares.append({text: count / 2000 for text, count in zip(question.options, votes, strict=False)})
    for text, share in shares[0].items():
        assert abs(share - shares[1][text]) < 4 * (2 * 0.25 / 2000) ** 0.5, text


# --------------------------------------------------------------------------------------------------------------- runs


def work_of(model: object, budget: Budget, batch: int = 16, **asked: Any) -> Certification:
    size = Canvas(size=(8, 8))
    return Certification(
        model=Waist(model, CPU), canvas=size, smoothing=budget, seed=0, batch=batch, option_order="random", **asked
    )


def test_parts_of_an_item_give_the_votes_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "PART", 64)
    asked = items(draw_table(tmp_path, rows=2))
    budget = Smoothing(sigma=0.5, n0=80, n=200)
    whole = [one["votes0"] + one["votes"] for one in certificates(work_of(Content(9.0), budget), asked)]
    for batch in (7, 16):
        work = work_of(Content(9.0), budget, batch)
        todo = units.Certificates(items=asked, smoothing=budget, batch=batch, done=lambda item: False, split=True)
        results = [(unit, unit.do(work)) for unit in todo.units()]
        assert len(results) > 4
        parts = [one for some in todo.records(iter(results)) for one in some]
        assert [[*one.votes0, *one.votes] for one in parts] == whole
    fixed = Certification(model=Waist(Content(9.0), CPU), canvas=Canvas(size=(8, 8)), smoothing=budget, seed=0, batch=7)
    assert [one["votes0"] + one["votes"] for one in certificates(fixed, asked)] != whole


def test_a_selection_that_is_wrong_ends_a_certificate_with_the_same_votes(tmp_path: Path) -> None:
    budget, asked = Smoothing(sigma=0.5, n0=40, n=100), items(draw_table(tmp_path, rows=4))
    whole = list(certificates(work_of(Content(9.0), budget), asked))
    chosen = [one["votes0"].index(max(one["votes0"])) for one in whole]
    asked = [
        replace(item, label=(place + n % 2) % len(item.question.options))
        for n, (item, place) in enumerate(zip(asked, chosen, strict=True))
    ]
    ended = list(certificates(work_of(Content(9.0), budget, stop_when_wrong=True), asked))
    assert [one["votes0"] for one in ended] == [one["votes0"] for one in whole]
    assert [one["votes"] for one in ended] == [None if n % 2 else one["votes"] for n, one in enumerate(whole)]


def test_votes_on_other_images_are_asked_in_random_orders_too(tmp_path: Path) -> None:
    """A model that looks at letters only spreads its votes on a blank image as it does on the item's own."""
    budget, asked = Smoothing(sigma=0.5, n0=1, n=20), items(draw_table(tmp_path, rows=12))
    made = list(certificates(work_of(Always(0), budget, grounding=DonorVote(n=200)), asked))
    blank = [one["blank_votes"] for one in made if one.get("blank_votes")]
    assert blank and all(chisquare(votes[:-1]).pvalue > 0.001 for votes in blank)


# ------------------------------------------------------------------------------------------------------------ attacks


def falsifier_of(model: object, **asked: Any) -> Falsifier:
    return Falsifier(
        model=Waist(model, CPU),
        spec=Falsification(shares=(0.0, 0.9), steps=3, m=4, n=400),
        noise=NOISE,
        seed=0,
        batch=64,
        keep=lambda *what: None,
        **asked,
    )


def test_the_search_follows_the_mean_over_orders() -> None:
    """Scores return in the question's own order, and letters average out."""
    canvases = CANVAS.repeat(240, 1, 1, 1)
    drawn = map(partial(order_of, 4, 0), range(1000))
    reordered = _Reordered(model=Waist(Content(), CPU), question=ABCD, orders=drawn)
    plain = Waist(Content(), CPU).classify([ABCD] * 240)(canvases)
    assert torch.allclose(reordered.take([0] * 240)(canvases), plain, rtol=1e-5, atol=1e-6)
    letters = _Reordered(model=Waist(Always(0), CPU), question=ABCD, orders=drawn)(canvases)
    assert chisquare(torch.bincount(letters.argmax(1), minlength=4)).pvalue > 0.001


def test_fresh_votes_are_asked_in_random_orders_where_certificates_are() -> None:
    """The bound of a certificate in the data's order does not hold over all orders: its fresh votes say so."""
    fixed = made(Always(0))
    for order, share in (("data", 1.0), ("random", 0.25)):
        shots = falsifier_of(Always(0), option_order=order)("i", shown(CANVAS), ABCD, fixed)
        assert [shot.votes / 400 for shot in shots] == pytest.approx([share, share], abs=0.1)


def test_sound_certificates_over_orders_survive() -> None:
    """A model that hears the letter, certified and attacked over orders: no bound is refuted."""
    model, canvas = Content(4.0), 2.5 * CANVAS
    found = made(model, canvas, orders=orders)
    assert found.radius is not None and made(model, canvas).votes != found.votes
    refuted: list[object] = []
    falsifier = falsifier_of(model, option_order="random")
    object.__setattr__(falsifier, "keep", lambda *what: refuted.append(what))
    shots = falsifier("i", shown(canvas), ABCD, found)
    assert not refuted and shots[1].length == pytest.approx(0.9 * found.radius, rel=1e-3)
    again = falsifier_of(model, option_order="random")
    object.__setattr__(again, "batch", 7)
    assert again("i", shown(canvas), ABCD, found) == shots


# ------------------------------------------------------------------------------------------------ folders and commands


def test_the_command_writes_its_order_and_keeps_to_itself(shared: list[object], tmp_path: Path) -> None:
    command = ["certify", *shared, "--sigma", 0.5, "--n", 50, "--n0", 5]
    plain = summary_of(*command, "--out", tmp_path / "plain")
    random = summary_of(*command, "--option-order", "random", "--out", tmp_path / "random")
    assert (plain["asked"]["option_order"], random["asked"]["option_order"]) == ("data", "random")
    assert "option_order" not in read_meta(tmp_path / "plain")["spec"]
    assert read_meta(tmp_path / "random")["spec"]["option_order"] == "random"
    assert any(one["votes"] != other["votes"] for one, other in zip(_records(plain), _records(random), strict=True)), (
        "Brightness answers by place"
    )
    code, text = call("compare", tmp_path / "plain", tmp_path / "random")
    assert code == 2 and 'option_order was null, now "random"' in text
    code, text = call(*command, "--out", tmp_path / "random")
    assert code == 2 and 'option_order was "random", now null' in text
    code, text = call(*command, "--option-order", "random", "--out", tmp_path / "random")
    assert code == 0 and "do not depend on the order of the options in the data" in " ".join(text.split())
    lines = (tmp_path / "random" / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "random" / "records.jsonl").write_text("".join(lines[:3]))
    resumed = summary_of(*command, "--option-order", "random", "--out", tmp_path / "random")
    assert [one["votes"] for one in _records(resumed)] == [json.loads(line)["votes"] for line in lines]
    both = ["--falsify", "--sampling", "sequential", "--radii", "0.5s"]
    summary_of(*command[:-2], *both, "--option-order", "random", "--batch-size", 7, "--out", tmp_path / "b")


def test_the_automatic_folder_is_named_after_the_order(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = se.load_data(f"table:{table}", canvas="16x16")
    run = se.certify(
        "python:safemed_eval.models.toy:brightness", data, sigma=0.5, n0=5, n=20, option_order="random", out="auto"
    )
    assert run.out is not None and "sigma0.5-random-order" in run.out.name


def test_an_unknown_order_is_refused(table: Path) -> None:
    with pytest.raises(SpecError, match="option_order: 'any' is not a choice; known: data, random"):
        se.certify(Linear(torch.ones(3, 8, 8)), f"table:{table}", sigma=0.5, option_order="any")  # type: ignore[arg-type]


def test_reports_tell_the_orders_apart(tmp_path: Path) -> None:
    from safemed_eval.report import read_all
    from safemed_eval.report.page.provenance import method_of
    from safemed_eval.report.page.remarks import notices_of, remarks_of

    records = [certified(number, 950) for number in range(3)]
    plain = write_run(tmp_path / "a", records, "certify")
    mixed = write_run(tmp_path / "b", records, "certify", spec={"option_order": "random"})
    runs = read_all([plain, mixed])
    assert runs[1].name.endswith("random option order") and not runs[0].name.endswith("random option order")
    assert "random order for each noisy copy" in method_of(runs[1]) and "random" not in method_of(runs[0])
    assert any("in the same order" in notice.text for notice in notices_of(runs))
    assert [runs[1].name for remark in remarks_of(runs) if "random order" in remark.text] == [runs[1].name]
    assert Run.read(plain).frame()["radius"].equals(Run.read(mixed).frame()["radius"])
