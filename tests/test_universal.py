"""One perturbation for all images: the closed form, the split by patients, and what a run keeps of it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_pipeline import Colors, evaluation, items
from toys import AB, generators, linear, middle_canvases

from safemed_eval import attacks, evaluate, load_data, load_model, plan
from safemed_eval.attacks import Problem
from safemed_eval.core import Item, Question
from safemed_eval.data import Canvas
from safemed_eval.errors import DataError, RunError, SpecError
from safemed_eval.models.waist import Waist
from safemed_eval.runs.images import kept
from safemed_eval.runs.work.evaluate import TAUGHT
from safemed_eval.runs.work.fit import half_of
from safemed_eval.runs.work.units import Group
from safemed_eval.seeds import generator

SPEC = "universal:eps=8/255,steps=6"
UNREAD = Canvas(size=(16, 16))
"""Of a size at which no image has been read and remembered."""


def fit(spec: str, x: torch.Tensor, at_once: int = 32) -> torch.Tensor:
    """Fit on the linear toy, whose gold answers are all A, by a mile."""
    toy = linear()
    toy.bias = 40.0
    waist = Waist(toy, torch.device("cpu"))

    def batches(chosen: Sequence[int]) -> Iterator[Problem]:
        for start in range(0, len(chosen), at_once):
            rows = chosen[start : start + at_once]
            labels = torch.zeros(len(rows), dtype=torch.int64)
            yield Problem(classify=waist.classify([AB] * len(rows)), canvas=x[rows], labels=labels, generators=[])

    return attacks.parse(spec).fit(len(x), batches, generator("cpu", 0))


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_on_a_linear_model_it_is_the_closed_form(steps: int) -> None:
    """Every image loses most by -eps sign(w) in L-infinity, by -eps w / ||w||_2 in L2."""
    weight, x = linear().weight, middle_canvases(50)
    linf, l2 = (fit(f"universal:eps={eps},steps={steps}", x) for eps in ("4/255", "0.3,norm=l2"))
    torch.testing.assert_close(linf, -4 / 255 * weight.sign(), atol=1e-6, rtol=0)
    torch.testing.assert_close(l2, -0.3 * weight / weight.norm(), atol=1e-6, rtol=0)


def test_it_does_not_depend_on_how_many_images_fit_into_memory() -> None:
    x = middle_canvases(50)
    assert torch.allclose(
        fit("universal:eps=4/255,steps=7", x, 1), fit("universal:eps=4/255,steps=7", x, 32), atol=1e-6
    )


def test_nothing_to_fit_on_is_no_perturbation_of_zero() -> None:
    with pytest.raises(DataError, match="none of the images"):
        attacks.parse(SPEC).fit(5, lambda chosen: [], generator("cpu", 0))


@pytest.mark.parametrize("quantize", [False, True])
def test_every_image_is_moved_by_the_same(quantize: bool) -> None:
    """As far as [0, 1] lets it be, and to the nearest grey level on a grid."""
    x = (middle_canvases(20) * 255).round() / 255
    x[0, 0, 0, :4] = torch.tensor([0.0, 1.0, 2 / 255, 253 / 255])
    delta = 8 / 255 * (2 * torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)) - 1)
    classify = Waist(linear(), torch.device("cpu")).classify([AB] * 20)
    labels = torch.zeros(20, dtype=torch.int64)
    found = attacks.parse(SPEC)(classify, x, labels, generators(20), quantize=quantize, fitted=delta)
    expected = (x + delta).clamp(0, 1)
    torch.testing.assert_close(found.canvas, expected, atol=0.5001 / 255 if quantize else 1e-6, rtol=0)
    with pytest.raises(TypeError, match="needs the perturbation"):
        attacks.parse(SPEC)(classify, x, labels, generators(20))


# ------------------------------------------------------------------------------------------------------------ the split


def patients(table: Path) -> tuple[Item, ...]:
    """Eight items of five patients, two of whom have more than one."""
    names = ("a", "b", "a", "c", "d", "b", "e", "a")
    return tuple(replace(item, patient_id=name) for item, name in zip(items(table), names, strict=True))


def test_no_patient_is_fitted_on_and_tried(table: Path) -> None:
    every = patients(table)
    for seed in range(20):
        half = half_of(every, seed)
        fitted = {item.patient_id for item in half}
        tried = {item.patient_id for item in every if item not in half}
        assert len(fitted) == 2 and len(tried) == 3 and not fitted & tried
        assert {item.id for item in half_of(every[::-1], seed)} == {item.id for item in half}
    assert len({tuple(item.id for item in half_of(every, seed)) for seed in range(20)}) > 3


def test_one_patient_cannot_be_split(table: Path) -> None:
    with pytest.raises(SpecError, match="only one in the data"):
        half_of([item for item in patients(table) if item.patient_id == "a"], 0)


class Watched(Colors):
    """Notes the questions whose images a gradient is taken of."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        if canvas.requires_grad:
            self.seen |= {question.text for question in questions}
        return super().scores(canvas, questions)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_judged_item_is_never_fitted_on(table: Path, batch: int) -> None:
    every, model, attack = patients(table), Watched(), attacks.parse(SPEC)
    half = half_of(every, 0)
    texts = {item.question.text for item in half}
    assert len({item.question.text for item in every}) == len(every)
    work = evaluation(model, batch=batch, fitted_on=half)
    fitted = work.fit(attack)
    assert model.seen == texts
    records = work.under(attack, every, fitted)
    assert model.seen == texts, "judging takes no gradient"
    assert {record.item for record in records if record.unavailable == TAUGHT} == {item.id for item in half}
    for record in records:
        if record.unavailable:
            assert record.prediction is None and not record.correct and record.error is None and record.linf is None
        else:
            assert record.log_probs is not None and 0 < (record.linf or 0) <= 8 / 255 + 1e-6
    assert len(records) == len(every)


