"""Images that are read before they are asked for."""

from __future__ import annotations

from concurrent.futures import wait
from pathlib import Path

import pytest
import torch

from safemed_eval import data
from safemed_eval.data import Canvas, Reader, canvas_of
from safemed_eval.data.images import reader as module
from safemed_eval.errors import DataError


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the items whose images have been read."""
    found: list[str] = []

    def noted(item: data.DataSet, canvas: Canvas) -> torch.Tensor:
        found.append(item.id)  # type: ignore[attr-defined]
        return canvas_of(item, canvas)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "canvas_of", noted)
    return found


def test_groups_are_read_once_and_ahead(table: Path, reads: list[str]) -> None:
    items = data.verify(data.load(f"table:{table}")).items
    groups = [items[:3], items[3:6], items[6:]]
    reader = Reader(Canvas(size=(24, 24)))
    for group, following in zip(groups, [*groups[1:], ()], strict=True):
        for _ in range(3):  # three conditions
            reader.expect(group)
            reader.expect(following)
            found = reader.read(group)
            assert [item.id for item, _ in found] == [item.id for item in group]
            for item, canvas in found:
                assert torch.equal(canvas, canvas_of(item, Canvas(size=(24, 24))))  # type: ignore[arg-type]
        for begun in list(reader._coming.values()):
            wait(begun)
        assert {item.id for item in (*group, *following)} <= set(reads)
    assert sorted(reads) == sorted(item.id for item in items)


def test_images_of_any_size_wait_for_their_turn(table: Path, reads: list[str]) -> None:
    items = data.verify(data.load(f"table:{table}")).items
    reader = Reader(Canvas(size=None))
    reader.expect(items[:3])
    assert reads == [] and not reader._coming
    assert len(reader.read(items[:3])) == 3


def test_what_is_wrong_with_an_image_is_its_canvas(table: Path) -> None:
    items = data.verify(data.load(f"table:{table}")).items
    items[1].path.unlink()
    found = Reader(Canvas(size=(24, 24))).read(items[:2])
    assert isinstance(found[0][1], torch.Tensor) and isinstance(found[1][1], DataError)
