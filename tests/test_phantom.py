"""The drawn benchmark: the same everywhere, balanced, nothing to be had from the text alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from safemed_eval import data
from safemed_eval.core import MODALITIES, QUESTION_TYPES
from safemed_eval.data import DataSet
from safemed_eval.errors import DataError, SpecError


@pytest.fixture(scope="module")
def test_split() -> DataSet:
    return data.load("phantom")


def test_all_slices_are_there(test_split: DataSet) -> None:
    counts = Counter((item.modality, item.question_type) for item in test_split.items)
    assert set(counts) == {(m, q) for m in MODALITIES for q in QUESTION_TYPES}
    assert len({item.image for item in test_split.items}) == 384
    assert len({item.id for item in test_split.items}) == len(test_split.items) == 1728
    assert data.canvas_of(test_split.items[0], test_split.canvas).shape == (3, 64, 64)


def test_the_same_pixels_and_questions_on_every_machine(test_split: DataSet) -> None:
    """Recorded once; a difference means another benchmark, and another VERSION."""
    pictures = hashlib.sha256()
    for item in test_split.items[::27]:
        pictures.update(data.pixels_of(item).tobytes())
    assert pictures.hexdigest() == "b5c3443363293076412496017109bce11b39076ccabeb6e53e0e8bd5b8bb3c07"
    assert test_split.sha256 == "7e799ba13baac0f1a688706796af35841b64533b42e8faf03907f0f7a823b32f"


def test_letters_are_balanced(test_split: DataSet) -> None:
    for count in (2, 4):
        letters = Counter(item.label for item in test_split.items if len(item.question.options) == count)
        assert set(letters) == set(range(count))
        assert max(letters.values()) - min(letters.values()) <= len(QUESTION_TYPES)


def test_text_alone_gives_chance() -> None:
    """A table of every (question, option) pair's share of gold, learned on 40,000 questions, against new ones."""
    seen: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for item in data.load("phantom:split=train,images=9000").items:
        for index, option in enumerate(item.question.options):
            for key in ((item.question.text, option), (item.question.text, *item.question.options, option)):
                seen[key][0] += index == item.label
                seen[key][1] += 1
    right, chance, items = 0, 0.0, data.load("phantom:images=4000").items
    for item in items:
        scores = []
        for option in item.question.options:
            whole = seen[(item.question.text, *item.question.options, option)]
            part = seen[(item.question.text, option)]
            scores.append((whole[0] + 4 * (part[0] + 1) / (part[1] + 4)) / (whole[1] + 4))
        right += int(np.argmax(scores)) == item.label
        chance += 1 / len(item.question.options)
    spread = np.sqrt(chance * (1 - chance / len(items)))
    assert abs(right - chance) < 4 * spread, f"{right} of {len(items)}, chance is {chance:.0f}"


def test_splits_and_seeds_share_no_picture() -> None:
    found: list[set[bytes]] = []
    for spec in ("split=train", "split=validation", "split=test", "split=test,seed=1"):
        items = data.load(f"phantom:{spec},images=64").items
        found.append({data.pixels_of(item).tobytes() for item in items})
        assert len(found[-1]) == 64
    assert len(set.union(*found)) == 4 * 64
    more = data.load("phantom:images=100").items
    assert [item.id for item in more[:60]] == [item.id for item in data.load("phantom").items[:60]]


def test_lesions_show() -> None:
    """The picture differs from the same one without its lesion, more for a higher grade."""
    from dataclasses import replace

    from safemed_eval.data.sources._drawing import draw
    from safemed_eval.data.sources.phantom import Phantom, case_of

    for index in range(32, 128):
        case = case_of(Phantom(), index)
        sizes = []
        for grade in (0, 3):
            pictures = [
                draw(replace(case, finding=finding, grade=grade), np.random.default_rng(index)).astype(int)
                for finding in (0, case.finding)
            ]
            sizes.append(np.abs(pictures[1] - pictures[0]).sum())
        assert 0 < sizes[0] < sizes[1]


def test_bad_specs() -> None:
    for spec, message in (
        ("split=dev", "not a choice"),
        ("images=0", "at least 1"),
        ("image=3", "did you mean 'images'"),
    ):
        with pytest.raises(SpecError, match=message):
            data.load(f"phantom:{spec}")
    with pytest.raises(SpecError, match="no effect"):
        data.load("phantom", Path())


def test_export_is_read_back(tmp_path: Path) -> None:
    made = data.load("phantom:images=70")
    data.export(made, tmp_path / "p")
    back = data.verify(data.load(f"omnimedvqa:{tmp_path / 'p'}"))
    assert not back.bad and not back.notes and len(back.items) == len(made.items)
    for ours, theirs in zip(made.items, back.items, strict=True):
        for name in ("id", "question", "label", "modality", "question_type", "source"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert np.array_equal(data.pixels_of(ours), data.pixels_of(theirs))
        assert data.canvas_of(ours, made.canvas).equal(data.canvas_of(theirs, made.canvas))
    with pytest.raises(DataError, match="not empty"):
        data.export(made, tmp_path / "p")