def test_unreadable_images_are_left_out_of_the_fit(table: Path) -> None:
    every = patients(table)
    half = half_of(every, 0)
    half[0].path.write_bytes(b"gone")
    assert np.abs(evaluation(Colors(), fitted_on=half).fit(attacks.parse(SPEC))).max() > 0
    for item in half:
        item.path.write_bytes(b"gone")
    with pytest.raises(RunError, match=r"--attack universal:eps=8/255,steps=6: cannot be fitted: none of the images"):
        evaluation(Colors(), fitted_on=half, canvas=UNREAD).fit(attacks.parse(SPEC))


# ------------------------------------------------------------------------------------------------------------- in a run


class Tints:
    """A linear model over the means of image quarters, for any number of options."""

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        parts = torch.nn.functional.adaptive_avg_pool2d(canvas, 2).flatten(1)
        weight = torch.randn(parts.shape[1], 8, generator=torch.Generator().manual_seed(0))
        return (parts @ weight)[:, : max(len(question.options) for question in questions)]


def test_a_run_keeps_one_perturbation_and_goes_on_with_it(tmp_path: Path) -> None:
    def run() -> object:
        data = load_data("phantom:images=10", limit=24)
        return evaluate(load_model(Tints()), data, attacks=[SPEC], keep_images=24, out=tmp_path / "run")

    first = run()
    cell = first.summary.overall[SPEC]  # type: ignore[attr-defined]
    rows = first.answers.all_under(SPEC)  # type: ignore[attr-defined]
    taught = {record.item for record in rows if record.unavailable}
    clusters = [{record.cluster for record in rows if bool(record.unavailable) == out} for out in (True, False)]
    assert len(taught) == cell.unavailable > 0 and cell.n == 24 - len(taught) > 0 and not clusters[0] & clusters[1]
    assert cell.rest_text == f"n/a for {len(taught)}"
    (file,) = (tmp_path / "run" / "fitted").iterdir()
    delta = np.load(file, allow_pickle=False)["fitted"].transpose(1, 2, 0)
    assert 0 < np.abs(delta).max() <= 8 / 255 + 1e-6
    for record in rows:
        pair = kept(tmp_path / "run", record.item, SPEC)
        assert (pair is None) == (record.item in taught)
        if pair:
            np.testing.assert_allclose(pair[1], (pair[0] + delta).clip(0, 1), atol=1e-6)
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines(keepends=True)
    short = "".join(lines[: len(lines) // 2 + 3])
    before = file.stat().st_mtime_ns
    (tmp_path / "run" / "records.jsonl").write_text(short)
    again = run()
    assert file.stat().st_mtime_ns == before, "it is not fitted again"
    answers = [{r.item: r.log_probs for r in some.answers.all_under(SPEC)} for some in (first, again)]  # type: ignore[attr-defined]
    assert answers[0] == answers[1]
    for broken, message in ((b"PK torn", "cannot be read"), (None, "is missing")):
        file.unlink()
        if broken:
            file.write_bytes(broken)
        (tmp_path / "run" / "records.jsonl").write_text("".join(lines[:-1]))
        with pytest.raises(RunError, match=message):
            run()


def test_groups_travel_with_the_perturbation(table: Path) -> None:
    every, attack = patients(table), attacks.parse(SPEC)
    fitted = np.ones((3, 24, 24), np.float32)
    group = Group(condition=attack, items=every, missing=frozenset({"q0"}), fitted=fitted)
    assert np.array_equal(pickle.loads(pickle.dumps(group)).fitted, fitted)


def test_what_cannot_be_done_is_refused_before_the_model_is_loaded() -> None:
    with pytest.raises(SpecError, match="need one size; name a --canvas"):
        evaluate("builtin:sft", load_data("phantom", canvas="native"), attacks=[SPEC])
    with pytest.raises(SpecError, match="fitted without noise"):
        evaluate("builtin:sft", "phantom", attacks=[SPEC], smooth="sigma=0.25")
    with pytest.raises(SpecError, match="knows no region"):
        attacks.parse("universal:region=background")
    with pytest.raises(SpecError, match="cannot be timed"):
        plan("builtin:sft", "phantom", attacks=[SPEC])
    assert not attacks.facts_of("universal:eps=1", {"eps": 1.0}).should_flip
