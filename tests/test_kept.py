"""Attacked images that are kept for figures: which, and that they are lossless."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from running import records
from test_cli import call
from test_pipeline import CANVAS, CHOSEN, Colors, evaluation, items

from safemed_eval import data
from safemed_eval.core import Item, Question
from safemed_eval.runs import read_lines
from safemed_eval.runs.images import Keeper, kept
from safemed_eval.runs.record import EvaluateRecord
from safemed_eval.runs.work import answering

ATTACKS = ("pgd:eps=4/255,steps=10", "fgsm:eps=4/255")
GREY = torch.full((3, 2, 2), 102 / 255)
Outcomes = dict[tuple[str, str], bool | None]


def drawn(count: int) -> list[Item]:
    question = Question(text="?", options=("a", "b"))
    return [Item(id=f"i{i}", question=question, label=0, image="x", root=Path()) for i in range(count)]


def record(item: Item, condition: str, outcomes: Outcomes) -> EvaluateRecord:
    right = outcomes[item.id, condition]
    prediction = item.label if right else None
    return answering.record(item, condition, prediction=prediction, error="gone" if right is None else None)


def expected(some: Sequence[Item], condition: str, outcomes: Outcomes, most: int) -> set[str]:
    """The documented choice: turned ones in their order, then others among the first."""
    there = [item.id for item in some if outcomes[item.id, condition] is not None]
    turned = [one for one in there if outcomes[one, "clean"] and not outcomes[one, condition]]
    first = {item.id for item in some[:most]}
    return set([*turned, *(one for one in there if one in first and one not in turned)][:most])


def stored(out: Path, some: Sequence[Item], condition: str) -> set[str]:
    return {item.id for item in some if kept(out, item.id, condition)}


def done(keeper: Keeper, units: Sequence[tuple[Item, str]], outcomes: Outcomes) -> Iterator[list[EvaluateRecord]]:
    """The records of all units but the last, unless it is alone: that one is stored, and then the power fails."""
    for item, condition in units:
        right = outcomes[item.id, condition]
        if right is not None and keeper.wants(item, condition, not right):
            keeper(item, condition, GREY, GREY)
        if (item, condition) != units[-1] or len(units) == 1:
            yield [record(item, condition, outcomes)]


@pytest.mark.parametrize("seed", range(30))
def test_those_that_turned_wrong_come_first_in_any_order_and_after_any_stop(seed: int, tmp_path: Path) -> None:
    """Conditions of an item come in any order, as from several workers; stops fall between storing and recording."""
    rng = random.Random(seed)
    some, most = drawn(12), rng.choice([1, 2, 3, 5, 20])
    clean_right, falls = rng.random(), rng.random()
    outcomes: Outcomes = {(item.id, "clean"): rng.random() < clean_right for item in some}
    for item in some:
        for attack in ATTACKS:
            outcomes[item.id, attack] = rng.choice(
                [None, *[bool(outcomes[item.id, "clean"]) and rng.random() > falls] * 9]
            )
    units = [(item, condition) for item in some for condition in ("clean", *ATTACKS)]
    written: list[EvaluateRecord] = []
    while units:
        rng.shuffle(units)
        keeper = Keeper(tmp_path, some, most, quantized=False)
        keeper.resume(written)
        for group in keeper.following(done(keeper, units[: rng.randrange(2, 20)], outcomes)):
            written += group
            units = [one for one in units if (one[0].id, one[1]) != (group[0].item, group[0].attack)]
    for attack in ATTACKS:
        assert stored(tmp_path, some, attack) == expected(some, attack, outcomes, most)


def test_no_more_is_stored_than_may_be_kept(tmp_path: Path) -> None:
    """With a thousand items that turn wrong, in order, no more images are written than kept."""
    some, writes = drawn(1000), 0
    outcomes = {(item.id, name): name == "clean" for item in some for name in ("clean", ATTACKS[0])}
    keeper = Keeper(tmp_path, some, 3, quantized=False)
    for item in some:
        before = len(list(tmp_path.rglob("*.npy")))
        list(keeper.following([[record(item, "clean", outcomes)]]))
        keeper(item, ATTACKS[0], GREY, GREY)
        writes += len(list(tmp_path.rglob("*.npy"))) > before
        list(keeper.following([[record(item, ATTACKS[0], outcomes)]]))
    assert writes == 3 and stored(tmp_path, some, ATTACKS[0]) == {"i0", "i1", "i2"}


def test_the_command_keeps_the_same_images_in_any_batch_and_after_a_stop(table: Path, tmp_path: Path) -> None:
    """Half of the gold answers are exchanged, so that the first items are wrong already."""
    rows = (table.read_text()).splitlines()
    table.write_text("\n".join(_exchanged(rows, 4)) + "\n")
    asked = ["evaluate", "--model", "python:safemed_eval.models.toy:brightness", "--data", f"table:{table}"]
    asked += ["--canvas", "24x24", "--attack", "pgd:eps=64/255,steps=5", "--keep-images", "3"]
    found = {}
    for name, more in (("one", ["--batch-size", "1"]), ("eight", ["--batch-size", "8"])):
        assert call(*asked, *more, "--out", tmp_path / name)[0] == 0
        found[name] = sorted(file.name for file in (tmp_path / name / "images").rglob("*"))
    records = read_lines(tmp_path / "one")
    right = {(one["item"], one["attack"]): one["correct"] for one in records}
    attack = next(one["attack"] for one in records if one["attack"] != "clean")
    turned = [item for item, name in right if name == "clean" and right[item, name] and not right[item, attack]]
    assert not right["q0", "clean"] and len(turned) >= 3
    assert {item for item, name in right if kept(tmp_path / "one", item, attack)} == set(turned[:3])
    file = tmp_path / "eight/records.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:9]))
    assert call(*asked, "--batch-size", "8", "--out", tmp_path / "eight")[0] == 0
    found["again"] = sorted(file.name for file in (tmp_path / "eight/images").rglob("*"))
    assert found["one"] == found["eight"] == found["again"]


def _exchanged(rows: Sequence[str], count: int) -> Iterator[str]:
    """A table whose first rows have another answer."""
    head = rows[0].split(",")
    yield rows[0]
    for number, row in enumerate(rows[1:]):
        cells = dict(zip(head, row.split(","), strict=True))
        if number < count:
            options = [cells[name] for name in head if name.startswith("option_") and cells[name]]
            cells["answer"] = next(one for one in options if one != cells["answer"])
        yield ",".join(cells.values())


def test_kept_images_are_lossless(table: Path, tmp_path: Path) -> None:
    for quantize in (False, True):
        out = tmp_path / str(quantize)
        keeper = Keeper(out, items(table), 2, quantized=quantize)

        def keep(item: Item, condition: str, clean: Any, attacked: Any, wrong: bool, keeper: Keeper = keeper) -> None:
            if keeper.wants(item, condition, wrong):
                keeper(item, condition, clean, attacked)

        list(keeper.following(records(evaluation(Colors(), quantize=quantize, keep=keep), items(table), CHOSEN)))
        folder = out / "images" / "pgd_eps=8_255,steps=3"
        clean = sorted(folder.glob("*.clean.png"))
        assert len(clean) == 2 and not (out / "images/clean").exists()
        item = next(one for one in items(table) if clean[0].name.startswith(f"{one.id}-"))
        first = np.asarray(Image.open(clean[0])).astype(float) / 255
        np.testing.assert_allclose(first, data.canvas_of(item, CANVAS).permute(1, 2, 0).numpy(), atol=1e-6)
        stem = clean[0].name.removesuffix(".clean.png")
        if quantize:
            adversarial = np.asarray(Image.open(folder / f"{stem}.adv.png")).astype(float) / 255
        else:
            adversarial = np.moveaxis(np.load(folder / f"{stem}.adv.npy"), 0, 2)
        assert 0 < np.abs(adversarial - first).max() <= 8 / 255 + 1e-6
